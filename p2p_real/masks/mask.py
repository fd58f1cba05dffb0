"""A mask as data: soft values of the photo's own size, and the way to the latents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ..fitting import Fit


@dataclass(frozen=True)
class Mask:
    """Where a photo may change.

    Args:
        values: [H, W] float32 in [0, 1], of the photo's size; 1 may change, 0 may not.
        spec: what it was read from, in words.
    """

    values: np.ndarray
    spec: str = "given array"

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float32)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(f"a mask is [H, W] of finite numbers, not {list(values.shape)}")
        if values.size and (values.min() < 0 or values.max() > 1):
            raise ValueError("a mask has values from 0 (stays) to 1 (may change)")
        object.__setattr__(self, "values", values)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    @cached_property
    def coverage(self) -> float:
        """Mean value: the share of the photo that may change."""
        return float(self.values.mean(dtype=np.float64))

    @cached_property
    def is_hard(self) -> bool:
        """Whether all values are 0 or 1."""
        return bool(((self.values == 0) | (self.values == 1)).all())

    @cached_property
    def image(self) -> Image.Image:
        """The mask as a grey picture, white where the photo may change."""
        return Image.fromarray(np.rint(self.values * 255).astype(np.uint8))

    def latent(self, size: tuple[int, int], fit: Fit | None = None) -> Tensor:
        """The mask on the latents' grid: every cell has the highest value that touches it.

        Args:
            size: (h, w) of the latents.
            fit: how the photo was put on the model's grid; None: it was not changed.

        Returns:
            [1, 1, h, w] in [0, 1]; of a hard mask in {0, 1}.
        """
        image = Image.fromarray(self.values)
        if fit is not None:
            image = fit.apply(image)
        pooled = adaptive_max_pool2d(torch.from_numpy(np.array(image))[None, None], size)
        return (pooled > 0.5).float() if self.is_hard else pooled.clamp(0, 1)


def on_photo(values: np.ndarray | Tensor, fit: Fit) -> np.ndarray:
    """Values of what the model saw, brought to the photo: scaled smoothly, 0 where it saw nothing.

    Args:
        values: [h, w] on any grid over the fitted picture.
        fit: how the photo was fitted.

    Returns:
        [H, W] float32 of the photo's size.
    """
    picture = Image.fromarray(np.array(values, np.float32))
    if picture.size != fit.fitted:
        picture = picture.resize(fit.fitted, Image.Resampling.BILINEAR)
    return np.array(fit.undo(picture, Image.new("F", fit.original)), np.float32)
