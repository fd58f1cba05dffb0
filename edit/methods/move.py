"""Move and resize: an object's latents are laid elsewhere, and the model fills what they leave.

The prompt stays the photo's own. At every step of a first part of the walk the target holds, at the
object's new place, the photo's own latents of that noise level, moved; everywhere outside its old
and its new place it holds the photo's latents as they are, to the end. What the object uncovers
starts from fresh noise, and the model draws it; it attends there to the words as the surroundings
do, or it would now and then draw the object again.

No published method: the parts are the blending of latents level by level of Blended Latent
Diffusion (arXiv 2206.02779) and RePaint (arXiv 2201.09865), on a recorded path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, max_pool2d

from inversion.denoiser import COND, Denoiser
from inversion.registry import setting
from inversion.schedule import Level, Step

from ..control import Call, Control, NothingActed, Site
from ..gates import steps_of
from ..method import EditContext, EditMethod, edits


@dataclass(frozen=True)
class Warp:
    """A move and a scaling along the axes: each row and each column is a mixture of old ones.

    Args:
        rows: [h, h] shares of the old rows in each new one; all zero where it came from outside.
        columns: [w, w] likewise.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        by: tuple[float, float],
        times: float = 1.0,
        about: tuple[float, float] = (0.0, 0.0),
    ) -> Warp:
        """A scaling about a point, then a move; one of whole cells leaves all values as they are.

        Args:
            size: (h, w).
            by: (down, right) in cells.
            times: the scaling.
            about: (y, x) the point that only the move moves, in cells from the upper left corner.
        """
        rows, columns = (
            _shares(side, move, times, at) for side, move, at in zip(size, by, about, strict=True)
        )
        return cls(rows, columns)

    def __call__(self, x: Tensor) -> Tensor:
        """What stands at [..., h, w], at its new place; 0 where that was outside."""
        return self.rows.to(x) @ x @ self.columns.to(x).T

    def noisy(self, x: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """The same for latents: mixing takes variance off their noise, and it is given back.

        Args:
            x: [..., h, w] latents.
            sigma: of their noise.
            noise: [..., h, w] of variance 1, the same at every level.
        """
        kept = torch.outer(self.rows.square().sum(1), self.columns.square().sum(1)).to(x)
        return self(x) + sigma * (1 - kept).clamp(min=0).sqrt() * noise


def _shares(side: int, by: float, times: float, about: float) -> Tensor:
    """[side, side] the share of each old place in each new one: a triangle as wide as the cells are
    apart, or as the cells that fall together."""
    cells = torch.arange(side, dtype=torch.float64) + 0.5
    old = about + (cells - by - about) / times  # where each new place comes from
    shares = (1 - (old[:, None] - cells).abs() / max(1.0, 1 / times)).clamp(min=0)
    inside = ((old >= 0) & (old <= side))[:, None]
    return (shares / shares.sum(1, keepdim=True).clamp(min=1e-9) * inside).float()


@dataclass(frozen=True)
class Thing:
    """What is moved.

    Args:
        mask: [h, w] where it is, at latent size; all above 0 belongs to it.
        place: [h, w] where it will be, likewise.
        warp: how its latents get there; without scaling, of whole cells.
        detail: [1, C, h, w] what is lacking to the clean latents of the moved picture after that
            (parts of a cell, and what is lost by scaling latents), or None.
        name: for messages.
    """

    mask: Tensor
    place: Tensor
    warp: Warp
    detail: Tensor | None = None
    name: str = "the object"

    def at(self, source: Tensor, level: Level, noise: Tensor) -> Tensor:
        """The photo's latents [1, C, h, w] of a level, moved."""
        moved = self.warp.noisy(source, level.sigma, noise)
        return moved if self.detail is None else moved + level.alpha * self.detail.to(source)


class Relocate(Control):
    """The targets are the photo with things at other places.

    Args:
        things: what moves; later ones lie upon earlier ones.
        hold: the last-plus-one step at which the things are the photo's own, moved.
        hold_rim: the same for the rim around them, on which they stand and throw shadows.
        rim: how many cells around the masks move too.
        hide: the last-plus-one step at which what is uncovered attends as its surroundings do.
        seed: of the noise from which what is uncovered is drawn.

    Attributes:
        mask: [1, 1, h, w] in {0, 1} the old and new places with their rims.

    Raises:
        NothingActed: a thing leaves the picture.
    """

    label = "move"

    def __init__(
        self,
        things: Sequence[Thing],
        *,
        hold: int,
        hold_rim: int,
        rim: int = 1,
        hide: int = 0,
        seed: int = 0,
    ) -> None:
        self.things, self.hold, self.hold_rim = list(things), hold, hold_rim
        self.hide, self.seed = hide, seed
        old = [thing.mask > 0 for thing in self.things]
        new = [thing.place > 0 for thing in self.things]
        self._places = [_grown(place, rim) for place in new]
        for thing, place in zip(self.things, new, strict=True):
            if not place.any():
                raise NothingActed(
                    f"{thing.name!r} would leave the picture entirely, or shrink to nothing: move "
                    "it less far"
                )
        self._rows = list(zip(self.things, old, new, strict=True))
        self.core, around = _any(new), _any(self._places)
        self.hole = _any([_grown(thing.mask, rim) for thing in self.things]) & ~around
        self.rims = around & ~self.core
        self.mask = (around | self.hole)[None, None].float()
        self._noise: Tensor | None = None

    def begin(self, denoiser: Denoiser) -> None:
        self._noise = None

    def before(self, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        if self._noise is not None:
            return x
        generator = torch.Generator().manual_seed(self.seed)
        self._noise = torch.randn(x[:1].shape, generator=generator).to(x)
        near = _around(self.mask[0, 0]).to(x.device)
        level = x[:1, :, near].mean(-1) if near.any() else x.new_zeros(x[:1, :, 0, 0].shape)
        # a walk that starts below the noisiest level starts from the colour of the surroundings
        drawn = level[..., None, None] + step.noisy.sigma * self._noise
        start = torch.where(self.hole.to(x.device), drawn, self.laid(x[:1], step.noisy))
        return torch.cat([x[:1], start.expand_as(x[1:])])

    def laid(self, source: Tensor, level: Level) -> Tensor:
        """The photo's latents [1, C, h, w] of a level with the things at their new places."""
        assert self._noise is not None
        out = source
        for thing, place in zip(self.things, self._places, strict=True):
            out = torch.where(place.to(source.device), thing.at(source, level, self._noise), out)
        return out

    def after(self, x: Tensor, step: Step) -> Tensor:
        free = self.hole
        if step.index >= self.hold:
            free = free | self.core
        if step.index >= self.hold_rim:
            free = free | self.rims
        laid = self.laid(x[:1], step.clean)
        return torch.cat([x[:1], torch.where(free.to(x.device), x[1:], laid)])

    def watches(self, site: Site) -> bool:
        return site.cross and self.hide > 0 and bool(self.hole.any())

    def active(self, step: Step) -> bool:
        return step.index < self.hide

    def wants_maps(self, call: Call) -> bool:
        return True

    def probs(self, p: Tensor, call: Call) -> Tensor:
        hole, mine = (
            adaptive_max_pool2d(mask[None].float(), call.size)[0]
            for mask in (self.hole, self.mask[0, 0])
        )
        near = _around(mine).flatten().to(p.device)
        if not near.any():
            return p
        uncovered, p = (hole > 0).flatten().to(p.device), p.clone()
        for row, _ in call.layout.targets(COND):
            p[row][:, uncovered] = p[row][:, near].mean(1, keepdim=True)
        return p

    def report(self) -> dict[str, object]:
        """Where the things were and are: coverage, and boxes x0, y0, x1, y1, in fractions."""
        rows = [
            {
                "name": thing.name,
                "coverage": [round(float(m.float().mean()), 4) for m in (old, new)],
                "box": [_box(old), _box(new)],
            }
            for thing, old, new in self._rows
        ]
        shares = [round(float(m.float().mean()), 4) for m in (self.mask, self.hole)]
        return {"moved": rows, "mask_coverage": shares[:1], "uncovered": shares[1]}


def _grown(mask: Tensor, cells: int) -> Tensor:
    """A mask [h, w] as bools, wider by so many cells."""
    return max_pool2d((mask > 0)[None, None].float(), 2 * cells + 1, 1, cells)[0, 0] > 0


def _around(mask: Tensor) -> Tensor:
    """The two cells around a mask [h, w]."""
    return _grown(mask, 2) & (mask == 0)


def _any(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)).any(0)


def _box(mask: Tensor) -> list[float]:
    (h, w), ys, xs = mask.shape, mask.any(1).nonzero(), mask.any(0).nonzero()
    box = (xs[0] / w, ys[0] / h, (xs[-1] + 1) / w, (ys[-1] + 1) / h)
    return [round(float(side), 4) for side in box]


@edits.register("move")
class Move(EditMethod):
    """An object at another place or of another size, under the photo's own prompt."""

    paper = (
        "own; parts of Blended Latent Diffusion, arXiv 2206.02779, and RePaint, arXiv 2201.09865"
    )

    hold: float = setting(
        0.9, "the object is the photo's own until this fraction of the walk", low=0, high=1
    )
    hold_rim: float = setting(
        0.5, "what moves with it around it, such as its shadow, until this one", low=0, high=1
    )
    rim: int = setting(1, "how many latent cells around the object move with it", low=0, high=8)
    hide: float = setting(
        1.0,
        "what it uncovers attends to the words as its surroundings do until this one, so that it "
        "is not drawn there again",
        low=0,
        high=1,
    )
    anchor: str = setting(
        "foot",
        "what stays where it is when the object is resized: foot (the middle of its lower edge) or "
        "middle",
        choices=("foot", "middle"),
    )
    fill_seed: int = setting(0, "of the noise from which what it uncovers is drawn", low=0)

    def controls(self, context: EditContext) -> Sequence[Control]:
        raise NothingActed("move: which object, and where to? give --move or --resize")

    def about(self, mask: Tensor) -> tuple[float, float]:
        """(y, x) the point of a mask [h, w] that stays where it is when it is resized."""
        inside = (mask > 0).nonzero().float()
        top, bottom = inside.amin(0), inside.amax(0) + 1
        y, x = ((top + bottom) / 2).tolist()
        return (float(bottom[0]) if self.anchor == "foot" else y), x

    def control(self, things: Sequence[Thing], context: EditContext) -> Relocate:
        """What acts in the walk."""
        windows = (self.hold, self.hold_rim, self.hide)
        hold, hold_rim, hide = (steps_of((0, stop), context.steps)[1] for stop in windows)
        return Relocate(
            things, hold=hold, hold_rim=hold_rim, rim=self.rim, hide=hide, seed=self.fill_seed
        )
