"""The rows of a comparison as they come: a photo, an inversion, an edit, or why there is none."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..metrics import Perceptual
from .asked import EditAsked, MethodAsked
from .cells import Cell
from .subjects import Subject

_OURS = ("p2p_real", "edit", "inversion", "captioning")


@dataclass(frozen=True)
class Failure:
    """Why a cell is not there.

    Args:
        reason: one line.
        trace: the traceback, where the error is none of those this program raises on purpose.
    """

    reason: str
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What is said of an error."""
        text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
        text, kind = " ".join(text.split()), type(error)
        if kind.__module__.split(".")[0] in _OURS and text:
            return cls(text)
        lines = traceback.format_exception(error)
        return cls(f"{kind.__name__}: {text}" if text else kind.__name__, "".join(lines))


@dataclass(frozen=True)
class Entry:
    """One row: a photo, an inversion and, where one was asked for, an edit."""

    subject: Subject
    method: MethodAsked
    edit: EditAsked | None
    guidance_scale: float
    inversion: Cell | Failure
    edited: Cell | Failure | None = None

    @property
    def failure(self) -> Failure | None:
        """Why this row is not whole, if it is not."""
        for part in (self.inversion, self.edited):
            if isinstance(part, Failure):
                return part
        return None


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they were made with.

    Args:
        entries: photo by photo, method by method, edit by edit.
        perceptual: how what people see was measured.
        settings: shared by all rows, plain data.
    """

    entries: list[Entry]
    perceptual: Perceptual
    settings: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain data; see :mod:`p2p_real.compare.table`."""
        from .table import rows

        return rows(self)

    def save(self, out: Path) -> dict[str, str]:
        """Write the four files; where they are."""
        from .table import save

        return save(self, out)
