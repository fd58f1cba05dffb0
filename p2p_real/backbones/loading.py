"""From a model's name to a backbone on a device."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

from .base import Backbone
from .folder import Parts, read_folder
from .names import ModelError, find_model, licence_of
from .placement import check_offload, pick_device, pick_dtype
from .sd import StableDiffusion
from .sdxl import StableDiffusionXL

logger = logging.getLogger(__name__)


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
