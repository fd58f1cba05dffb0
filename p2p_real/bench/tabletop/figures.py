"""How far a picture is from the truth: everywhere, inside and outside what truly changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ...metrics import Perceptual, Picture, pixels, psnr, psnr_where, ssim
from ...tabletop.reader import Reader
from .truths import TruthEdit

CAP = 60.0  # dB that equal pictures count as in a mean
_SIDE = 16  # of the reader's features that are compared


@dataclass(frozen=True)
class Ruler:
    """What measures.

    Args:
        perceptual: the distance that follows what people see.
        reader: whose features tell the structure.
    """

    perceptual: Perceptual
    reader: Reader

    def measure(self, picture: Image.Image, truth: TruthEdit) -> dict[str, float | None]:
        """Figures of a picture against an edit's truth.

        SSIM counts windows centred inside or outside. The perceptual distance of one region is
        that of the picture with the truth laid over the other. None where there is no such region.
        """
        seen, true, inside = pixels(picture), pixels(truth.truth), truth.changed
        name, distance = self.perceptual.name, self.perceptual.measure
        found: dict[str, float | None] = {
            "psnr": capped(psnr(seen, true)),
            "ssim": ssim(seen, true),
            name: distance(seen, true),
            "structure": structure(self.reader, seen, true),
        }
        for where, chosen in (("inside", inside), ("outside", ~inside)):
            found[f"psnr_{where}"] = capped(psnr_where(seen, true, chosen))
            found[f"ssim_{where}"] = ssim(seen, true, chosen)
            if chosen.any():
                shown = np.where(chosen[..., None], seen, true)
                found[f"{name}_{where}"] = distance(shown, true)
            else:
                found[f"{name}_{where}"] = None
        return found


def capped(decibels: float | None) -> float | None:
    """A PSNR that can be averaged: that of equal pictures is ``CAP``."""
    return None if decibels is None else min(decibels, CAP)


@torch.no_grad()
def structure(reader: Reader, a: Picture, b: Picture) -> float:
    """Structure distance: how differently two pictures resemble themselves, place by place.

    The mean squared difference of the cosine similarities of all pairs of places, as PIE-Bench
    takes it of DINO's keys; here of the scene reader's features, 16 x 16 places, so its values
    compare with each other only.
    """
    one, two = (_likeness(reader, pixels(p)) for p in (a, b))
    return float((one - two).square().mean())


def _likeness(reader: Reader, picture: np.ndarray) -> Tensor:
    """Cosine similarities [places, places] of a picture's features."""
    device = next(reader.parameters()).device
    x = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    for layer in reader.body:
        y = layer(x)
        if y.shape[-1] < _SIDE:
            break
        x = y
    features = normalize(x[0].flatten(1), dim=0)  # [C, places]
    return features.T @ features


def mask_iou(found: Image.Image | np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of a found mask and a true one.

    Args:
        found: grey picture or bool array [H, W]; above 127 (or True) is inside.
        true: bool [H, W], not empty.
    """
    values = np.asarray(found.convert("L")) if isinstance(found, Image.Image) else found
    inside = values if values.dtype == np.bool_ else values > 127
    return float((inside & true).sum() / (inside | true).sum())


def reconstruction(report: Mapping[str, Any]) -> dict[str, float]:
    """PSNR of the reconstruction beside an edit, of the ceiling, and what is between, in dB."""
    back, ceiling = (
        CAP if report.get(key) is None else min(float(report[key]), CAP)
        for key in ("reconstruction_psnr", "ceiling_psnr")
    )
    return {
        "reconstruction_psnr": back,
        "ceiling_psnr": ceiling,
        "below_ceiling": ceiling - back,
    }
