"""What an unfinished inversion has so far, kept in a file, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .result import _settle

logger = logging.getLogger(__name__)

FORMAT = "p2p-real unfinished inversion 1"


def work_of(tensors: Iterable[Tensor], **facts: Any) -> str:
    """Hash of everything that decides a piece of work: tensors to the bit, and plain data."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for t in tensors:
        digest.update(f"{t.dtype} {list(t.shape)}".encode())
        digest.update(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class PartFile:
    """The file of one unfinished inversion; what cannot be read or written only costs time.

    Args:
        path: the file; it appears whole or not at all.
        every: seconds between two writings, at least.

    Attributes:
        seconds: spent on the work by earlier runs, as the file said.
    """

    def __init__(self, path: str | os.PathLike[str], every: float = 5.0) -> None:
        self.path, self.every = Path(path), every
        self.seconds = 0.0
        self._begun = self._last = time.monotonic()

    def load(self, work: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the same work, or None where there are none.

        Args:
            work: what :func:`work_of` gives; a file of other work is not read.
        """
        self.seconds = 0.0
        self._begun = self._last = time.monotonic()
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as f:
                meta = f.metadata() or {}
                if (meta.get("format"), meta.get("work")) != (FORMAT, work):
                    return None
                facts = json.loads(meta["facts"])
                tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
            self.seconds = float(facts.pop("seconds"))
        except (SafetensorError, OSError, ValueError, KeyError) as e:
            logger.warning("%s cannot be read, the inversion starts anew: %s", self.path, e)
            return None
        return tensors, facts

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._last >= self.every

    def save(self, work: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write what there is; a file that cannot be written is a notice, not a failure."""
        now = time.monotonic()
        spent = self.seconds + now - self._begun
        meta = {"format": FORMAT, "work": work, "facts": json.dumps({**facts, "seconds": spent})}
        whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        name = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                dir=self.path.parent, prefix=f".{self.path.name[:40]}.", suffix=".tmp"
            )
            os.close(handle)
            save_file(whole, name, metadata=meta)
            _settle(name)
            os.replace(name, self.path)
        except (SafetensorError, OSError) as e:
            logger.warning("%s cannot be written, a killed run starts anew: %s", self.path, e)
        finally:
            if name is not None:
                Path(name).unlink(missing_ok=True)
        self._last = time.monotonic()

    def remove(self) -> None:
        """The work is done, or no longer wanted."""
        self.path.unlink(missing_ok=True)
