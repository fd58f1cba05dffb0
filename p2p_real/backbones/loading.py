"""From a model's name to a backbone on a device."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch

from .base import Backbone, check_offload
from .folder import Parts, read_folder
from .names import ModelError, find_model, licence_of
from .sd import StableDiffusion
from .sdxl import StableDiffusionXL

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}


def load(
    model: str | Path,
    *,
    device: str,
    dtype: str,
    lora: str | Path | None,
    config: str | Path | None,
    offload: str | None,
    variant: str | None,
) -> Backbone:
    """See :func:`p2p_real.backbones.load_backbone`."""
    source = find_model(model)
    where = pick_device(device)
    what = pick_dtype(dtype, where)
    check_offload(offload, where)
    if lora is not None:
        _check_lora(lora)
    folder = source.path
    if source.kind == "file" and folder is not None:
        from .single_file import read_file

        parts = read_file(folder, what, Path(config) if config is not None else None)
        folder = folder.parent
    else:
        if folder is None:
            from .hub import fetch

            folder = fetch(source.name, what, variant)
        parts = read_folder(folder, what, variant)
    backbone = make_backbone(
        parts,
        name=source.name,
        device=where,
        licence=licence_of(folder, source.name),
        offload=offload,
    )
    if lora is not None:
        _fuse_lora(backbone, lora)
    logger.info(
        "%s: %s, %s, %s on %s; licence of the weights: %s",
        source.name,
        backbone.family,
        backbone.prediction,
        str(what).removeprefix("torch."),
        where,
        backbone.licence or "not stated",
    )
    return backbone


def make_backbone(parts: Parts, **kwargs: Any) -> Backbone:
    """The backbone of a family's parts; ``kwargs`` as :class:`Backbone` takes them."""
    modules = parts.unet, parts.vae, parts.tokenizers, parts.text_encoders, parts.scheduler
    if parts.xl:
        return StableDiffusionXL(*modules, force_zeros=parts.force_zeros, **kwargs)
    return StableDiffusion(*modules, **kwargs)


def pick_device(device: str | torch.device) -> torch.device:
    """``auto`` or a device by name.

    Raises:
        ModelError: the device is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if str(device) == "auto":
        return torch.device(next(name for name, here in there.items() if here))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ModelError(f"unknown device {device!r}: use auto, {', '.join(there)}") from None
    if not there.get(chosen.type, True):
        usable = [name for name, here in there.items() if here]
        raise ModelError(f"device {device!r} is not available here: use {' or '.join(usable)}")
    return chosen


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """``auto`` or a dtype by name.

    ``auto`` is float16 on cuda and xpu: an inversion needs its ten bits of mantissa more than
    bfloat16's range. Elsewhere float32.

    Raises:
        ModelError: an unknown name.
    """
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype == "auto":
        return torch.float16 if device.type in ("cuda", "xpu") else torch.float32
    name = SHORT.get(dtype, dtype)
    if name not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _check_lora(lora: str | Path) -> None:
    """A LoRA can be loaded: peft is there, and a path exists.

    Raises:
        ModelError: says what to install or to name.
    """
    if importlib.util.find_spec("peft") is None:
        raise ModelError("a LoRA needs peft: pip install peft")
    path = Path(lora).expanduser()
    if path.is_file() and path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file: only those are loaded")
    local = path.suffix == ".safetensors" or path.is_absolute() or str(lora).count("/") != 1
    if local and not path.exists():
        raise ModelError(f"no LoRA {str(lora)!r}: give a .safetensors file, a folder or a hub id")


def _fuse_lora(backbone: Backbone, lora: str | Path) -> None:
    """Add a LoRA to the weights for good, leaving the modules plain."""
    path = Path(lora).expanduser()
    where, more = str(lora), {}
    if path.is_file():
        where, more = str(path.parent), {"weight_name": path.name}
    before = backbone.weights_hash
    del backbone.weights_hash  # of the weights as they were
    pipe: Any = backbone.pipeline()
    try:
        pipe.load_lora_weights(where, use_safetensors=True, **more)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"the LoRA {str(lora)!r} cannot be used with {backbone.name!r}: {line}"
        ) from error
    for module in backbone.modules:
        module.requires_grad_(False).eval()
    if backbone.weights_hash == before:
        raise ModelError(
            f"the LoRA {str(lora)!r} changed no weight of {backbone.name!r}: is it for another?"
        )
    logger.info("fused the LoRA %s", lora)
