"""Gradient checkpointing while inside: less memory for a second forward pass, equal gradients.

Paper: Training Deep Nets with Sublinear Memory Cost (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def checkpointed(model: object, wanted: bool = True) -> Iterator[None]:
    """The blocks of ``model.unet`` keep their inputs only while inside; all is put back.

    Args:
        model: what holds the network; a diffusers model knows its own blocks.
        wanted: False changes nothing.

    Raises:
        ValueError: the network has no blocks that can be checkpointed.
    """
    if not wanted:
        yield
        return
    network: Any = getattr(model, "unet", model)
    if not hasattr(network, "enable_gradient_checkpointing"):
        raise ValueError(
            f"checkpointing: {type(network).__name__} cannot be checkpointed: leave it off"
        )
    names = ("gradient_checkpointing", "_gradient_checkpointing_func")
    before = [
        (module, {n: module.__dict__[n] for n in names if n in module.__dict__})
        for module in network.modules()
        if hasattr(module, names[0])
    ]
    network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for module, values in before:
            for n in names:
                module.__dict__.pop(n, None)
            module.__dict__.update(values)
