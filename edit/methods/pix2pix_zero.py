"""pix2pix-zero: the words change, and the maps of all words are led back to the photo's.

The reference needs no pass of its own, and both halves go where the conditional row's maps lead
(see :mod:`edit.guidance`); ``compat`` is the published way.

Paper: Zero-shot Image-to-Image Translation (arXiv 2302.03027), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inversion.registry import SettingError, setting

from ..align import align
from ..control import Control
from ..gates import steps_of
from ..guidance import MapGuidance
from ..method import EditContext, EditMethod, edits


@edits.register("pix2pix-zero")
class Pix2PixZeroEdit(EditMethod):
    """pix2pix-zero guidance: where each word is seen is led back to the photo, not held."""

    paper = "Zero-shot Image-to-Image Translation, arXiv 2302.03027"

    guidance_amount: float = setting(
        -1.0,
        "how strongly the word maps are led back, 0 not at all; -1: the preset, 0.1 for a network "
        "that predicts noise, 0.01 for others",
        low=-1,
        high=1e6,
    )
    start: float = setting(0.0, "fraction of the walk from which on it acts", low=0, high=1)
    stop: float = setting(1.0, "fraction of the walk until which it acts", low=0, high=1)
    every: int = setting(
        1, "it acts at every so-many-th step of these: 2 costs half as much more", low=1, high=1000
    )
    compat: bool = setting(
        False, "as published: each half is asked elsewhere, words are matched by place, no guard"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if -1 < self.guidance_amount < 0:
            raise SettingError(
                f"pix2pix-zero: guidance_amount={self.guidance_amount} is out of range: give a "
                "number from 0, or -1 for the preset"
            )
        if self.start >= self.stop:
            raise SettingError("pix2pix-zero: start is not before stop: nothing would be led back")

    def controls(self, context: EditContext) -> Sequence[Control]:
        amount = None if self.guidance_amount < 0 else self.guidance_amount
        window = steps_of((self.start, self.stop), context.steps)
        if self.compat:
            return [MapGuidance(amount, window, every=self.every, compat=True)]
        found = [align(context.source, target) for target in context.targets]
        matrix = torch.stack([a.matrix * a.taken for a in found])
        taken = torch.stack([a.taken for a in found])
        if bool((taken == 1).all()) and bool((matrix == torch.eye(matrix.shape[-1])).all()):
            return [MapGuidance(amount, window, every=self.every)]
        return [MapGuidance(amount, window, every=self.every, matrix=matrix, taken=taken)]
