"""The renderer: distances traced in plain torch, soft shadows, 2 x 2 samples a pixel."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from p2p_real.tabletop.grounds import ground_color
from p2p_real.tabletop.scene import Record, check_record
from p2p_real.tabletop.shapes import BOUND, CENTER, distance, normal, shade, trace, turned

FIELD = 0.40  # tangent of half the field of view
CAMERA = 5.6  # distance of the camera from the middle of the ground
SAMPLES = 2  # along each side of a pixel

COLOR = {
    "red": (0.80, 0.07, 0.06),
    "yellow": (0.93, 0.76, 0.07),
    "green": (0.07, 0.50, 0.14),
    "blue": (0.07, 0.19, 0.78),
    "purple": (0.36, 0.09, 0.55),
    "pink": (0.95, 0.40, 0.62),
    "white": (0.90, 0.90, 0.88),
    "black": (0.035, 0.035, 0.04),
}
LIGHT = {  # direction to the sun, sun, light of the sky, sky at the horizon, sky overhead
    "noon": (
        (-0.50, 0.80, -0.42),
        (1.00, 0.97, 0.90),
        (0.42, 0.46, 0.52),
        (0.80, 0.88, 0.96),
        (0.38, 0.60, 0.92),
    ),
    "sunset": (
        (-0.84, 0.42, -0.20),
        (1.15, 0.62, 0.34),
        (0.42, 0.30, 0.34),
        (1.00, 0.58, 0.30),
        (0.48, 0.30, 0.52),
    ),
    "night": (
        (0.60, 0.72, -0.35),
        (0.34, 0.42, 0.62),
        (0.12, 0.15, 0.25),
        (0.07, 0.10, 0.22),
        (0.01, 0.02, 0.07),
    ),
}


def render(
    records: Sequence[Record], size: int = 128, device: str | torch.device = "cpu"
) -> Tensor:
    """Renders records; the same record gives the same picture.

    Scenes go one by one: a batch of rays with a gather for each object was measured to be
    slower on a CPU, so a batch of records is rendered exactly as each alone.

    Args:
        records: Scene records, at least one.
        size: Width and height in pixels.
        device: Where to render.

    Returns:
        Pictures, uint8 [B, size, size, 3], on `device`.

    Raises:
        ValueError: A record that names something the world does not have.

    Example:
        >>> from p2p_real.tabletop.scene import held_out_rng, sample_scene
        >>> render([sample_scene(held_out_rng(0))], size=16).shape
        torch.Size([1, 16, 16, 3])
    """
    return torch.stack([render_with_ids(record, size, device)[0] for record in records])


@torch.no_grad()
def render_with_ids(
    record: Record, size: int = 128, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """Renders a record and says which object each pixel shows.

    Args:
        record: The scene.
        size: Width and height in pixels.
        device: Where to render.

    Returns:
        The picture, uint8 [size, size, 3], and the index of the object in each pixel, -1 where
        there is none, int64 [size, size].
    """
    check_record(record)
    scene = _Scene(record, size * SAMPLES, torch.device(device))
    image = torch.empty_like(scene.rays)  # [P, 3], linear
    hits = scene.find()
    for k, at, p in hits:
        seen = scene.ids[at] == k
        image[at[seen]] = scene.object_color(k, at[seen], p[seen])
    sky, ground = scene.far > 1e8, (scene.far <= 1e8) & (scene.ids < 0)
    image[sky] = scene.sky(scene.rays[sky, 1])
    image[ground] = scene.ground(scene.rays[ground], scene.far[ground])
    image = (image / (1 + 0.18 * image * image)).clamp(0, 1).sqrt()
    blocks = (size, SAMPLES, size, SAMPLES)
    image = image.reshape(*blocks, 3).mean((1, 3)).clamp(0, 1) * 255 + 0.5
    return image.to(torch.uint8), scene.ids.reshape(blocks)[:, 0, :, 0].clone()


class _Scene:
    """A record's camera, rays and light as tensors."""

    def __init__(self, record: Record, side: int, device: torch.device) -> None:
        self.record, self.device = record, device
        self.objects = record["objects"]
        yaw = record["yaw"]
        self.eye = self.vector((CAMERA * math.sin(yaw), record["height"], -CAMERA * math.cos(yaw)))
        forward = normalize(self.vector((0.0, 0.80, 0.0)) - self.eye, dim=-1)
        right = normalize(torch.linalg.cross(self.vector((0.0, 1.0, 0.0)), forward), dim=-1)
        up = torch.linalg.cross(forward, right)
        px = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
        yy, xx = torch.meshgrid(-px, px, indexing="ij")
        rays = forward + FIELD * (xx.reshape(-1, 1) * right + yy.reshape(-1, 1) * up)
        self.rays = normalize(rays, dim=-1)  # [P, 3]
        sun, *rest = (self.vector(value) for value in LIGHT[record["light"]])
        self.sun = normalize(sun, dim=-1)
        self.sun_color, self.sky_color, self.horizon, self.zenith = rest
        self.centers = [
            self.vector((o["x"], CENTER[o["shape"]] * o["size"], o["z"])) for o in self.objects
        ]
        y = self.rays[:, 1]
        plane = -self.eye[1] / y.clamp(max=-1e-4)
        self.far = torch.where(y < -1e-4, plane, torch.full_like(y, 1e9))  # [P], nearest so far
        self.ids = torch.full_like(y, -1, dtype=torch.long)  # [P]

    def vector(self, values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def find(self) -> list[tuple[int, Tensor, Tensor]]:
        """Traces every object: (its index, the rays that hit it, where, in its own frame)."""
        hits = []
        for k, thing in enumerate(self.objects):
            offset = self.eye - self.centers[k]
            o = turned(offset / thing["size"], thing["turn"])
            b = self.rays @ offset / thing["size"]
            at = (b * b - o.dot(o) + BOUND[thing["shape"]] ** 2 > 0).nonzero()[:, 0]
            if at.numel() == 0:
                continue
            d = turned(self.rays[at], thing["turn"])
            hit, t = trace(thing["shape"], o.expand(at.numel(), 3), d)
            hit &= t * thing["size"] < self.far[at]
            at, d, t = at[hit], d[hit], t[hit]
            self.far[at] = t * thing["size"]
            self.ids[at] = k
            hits.append((k, at, o + d * t[:, None]))
        return hits

    def sky(self, y: Tensor) -> Tensor:
        weight = (y.clamp(0, 1) * 1.9).clamp(max=1).sqrt()[:, None]
        return self.horizon + (self.zenith - self.horizon) * weight

    def sunlight(self, pos: Tensor) -> Tensor:
        """How much of the sun reaches points of the world, [P]."""
        light = torch.ones(pos.shape[0], device=self.device)
        for thing, center in zip(self.objects, self.centers, strict=True):
            start = pos - center
            b = start @ self.sun
            reach = BOUND[thing["shape"]] * 1.25 * thing["size"]
            near = (b * b - (start * start).sum(-1) + reach**2 > 0) & (-b + reach > 0)
            at = near.nonzero()[:, 0]
            if at.numel():
                o = turned(start[at] / thing["size"], thing["turn"])
                light[at] *= shade(thing["shape"], o, turned(self.sun, thing["turn"]))
        return light

    def openness(self, pos: Tensor) -> Tensor:
        """How much of the sky reaches points of the ground, darker where an object stands, [P]."""
        light = torch.ones(pos.shape[0], device=self.device)
        for thing, center in zip(self.objects, self.centers, strict=True):
            start = pos - center
            at = ((start * start).sum(-1) < (2.2 * thing["size"]) ** 2).nonzero()[:, 0]
            o = turned(start[at] / thing["size"], thing["turn"])
            gap = distance(thing["shape"], o).clamp(min=0)
            light[at] *= 1 - 0.55 * torch.exp(-gap * 4.5)
        return light

    def ground(self, rays: Tensor, t: Tensor) -> Tensor:
        pos = self.eye + rays * t[:, None]
        fade = ((t - 6) / 26).clamp(0, 1) ** 0.7
        du, dv = self.record["offset"]
        albedo = ground_color(self.record["ground"], pos[:, 0] + du, pos[:, 2] + dv, fade)
        direct = self.sun_color * (self.sun[1] * self.sunlight(pos))[:, None]
        color = albedo * (direct + self.sky_color * self.openness(pos)[:, None])
        haze = (1 - torch.exp(-(t - 7).clamp(min=0) * 0.035))[:, None]
        return color + (self.horizon - color) * haze

    def mirrored(self, rays: Tensor) -> Tensor:
        """What a mirror shows: the sky above, the ground's mean below, [P, 3]."""
        zero, one = self.vector((0.0,)), self.vector((1.0,))
        ground = ground_color(self.record["ground"], zero, zero, one)[0]
        ground = ground * (self.sun_color * 0.6 + self.sky_color)
        weight = (rays[:, 1:2] * 6).clamp(-1, 1) * 0.5 + 0.5
        return ground * (1 - weight) + self.sky(rays[:, 1]) * weight

    def object_color(self, k: int, at: Tensor, p: Tensor) -> Tensor:
        """Colours of the rays `at` that hit object `k` at the points `p` of its own frame."""
        thing, rays = self.objects[k], self.rays[at]
        n = turned(normal(thing["shape"], p), -thing["turn"])
        light = self.sunlight(self.eye + rays * self.far[at, None] + n * 0.03)
        albedo = self.albedo(thing, p)
        lambert = ((n @ self.sun).clamp(min=0) * light)[:, None]
        color = albedo * (self.sun_color * lambert + self.sky_color * (0.62 + 0.38 * n[:, 1:2]))
        facing = (rays * n).sum(-1)
        mirror = rays - 2 * facing[:, None] * n
        around = self.mirrored(mirror)
        glint = (mirror @ self.sun).clamp(min=0)
        fresnel = ((1 + facing).clamp(0, 1) ** 4)[:, None]
        if thing["material"] == "metal":
            shine = self.sun_color * (1.3 * glint**60 * light)[:, None]
            return albedo * around * 1.15 + color * 0.45 + shine + around * (0.035 + 0.18 * fresnel)
        return (
            color + self.sun_color * (0.30 * glint**36 * light)[:, None] + around * 0.18 * fresnel
        )

    def albedo(self, thing: dict[str, Any], p: Tensor) -> Tensor:
        base = self.vector(COLOR[thing["color"]])
        if thing["material"] != "striped":
            return base.expand(p.shape[0], 3)
        # level stripes cannot be seen on a donut: its own go round by angle
        flat = thing["shape"] == "donut"
        phase = torch.atan2(p[:, 2], p[:, 0]) * 7 if flat else p[:, 1] * 9.5
        band = ((torch.sin(phase + 0.6) * 6).clamp(-1, 1) * 0.5 + 0.5)[:, None]
        bright = float(base.mean()) > 0.75
        other = self.vector((0.25, 0.25, 0.28) if bright else (0.92, 0.91, 0.88))
        return base * (1 - band) + other * band
