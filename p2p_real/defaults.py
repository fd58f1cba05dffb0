"""Defaults and presets: what is used where the user says nothing, and what a number may be."""

from __future__ import annotations

import json
import logging
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from .backbones.base import Backbone

logger = logging.getLogger(__name__)

METHOD = "null-text"
GUIDANCE = 7.5
STEPS = 50
FOREIGN_DB = 25.0  # a VAE round trip below this is no picture of the embedded world


class OptionError(ValueError):
    """A number or name that cannot be used; names the option and what is possible."""


@lru_cache
def tabletop_preset() -> dict[str, Any]:
    """The embedded model's own settings, kept beside its weights."""
    from .tabletop import CHECKPOINT

    path = Path(CHECKPOINT) / "p2p_real.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def preset(model: str) -> dict[str, Any]:
    """Settings that suit a model (only the embedded one has any)."""
    return tabletop_preset() if model == "tabletop" else {}


def guidance(backbone: Backbone, asked: float | None) -> float:
    """The guidance_scale asked for, else the model's own, else 7.5."""
    if asked is not None:
        return float(asked)
    return float(preset(backbone.name).get("guidance_scale", GUIDANCE))


def captioner_checkpoint(model: str) -> str | None:
    """The embedded captioner for the embedded model; None is the captioner's own default."""
    if model != "tabletop":
        return None
    from .tabletop import CAPTIONER

    return str(CAPTIONER)


def check_numbers(
    *, steps: int | None = None, guidance_scale: float | None = None, seed: int | None = None
) -> None:
    """Refuse numbers that make no picture.

    Raises:
        OptionError: names the option and its range.
    """
    if steps is not None and not 1 <= steps <= 1000:
        raise OptionError(f"--steps {steps}: give a whole number from 1 to 1000")
    if guidance_scale is not None and not (
        math.isfinite(guidance_scale) and 0 <= guidance_scale <= 100
    ):
        raise OptionError(f"--guidance {guidance_scale}: give a number from 0 to 100")
    if seed is not None and not 0 <= seed < 2**63:
        raise OptionError(f"--seed {seed}: give a whole number from 0 to 2^63 - 1")


def warn_if_foreign(backbone: Backbone, name: str, ceiling_psnr: float) -> None:
    """Say once a photo that the embedded model cannot hold what it shows."""
    if backbone.name == "tabletop" and ceiling_psnr < FOREIGN_DB:
        logger.warning(
            "%s is outside the small world that the embedded model knows (its autoencoder gives "
            "%.1f dB): reconstruction will be poor; use --model sd1.5 or sdxl for your own photos",
            name or "the photo",
            ceiling_psnr,
        )
