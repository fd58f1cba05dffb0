"""The patterns of the ground, soft enough for a small autoencoder to hold."""

from functools import lru_cache

import torch
from torch import Tensor

Rgb = tuple[float, float, float]


def ground_color(kind: str, u: Tensor, v: Tensor, far: Tensor) -> Tensor:
    """Gives the ground's own colour at points of the plane.

    Args:
        kind: One of `scene.GROUNDS`.
        u: Place from left to right, [P], in world units.
        v: Place from near to far, [P], in world units.
        far: How far each point is, [P], 0 to 1; the pattern fades towards its mean.

    Returns:
        Linear colours, [P, 3].
    """
    near = 1 - far
    if kind == "wood":
        plank = torch.floor(v / 0.9)
        grain = _noise(u * 0.6 + plank * 7.3, v * 5.0)
        line = ((v / 0.9 - plank - 0.5).abs() * 2 - 0.94).clamp(min=0) / 0.06
        tone = _hash(plank * 12.9898, 43758.547)
        weight = 0.5 + near * ((tone - 0.5) * 0.55 + (grain - 0.5) * 0.5)
        planks = _mix((0.34, 0.18, 0.08), (0.62, 0.39, 0.20), weight)
        return planks * (1 - 0.55 * near * line)[:, None]
    if kind == "sand":
        ripple = torch.sin(v * 4.2 + 2.2 * _noise(u * 0.5, v * 0.5) + u * 0.5)
        weight = 0.5 + near * (0.22 * ripple + 0.35 * (_noise(u * 2.1, v * 2.1) - 0.5))
        return _mix((0.66, 0.51, 0.31), (0.88, 0.74, 0.50), weight)
    if kind == "grass":
        patches, blades = _noise(u * 1.0, v * 1.0) - 0.5, _noise(u * 5.0, v * 3.0) - 0.5
        weight = 0.5 + near * (0.55 * patches + 0.6 * blades)
        return _mix((0.10, 0.27, 0.05), (0.34, 0.54, 0.13), weight)
    if kind == "snow":
        weight = 0.5 + near * (0.8 * (_noise(u * 0.8, v * 0.8) - 0.5))
        return _mix((0.76, 0.81, 0.88), (0.95, 0.96, 0.97), weight)
    if kind == "tiles":
        iu, iv = torch.floor(u / 1.1), torch.floor(v / 1.1)
        line = torch.maximum((u / 1.1 - iu - 0.5).abs(), (v / 1.1 - iv - 0.5).abs())
        line = ((line * 2 - 0.90) / 0.06).clamp(0, 1) * (0.15 + 0.85 * near)
        weight = 0.5 + near * (_hash(iu * 12.99 + iv * 78.23, 437.58) - 0.5)
        tiles = _mix((0.30, 0.44, 0.47), (0.42, 0.56, 0.58), weight)
        return tiles + (torch.tensor((0.78, 0.78, 0.74), device=u.device) - tiles) * line[:, None]
    if kind == "cloth":
        across, along = (torch.sin(w * 2.856).mul(9).clamp(-1, 1) for w in (u, v))
        return _mix((0.30, 0.27, 0.33), (0.84, 0.81, 0.76), 0.5 + 0.5 * near * across * along)
    raise ValueError(f"no ground {kind!r}")


@lru_cache
def _table(device: torch.device) -> Tensor:
    return torch.rand(64, 64, generator=torch.Generator().manual_seed(7)).to(device)


def _noise(u: Tensor, v: Tensor) -> Tensor:
    """Smooth noise in [0, 1] on a fixed 64 x 64 table that wraps around."""
    iu, iv = torch.floor(u), torch.floor(v)
    fu, fv = u - iu, v - iv
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    a, b = iu.long() & 63, iv.long() & 63
    a1, b1 = (a + 1) & 63, (b + 1) & 63
    table = _table(u.device)
    top = table[a, b] * (1 - fu) + table[a1, b] * fu
    bottom = table[a, b1] * (1 - fu) + table[a1, b1] * fu
    return top * (1 - fv) + bottom * fv


def _hash(x: Tensor, gain: float) -> Tensor:
    tone = torch.sin(x) * gain
    return tone - tone.floor()


def _mix(dark: Rgb, light: Rgb, weight: Tensor) -> Tensor:
    c0, c1 = (torch.tensor(c, device=weight.device) for c in (dark, light))
    return c0 + (c1 - c0) * weight[:, None]
