"""A picture: `file:keep.png`, white where the photo may change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inversion.registry import setting

from ...fitting import Fit
from ...images import open_photo
from ..grammar import MaskError
from ..mask import on_photo
from ..source import MaskSource, Subject, mask_sources


def read_mask(
    mask: str | Path | Image.Image | np.ndarray, *sizes: tuple[int, int], option: str = "--mask"
) -> Image.Image:
    """A mask as a grey picture of one of these sizes, the photo's first (none given: any size).

    Raises:
        PhotoError: the file cannot be read.
        OptionError: another size, or nothing white in it.
    """
    image = open_photo(mask).image.convert("L")
    if sizes and image.size not in sizes:
        (width, height), *_ = sizes
        raise MaskError(
            f"{option} is {image.width} x {image.height}, the photo {width} x {height}: give a "
            "mask of the photo's size"
        )
    if np.asarray(image).max() < 128:
        raise MaskError(f"{option} has nothing white, so nothing may change: paint white there")
    return image


def latent_mask(
    mask: str | Path | Image.Image | np.ndarray, size: tuple[int, int], fit: Fit | None
) -> Tensor:
    """A picture (white = may change) as [1, 1, h, w] in {0, 1}: any latent cell it touches.

    Args:
        mask: of the photo's size, or of the size the model sees.
        size: (h, w) of the latents.
        fit: how the photo was put on the model's grid.

    Raises:
        PhotoError: the file cannot be read.
        OptionError: another size than the photo's.
    """
    sizes = () if fit is None else (fit.original, fit.fitted)
    image = read_mask(mask, *sizes)
    if fit is not None and image.size != fit.fitted:
        image = fit.apply(image)
    pixels = torch.from_numpy(np.array(image)).float()[None, None] / 255
    return (torch.nn.functional.adaptive_max_pool2d(pixels, size) > 0.5).float()


@mask_sources.register("file")
class File(MaskSource):
    """A picture of the photo's size, or of the size that the model sees."""

    paper = "a picture"
    about = "a picture of the photo's size, white where it may change"

    soft: bool = setting(False, "grey is in between; else light grey is white, dark grey black")

    def check(
        self, text: str, *, sizes: tuple[tuple[int, int], ...] = (), source: str | None = None
    ) -> None:
        read_mask(text, *sizes, option=f"file:{text}")

    def read(self, text: str, subject: Subject) -> np.ndarray:
        fit = subject.fit
        return self.values(
            read_mask(text, fit.original, fit.fitted, option=f"file:{text}"), subject
        )

    def values(self, image: Image.Image, subject: Subject) -> np.ndarray:
        """A grey picture's values on the photo, [H, W] in [0, 1]."""
        values = np.asarray(image, np.float32) / 255
        if image.size != subject.size:
            values = on_photo(values, subject.fit)
        return values if self.soft else (values > 0.5).astype(np.float32)
