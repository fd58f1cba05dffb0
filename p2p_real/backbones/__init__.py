"""Where networks come from: folders, hub ids and single files become one :class:`Backbone`.

Importing this package costs nothing; torch and diffusers are imported when a model is loaded.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .names import ALIASES, ModelError, Source, find_model

if TYPE_CHECKING:
    from .base import Backbone

__all__ = ["ALIASES", "Backbone", "ModelError", "Source", "find_model", "load_backbone"]


def load_backbone(
    model: str | Path = "tabletop",
    *,
    device: str = "auto",
    dtype: str = "auto",
    lora: str | Path | None = None,
    config: str | Path | None = None,
    offload: str | None = None,
    variant: str | None = None,
) -> Backbone:
    """The network of a name, ready to work.

    Args:
        model: ``tabletop`` (embedded), an alias (``sd1.4``, ``sd1.5``, ``sd2.1``, ``sdxl``), a hub
            id, a local diffusers folder, or a single ``.safetensors`` checkpoint.
        device: ``auto`` (the first of cuda, xpu, mps, cpu that is there) or a torch device.
        dtype: ``auto`` (float16 on cuda and xpu, float32 elsewhere), ``float32``, ``float16`` or
            ``bfloat16``.
        lora: a LoRA file, folder or hub id, fused into the weights.
        config: for a single file, a folder with the configuration (and tokenizer) of its model, or
            the name of a shipped one: ``sd1``, ``sd2-v``, ``sd2-base``, ``sdxl``.
        offload: ``model`` keeps only the module in use on the device; None or ``none`` keeps all.
        variant: which files of a folder to read (``fp16``, ``ema``, ...); default: the plain ones,
            or fp16 where there are no others.

    Raises:
        ModelError: one line on what is missing or not supported, and what works.
    """
    from .loading import load

    return load(
        model,
        device=device,
        dtype=dtype,
        lora=lora,
        config=config,
        offload=offload,
        variant=variant,
    )


def __getattr__(name: str) -> Any:
    """Give ``Backbone`` when it is first asked for (it imports torch and diffusers)."""
    if name == "Backbone":
        return importlib.import_module(".base", __name__).Backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
