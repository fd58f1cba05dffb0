"""Inversions that several edits of a photo share, made together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inversion import Cancelled, Inversion

from .truths import TruthEdit
from .ways import Way

if TYPE_CHECKING:
    from ...editor import Editor


@dataclass
class Inversions:
    """Inversions of some photos by one way, all made when the first is asked for.

    Args:
        editor: the models.
        steps: sampling steps.
        way: whose inversion it is.
        todo: the edits whose photos are needed.
    """

    editor: Editor
    steps: int
    way: Way
    todo: Sequence[TruthEdit]
    made: dict[str, tuple[Inversion, float]] = field(default_factory=dict)

    def of(self, truth: TruthEdit) -> tuple[Inversion, float]:
        """The inversion of an edit's photo, and its processor seconds."""
        if truth.id not in self.made:
            others = [t for t in self.todo if t.id not in self.made]
            try:
                self._invert(others if truth in others else [truth])
            except Cancelled:
                raise
            except Exception:
                if len(others) < 2:
                    raise
                self.todo = []  # from here on each photo stands or falls alone
                self._invert([truth])
        return self.made[truth.id]

    def _invert(self, truths: Sequence[TruthEdit]) -> None:
        start = time.process_time()
        found = self.editor.invert(
            [truth.photo for truth in truths],
            [truth.pair.source_caption for truth in truths],
            method=self.way.method.name,
            steps=self.steps,
            guidance_scale=self.way.guidance_scale,
            verify=False,
            **dict[str, Any](self.way.method.settings),
        )
        share = (time.process_time() - start) / len(truths)
        self.made |= {t.id: (made, share) for t, made in zip(truths, found, strict=True)}
