"""Where a network computes, in which precision, and what stays on the device."""

from __future__ import annotations

from typing import Any

import torch

from .names import ModelError

OFFLOADS = ("none", "model")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}


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


def check_offload(offload: str | None, device: torch.device) -> str:
    """A valid offload setting.

    Raises:
        ValueError: an unknown setting, or one that the device cannot follow.
    """
    offload = offload or "none"
    if offload not in OFFLOADS:
        raise ValueError(f"unknown offload {offload!r}: use one of {list(OFFLOADS)}")
    if offload != "none" and device.type == "cpu":
        raise ValueError("offload needs an accelerator: on the cpu leave it out")
    return offload


def vae_dtype(config: Any, dtype: torch.dtype) -> torch.dtype:
    """What the VAE computes in beside a UNet of ``dtype``.

    float32 where float16 may overflow (``force_upcast``), and always beside bfloat16, whose eight
    bits of mantissa would show in the picture.
    """
    upcast = getattr(config, "force_upcast", True) or dtype == torch.bfloat16
    return torch.float32 if upcast else dtype
