"""The figures of a cell: how near the reconstruction and the edit are to the photo."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..images import Photo
from ..metrics import Perceptual, pixels, psnr, psnr_where, ssim


def measure_reconstruction(
    back: Image.Image, photo: Image.Image, ceiling: Image.Image, perceptual: Perceptual
) -> dict[str, Any]:
    """Reconstruction against photo and ceiling, and ceiling against photo, as the model sees them.

    An infinite PSNR (equal pictures) is kept as it is; JSON makes null of it.
    """
    return {
        "ceiling_psnr": psnr(ceiling, photo),
        "ceiling_ssim": ssim(ceiling, photo),
        f"ceiling_{perceptual.name}": perceptual.measure(ceiling, photo),
        "psnr": psnr(back, photo),
        "ssim": ssim(back, photo),
        perceptual.name: perceptual.measure(back, photo),
        "psnr_to_ceiling": psnr(back, ceiling),
        "ssim_to_ceiling": ssim(back, ceiling),
        f"{perceptual.name}_to_ceiling": perceptual.measure(back, ceiling),
    }


def measure_edit(
    edited: Image.Image, photo: Photo, mask: Image.Image | None, perceptual: Perceptual
) -> dict[str, Any]:
    """Edit against photo, at the photo's size; where there is a mask, outside of it.

    Outside a mask SSIM and the perceptual distance are those of the edit with the photo laid over
    the masked area: their windows reach into it, and what is changed there is wanted.
    """
    shown = Image.fromarray(pixels(edited))
    if mask is None:
        return {
            "region": "whole",
            "edit_psnr": psnr(shown, photo.image),
            "edit_ssim": ssim(shown, photo.image),
            f"edit_{perceptual.name}": perceptual.measure(shown, photo.image),
        }
    outside = np.asarray(mask.convert("L")) == 0  # grey changes a little
    kept = Image.fromarray(np.where(outside[..., None], np.array(shown), np.array(photo.image)))
    found: dict[str, Any] = {"region": "outside the mask", "outside": float(outside.mean())}
    if outside.any():
        found["edit_psnr"] = psnr_where(shown, photo.image, outside)
        found["edit_ssim"] = ssim(kept, photo.image, outside)
        found[f"edit_{perceptual.name}"] = perceptual.measure(kept, photo.image)
    return found
