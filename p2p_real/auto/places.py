"""Where a change belongs, as masks of a photo: read once from its attention, and grown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import adaptive_max_pool2d, interpolate, max_pool2d

from ..masks import Mask, MaskError
from ..masks.making import EmptyMask
from . import deciding

if TYPE_CHECKING:
    from inversion import Inversion
    from inversion.sampling import Progress

    from ..editor import Editor

_SIDE = 256  # masks are grown at this size at most: their edges are no finer than the latents


@dataclass
class Places:
    """The masks of one photo for one target.

    Args:
        editor: with the network.
        inversion: of the photo.
        target: the new prompt.
        progress: called through the looks.
    """

    editor: Editor
    inversion: Inversion
    target: str
    progress: Progress
    _read: dict[str, np.ndarray | None] = field(default_factory=dict)

    def mask(self, spec: str, grow: float) -> Mask:
        """A mask in words, grown by a fraction of the shorter side.

        Raises:
            MaskError: it finds nothing.
        """
        parts = spec.split(deciding.OR)
        found = [values for part in parts if (values := self._values(part)) is not None]
        if not found:
            raise MaskError(f"the mask {spec!r} is empty: nothing of the photo is found by it")
        return Mask(grown(np.maximum.reduce(found), grow), f"{spec}, grown by {grow:g}")

    def _values(self, spec: str) -> np.ndarray | None:
        """One part of a mask, [H, W]; None where it finds nothing."""
        if spec not in self._read:
            try:
                mask = self.editor.mask(self.inversion, spec, self.target, progress=self.progress)
                self._read[spec] = mask.values
            except EmptyMask:
                self._read[spec] = None
        return self._read[spec]


def grown(values: np.ndarray, share: float) -> np.ndarray:
    """A mask [H, W] moved outward by a fraction of its shorter side, of large ones at a smaller
    size."""
    full = torch.from_numpy(values)[None, None]
    factor = min(1.0, _SIDE / max(values.shape))
    h, w = (max(1, round(side * factor)) for side in values.shape)
    small = adaptive_max_pool2d(full, (h, w))
    pixels = round(share * min(h, w))
    small = max_pool2d(small, 2 * pixels + 1, 1, pixels)
    found: np.ndarray = interpolate(small, full.shape[-2:], mode="nearest")[0, 0].numpy()
    return found
