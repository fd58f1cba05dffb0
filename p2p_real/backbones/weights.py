"""One digest of everything that a network knows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

WHOLE, SAMPLED = 2**20, 65536  # elements of a tensor hashed: all up to WHOLE, else this many


def hash_weights(modules: Sequence[nn.Module]) -> str:
    """A hex digest of names, shapes and values; of large tensors, evenly spaced values.

    Values count as float16, so float32 and float16 loads of a checkpoint agree; bfloat16 drops
    bits that float16 keeps, and gives a digest of its own.
    """
    digest = hashlib.sha256()
    for i, module in enumerate(modules):
        values = {k.removeprefix("text_model."): v for k, v in module.state_dict().items()}
        for name, value in sorted(values.items()):  # transformers 5 drops the prefix
            digest.update(f"{i} {name} {list(value.shape)}\n".encode())
            digest.update(_sample(value).cpu().numpy().tobytes())
    return digest.hexdigest()


def _sample(value: Tensor) -> Tensor:
    """The elements of a tensor that are hashed, as float16."""
    flat = value.detach().reshape(-1)
    if flat.numel() > WHOLE:
        index = torch.arange(SAMPLED, device=flat.device) * flat.numel() // SAMPLED
        flat = flat[index]
    return flat.to(torch.float16)
