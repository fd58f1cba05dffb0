"""Inversions on disk, found again by everything that made them.

A changed photo, prompt, model, setting or step count is another key, so a stale inversion is never
read. Least recently used files go first when the quota is reached.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from inversion import Inversion, InversionError
from inversion.result import SUFFIX
from inversion.resuming import PartFile

logger = logging.getLogger(__name__)

QUOTA = 4 * 2**30
PART = ".part"
WEEK = 7 * 24 * 3600


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/p2p-real``, or ``~/.cache/p2p-real``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "p2p-real" / "inversions"


class InversionCache:
    """A folder of inversions by content.

    Args:
        folder: where; None for :func:`default_folder`.
        quota: bytes kept at most.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, quota: int = QUOTA) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self.quota = quota

    @staticmethod
    def key(**made_of: Any) -> str:
        """Hash of plain data; every field counts."""
        text = json.dumps(made_of, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def get(self, key: str) -> Inversion | None:
        """The inversion of a key; a damaged file is named, removed and counts as missing."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            found = Inversion.load(path)
        except InversionError as e:
            logger.warning("cached inversion is damaged and is made again: %s", e)
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        return found

    def put(self, key: str, inversion: Inversion) -> None:
        """Keep an inversion; a cache that cannot be written is a notice, not a failure."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            inversion.save(self.path(key))
            self._shrink()
        except (OSError, SafetensorError) as e:
            logger.warning("the inversion could not be cached in %s: %s", self.folder, e)

    def part(self, keys: Sequence[str]) -> PartFile:
        """The file of photos whose inversion is not finished, beside those that are.

        Args:
            keys: of all photos that are inverted together.
        """
        name = keys[0] if len(keys) == 1 else self.key(photos=list(keys))
        return PartFile(self.folder / f"{name}{PART}")

    def _shrink(self) -> None:
        for f in self.folder.glob(f"*{PART}"):
            if time.time() - f.stat().st_mtime > WEEK:
                f.unlink(missing_ok=True)
        files = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda f: f.stat().st_mtime)
        total = sum(f.stat().st_size for f in files)
        for f in files[:-1]:
            if total <= self.quota:
                return
            total -= f.stat().st_size
            f.unlink(missing_ok=True)
