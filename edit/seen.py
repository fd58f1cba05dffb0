"""What the model looked at, kept for people: word maps by step and by layer, and self-attention.

Word maps are summed beside the values, so no layer's map is made for them; of self-attention one
scale is read by its maps. Only running means stay, on a grid of limited size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from inversion.denoiser import COND, Denoiser
from inversion.schedule import Step

from .control import Call, Control, Site


@dataclass(frozen=True)
class Frame:
    """Sampling steps that share a map: the first one, how many, and the first one's timestep."""

    first: int
    count: int
    t: int


@dataclass(frozen=True)
class Group:
    """Layers that share a map: where they stand, their scale, map size and number."""

    place: str
    scale: int
    size: tuple[int, int]
    layers: int


@dataclass
class _Sum:
    """A running sum and how often it was added to."""

    total: Tensor
    count: int = 1
    names: set[str] = field(default_factory=set)

    def add(self, more: Tensor) -> None:
        self.total, self.count = self.total + more, self.count + 1

    def mean(self) -> Tensor:
        return self.total.float().cpu() / self.count


def grid_of(latent_size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """(h, w) of the finest map of latents that has at most ``max_pixels`` places."""
    scale = 1
    while True:
        h, w = (-(-side // scale) for side in latent_size)
        if h * w <= max(1, max_pixels):
            return h, w
        scale *= 2


def onto(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps [B, W, h, w] on another grid: interpolated where they grow, averaged where they
    shrink. Both keep constants, so maps that sum to 1 still do."""
    if maps.shape[-2:] == grid:
        return maps
    if maps.shape[-2] <= grid[0]:
        return interpolate(maps, grid, mode="bilinear")
    return adaptive_avg_pool2d(maps, grid)


class Seen(Control):
    """The conditional half's attention to groups of tokens, as really used (after the edits).

    Args:
        tokens: [B, W, T] the tokens of each word, a row a prompt; a word's map is the sum of its
            tokens' maps, mean over heads.
        latent_size: (h, w) of the latents.
        steps: sampling steps of the whole walk.
        frames: at most so many maps in time; further steps share them.
        max_pixels: at most so many places of a map that is kept.
        self_scale: the self-attention layers whose mean map is kept (latent side / map side), or
            None.
    """

    label = "attention maps"

    def __init__(
        self,
        tokens: Tensor,
        latent_size: tuple[int, int],
        steps: int,
        *,
        frames: int = 50,
        max_pixels: int = 4096,
        self_scale: int | None = None,
    ) -> None:
        self.tokens, self.self_scale = tokens, self_scale
        self.grid = grid_of(latent_size, max_pixels)
        self.steps_a_frame = -(-steps // frames)
        self._forget()

    def _forget(self) -> None:
        self._now: _Sum | None = None
        self._frames: dict[int, _Sum] = {}
        self._firsts: dict[int, Step] = {}
        self._groups: dict[tuple[str, int], _Sum] = {}
        self._sizes: dict[tuple[str, int], tuple[int, int]] = {}
        self._self: _Sum | None = None
        self.self_size: tuple[int, int] | None = None

    def begin(self, denoiser: Denoiser) -> None:
        self._forget()
        kept = self.tokens.float().to(denoiser.cond.embeds.device)
        self._columns = kept.transpose(1, 2)  # [B, T, W]

    def watches(self, site: Site) -> bool:
        return site.cross or site.scale == self.self_scale

    def reads_source(self, step: Step) -> bool:
        return True

    def value_columns(self, call: Call) -> Tensor | None:
        if not call.site.cross:
            return None
        zero = torch.zeros_like(self._columns[0])
        rows = [self._columns[b] if half == COND else zero for half, b in call.layout.rows]
        return torch.stack(rows)  # [R, T, W]

    def _rows(self, call: Call) -> list[int]:
        found = [call.layout.index(COND, b) for b in range(len(self.tokens))]
        if None in found:
            raise RuntimeError("a row was left out of a step whose attention is read")
        return [r for r in found if r is not None]

    def seen(self, sums: Tensor, call: Call) -> None:
        maps = sums[self._rows(call)].float().mean(1)  # [B, P, W]
        maps = onto(maps.transpose(1, 2).unflatten(-1, call.size), self.grid)  # [B, W, h, w]
        key = (call.site.place, call.site.scale)
        if key in self._groups:
            self._groups[key].add(maps)
        else:
            self._groups[key] = _Sum(maps)
        self._groups[key].names.add(call.site.name)
        self._sizes[key] = call.size
        if self._now is None:
            self._now = _Sum(maps)
        else:
            self._now.add(maps)

    def wants_maps(self, call: Call) -> bool:
        return not call.site.cross

    def probs(self, p: Tensor, call: Call) -> Tensor:
        if not call.site.cross:
            mean = p[self._rows(call)].float().mean(1)  # [B, P, P]
            if self._self is None:
                self._self, self.self_size = _Sum(mean), call.size
            else:
                self._self.add(mean)
        return p

    def after(self, x: Tensor, step: Step) -> Tensor:
        if self._now is not None:
            at = step.index // self.steps_a_frame
            if at in self._frames:
                self._frames[at].add(self._now.mean())
            else:
                self._frames[at], self._firsts[at] = _Sum(self._now.mean()), step
            self._now = None
        return x

    @property
    def frames(self) -> list[Frame]:
        """The steps behind each map of :meth:`by_time`, in the order of sampling."""
        order = sorted(self._frames)
        return [
            Frame(self._firsts[i].index, self._frames[i].count, self._firsts[i].t) for i in order
        ]

    @property
    def groups(self) -> list[Group]:
        """The layers behind each map of :meth:`by_layer`, in the order in which they are called."""
        made = self._groups.items()
        return [Group(*key, self._sizes[key], len(total.names)) for key, total in made]

    def by_time(self) -> Tensor:
        """[F, B, W, h, w] float32: mean over all layers, a map a frame."""
        return torch.stack([self._frames[i].mean() for i in sorted(self._frames)])

    def by_layer(self) -> Tensor:
        """[L, B, W, h, w] float32: mean over all steps, a map for each place and scale."""
        return torch.stack([total.mean() for total in self._groups.values()])

    def words(self) -> Tensor:
        """[B, W, h, w] float32: mean over steps and layers."""
        counts = torch.tensor([float(f.count) for f in self.frames])
        return torch.einsum("f,fbwij->bwij", counts / counts.sum(), self.by_time())

    def self_map(self) -> Tensor | None:
        """[B, P, P] float32: where each place looks, mean over the scale's layers and steps."""
        return None if self._self is None else self._self.mean()
