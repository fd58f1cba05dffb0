"""Finished cells on disk: what a killed comparison does not have to make again.

A cell is a JSON file and its PNGs under ``cells/``. It is found by a hash of everything that made
it, so other settings never meet it, and it counts only when its pictures are those it was saved
with; the JSON is written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import atomic_file, check_output_folder, plain, write_json

FORMAT = 1
_STALE = 3600.0  # seconds after which a hidden file is what a killed run left


@dataclass(frozen=True)
class Cell:
    """One finished piece of a comparison.

    Args:
        facts: figures as JSON knows them.
        pictures: by name, as they are on disk.
        files: by the same names, relative to the output folder.
        reused: whether an earlier run had made it.
    """

    facts: dict[str, Any]
    pictures: dict[str, Image.Image]
    files: dict[str, str]
    reused: bool = False


class Cells:
    """The cells of an output folder.

    Args:
        out: the output folder; ``cells`` is made in it.

    Raises:
        OutputError: it cannot be written to.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = check_output_folder(out / "cells")
        for file in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE:
                    file.unlink()

    def path(self, made_of: Mapping[str, Any], title: str) -> Path:
        """The JSON file of a cell: words for people, and the hash that decides."""
        words = re.sub(r"[^A-Za-z0-9_+=.]+", "-", title).strip("-.")[:60]
        return self.folder / f"{words}-{digest(made_of)[:20]}.json"

    def get(self, made_of: Mapping[str, Any], title: str) -> Cell | None:
        """The cell made of exactly this, or None; a damaged one counts as missing."""
        path = self.path(made_of, title)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT or data["made_of"] != plain(made_of):
                return None
            pictures, files = {}, {}
            for name, entry in data["pictures"].items():
                file = self.folder / Path(entry["file"]).name
                if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                    return None
                with Image.open(file) as image:
                    image.load()
                    pictures[name] = image.copy()
                files[name] = f"cells/{file.name}"
            return Cell(dict(data["facts"]), pictures, files, reused=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(
        self,
        made_of: Mapping[str, Any],
        title: str,
        facts: Mapping[str, Any],
        pictures: Mapping[str, Image.Image],
    ) -> Cell:
        """Keep a cell; what is given back is what a later run will find.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path(made_of, title)
        entries, files = {}, {}
        for name, picture in pictures.items():
            file = path.with_name(f"{path.stem}-{name}.png")
            with atomic_file(file) as stream:
                picture.save(stream, "PNG")
            entries[name] = {
                "file": file.name,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
            files[name] = f"cells/{file.name}"
        data = {"format": FORMAT, "made_of": made_of, "facts": facts, "pictures": entries}
        write_json(path, data)
        return Cell(plain(facts), dict(pictures), files)


def digest(made_of: Mapping[str, Any]) -> str:
    """Hash of plain data; every field counts."""
    return hashlib.sha256(json.dumps(plain(made_of), sort_keys=True).encode()).hexdigest()
