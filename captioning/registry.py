"""Captioners by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from captioning.captioner import Captioner

if TYPE_CHECKING:
    import torch

Checkpoint = str | os.PathLike[str] | None


class UnknownCaptioner(ValueError):
    """No captioner of that name; the message lists those that there are."""


def _blip(checkpoint: Checkpoint, device: str | torch.device | None) -> Captioner:
    from captioning.blip import BlipCaptioner

    return BlipCaptioner(checkpoint, device=device)


def _blip2(checkpoint: Checkpoint, device: str | torch.device | None) -> Captioner:
    from captioning.blip2 import Blip2Captioner

    return Blip2Captioner(checkpoint, device=device)


def _lavis(checkpoint: Checkpoint, device: str | torch.device | None) -> Captioner:
    from captioning.lavis import LavisCaptioner

    return LavisCaptioner(checkpoint, device=None if device is None else str(device))


_BUILDERS: dict[str, Callable[[Checkpoint, Any], Captioner]] = {
    "blip": _blip,
    "blip2": _blip2,
    "lavis": _lavis,
}


def captioners() -> list[str]:
    """The names that `load_captioner` knows."""
    return sorted(_BUILDERS)


def check_captioner(name: str) -> str:
    """The name itself, for checking input before anything is loaded.

    Raises:
        UnknownCaptioner: Lists what there is and the nearest name.
    """
    if name in _BUILDERS:
        return name
    near = difflib.get_close_matches(name.lower(), _BUILDERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownCaptioner(
        f"there is no captioner {name!r}; there are: {', '.join(captioners())}{hint}"
    )


def load_captioner(
    name: str = "blip",
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
) -> Captioner:
    """Loads a captioner.

    Args:
        name: One of `captioners()`.
        checkpoint: A local folder, or (but for lavis) a hub id; None takes the captioner's own
            default.
        device: A torch device; None takes CUDA, then MPS, then the CPU.

    Raises:
        UnknownCaptioner: No such name.
        CaptionerError: The weights are missing, incomplete or of another model.
    """
    return _BUILDERS[check_captioner(name)](checkpoint, device)
