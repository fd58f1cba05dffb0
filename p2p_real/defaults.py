"""Defaults and presets: what is used where the user says nothing, and what a number may be."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from .backbones.base import Backbone
from .numbers import GUIDANCE, METHOD, STEPS, OptionError, check_numbers

logger = logging.getLogger(__name__)

FOREIGN_DB = 25.0  # a VAE round trip below this is no picture of the embedded world


@lru_cache
def tabletop_preset() -> dict[str, Any]:
    """The embedded model's own settings, kept beside its weights."""
    from .tabletop import CHECKPOINT

    path = Path(CHECKPOINT) / "p2p_real.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def preset(model: str) -> dict[str, Any]:
    """Settings that suit a model (only the embedded one has any)."""
    return tabletop_preset() if model == "tabletop" else {}


def guidance(backbone: Backbone, asked: float | None, method: str | None = None) -> float:
    """The guidance_scale asked for, else the model's own (for an inversion), else 7.5."""
    if asked is not None:
        return float(asked)
    own = preset(backbone.name)
    by_method = own.get("guidance_by_method", {})
    return float(by_method.get(method, own.get("guidance_scale", GUIDANCE)))


def warn_if_foreign(backbone: Backbone, name: str, ceiling_psnr: float | None) -> None:
    """Say once a photo that the embedded model cannot hold what it shows."""
    if backbone.name == "tabletop" and ceiling_psnr is not None and ceiling_psnr < FOREIGN_DB:
        logger.warning(
            "%s is outside the small world that the embedded model knows (its autoencoder gives "
            "%.1f dB): reconstruction will be poor; use --model sd1.5 or sdxl for your own photos",
            name or "the photo",
            ceiling_psnr,
        )


__all__ = [
    "GUIDANCE",
    "METHOD",
    "STEPS",
    "OptionError",
    "check_numbers",
    "guidance",
    "preset",
    "warn_if_foreign",
]
