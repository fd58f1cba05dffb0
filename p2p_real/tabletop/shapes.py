"""The solids of the world as signed distances, each around its own centre at size 1."""

import math

import torch
from torch import Tensor

# height of the centre above the ground, radius of the sphere that holds it all
CENTER = {"ball": 0.72, "cube": 0.60, "cylinder": 0.66, "cone": 0.70, "donut": 0.27, "mug": 0.62}
BOUND = {"ball": 0.73, "cube": 1.05, "cylinder": 0.90, "cone": 1.05, "donut": 0.98, "mug": 1.10}


def distance(shape: str, p: Tensor) -> Tensor:
    """Gives the signed distance of points to a solid's surface.

    Args:
        shape: One of `scene.SHAPES`.
        p: Points, [..., 3], in units of the object's size.

    Returns:
        Distances, [...], negative inside.
    """
    x, y, z = p.unbind(-1)
    if shape == "ball":
        return torch.sqrt(x * x + y * y + z * z) - 0.72
    if shape == "cube":
        q = p.abs() - 0.53
        return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0) - 0.07
    r = torch.sqrt(x * x + z * z)  # distance from the upright axis
    if shape == "cylinder":
        a, b = r - 0.52, y.abs() - 0.60
        outside = torch.sqrt(a.clamp(min=0) ** 2 + b.clamp(min=0) ** 2)
        return outside + torch.maximum(a, b).clamp(max=0) - 0.06
    if shape == "cone":
        side = r * 0.895 + (y - 0.75) * 0.445  # tip at 0.75, base of radius 0.72 at -0.7
        return torch.maximum(side, -y - 0.70) - 0.02
    if shape == "donut":
        r = r - 0.66
        return torch.sqrt(r * r + y * y) - 0.27
    if shape == "mug":
        outer = torch.maximum(r - 0.54, y.abs() - 0.62)
        inner = torch.maximum(r - 0.44, -0.50 - y)
        body = torch.maximum(outer, -inner) - 0.01
        hx = x - 0.56
        ring = torch.sqrt((torch.sqrt(hx * hx + y * y) - 0.32) ** 2 + z * z) - 0.09
        return torch.minimum(body, torch.maximum(ring, 0.50 - r))
    raise ValueError(f"no shape {shape!r}; there are: {', '.join(CENTER)}")


def normal(shape: str, p: Tensor, reach: float = 0.004) -> Tensor:
    """Gives unit normals at surface points, [P, 3], from four distances around each."""
    total = torch.zeros_like(p)
    for signs in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k = torch.tensor(signs, dtype=torch.float32, device=p.device)
        total = total + k * distance(shape, p + k * reach)[:, None]
    return torch.nn.functional.normalize(total, dim=-1)


def turned(p: Tensor, angle: float) -> Tensor:
    """Turns points or directions, [..., 3], about the upright axis by an angle in radians."""
    c, s = math.cos(angle), math.sin(angle)
    x, y, z = p.unbind(-1)
    return torch.stack([c * x - s * z, y, s * x + c * z], -1)


def sphere_span(o: Tensor, d: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Gives where rays (origin `o`, unit direction `d`) enter and leave a sphere at the origin."""
    b = (o * d).sum(-1)
    root = (b * b - (o * o).sum(-1) + radius * radius).clamp(min=0).sqrt()
    return -b - root, -b + root


def trace(shape: str, o: Tensor, d: Tensor, steps: int = 40) -> tuple[Tensor, Tensor]:
    """Walks rays to a solid's surface.

    Args:
        shape: One of `scene.SHAPES`.
        o: Where the rays start, [P, 3], in the object's own frame.
        d: Unit directions, [P, 3].
        steps: How many times a ray may move on.

    Returns:
        Which rays hit, [P], and how far they went, [P].
    """
    start, end = sphere_span(o, d, BOUND[shape])
    t = start.clamp(min=0)
    hit = torch.zeros_like(t, dtype=torch.bool)
    alive = torch.arange(t.numel(), device=t.device)
    for _ in range(steps):
        gap = distance(shape, o[alive] + d[alive] * t[alive, None])
        t[alive] += gap * 0.95
        done = gap < 0.002
        hit[alive[done]] = True
        alive = alive[~done & (t[alive] < end[alive])]
        if alive.numel() == 0:
            break
    return hit, t


def shade(shape: str, o: Tensor, d: Tensor, steps: int = 22) -> Tensor:
    """Gives how much of the sun reaches points behind or beside a solid.

    Args:
        shape: One of `scene.SHAPES`.
        o: Points, [P, 3], in the object's own frame.
        d: Unit direction to the sun, [3].
        steps: How many times a ray may move on.

    Returns:
        1 in full light, 0 in full shadow, soft between, [P].
    """
    start, end = sphere_span(o, d[None], BOUND[shape] * 1.25)
    t = start.clamp(min=0.02)
    light = torch.ones(o.shape[0], device=o.device)
    alive = torch.arange(o.shape[0], device=o.device)
    for _ in range(steps):
        ta = t[alive]
        gap = distance(shape, o[alive] + d * ta[:, None])
        light[alive] = torch.minimum(light[alive], 9.0 * gap / ta.clamp(min=0.15))
        t[alive] = ta + gap.clamp(0.03, 0.3)
        alive = alive[(gap > 0.002) & (t[alive] < end[alive])]
        if alive.numel() == 0:
            break
    light = light.clamp(0, 1)
    return light * light * (3 - 2 * light)
