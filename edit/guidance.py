"""Cross-attention guidance: the target's latents move to where its word maps are the source's.

Rows of a batch do not interact, so the source's maps of a step are made beside the target's, in
that step: no pass ahead of the edit, no store of maps. The source's own row takes no gradient.

The latents that are walked move by the conditional row's gradient. As published they do not: only
the conditional noise is asked for at the moved place, the walk goes on from where it was, and most
of a move is then undone as if it had been noise, so that the distance grows with the amount
(``compat``; on tabletop at amount 3 from 4.3 to 7.7 where the moved latents bring it to 2.3).

Paper: Zero-shot Image-to-Image Translation (arXiv 2302.03027), section 3.3 and algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inversion.denoiser import COND, UNCOND, Denoiser, Layout
from inversion.inverter import frozen
from inversion.schedule import Step

from .control import Call, Control, Site

#: How far to move by what the network predicts; the published figures for noise and velocity.
AMOUNTS = {"epsilon": 0.1, "v_prediction": 0.01, "sample": 0.01}
CHECKED = 5  # one move of so many is looked at before it is made
HALVINGS = 4  # of a move that makes the loss rise; then it is not made
HALF_SCALE = 1024.0  # float16 has no gradients as small as those of maps

Row = tuple[str, int]
Watch = Callable[[Tensor], None]


def unwatched(gradient: Tensor) -> None:
    """Nobody looks at the gradients."""


class MapGuidance(Control):
    """Moves a target's latents down the gradient of its maps' distance from the source's.

    The distance is the squared difference of all cross-attention maps, summed over positions and
    words and layers, halved, the mean over heads. Nobody else's control acts while it is measured.

    Args:
        amount: length of the move as a factor of the gradient; None: by the prediction's type.
        window: first and last-plus-one step.
        every: of these steps only each so-many-th, from the first on.
        matrix: [G, T, T] which source word's map each target word is held to, or None for the word
            at the same place.
        taken: [G, T] in {0, 1} whether it is held to any; None with ``matrix``.
        compat: as published: each half is asked where its own maps lead, the walked latents go
            with the unconditional one; every move is made at full length.
        watch: told each gradient [halves, C, h, w].
    """

    label = "cross-attention guidance"
    remedy = "raise its stop above its start"

    def __init__(
        self,
        amount: float | None,
        window: tuple[int, int],
        *,
        every: int = 1,
        matrix: Tensor | None = None,
        taken: Tensor | None = None,
        compat: bool = False,
        watch: Watch = unwatched,
    ) -> None:
        self.amount_asked, self.window, self.every = amount, window, every
        self.matrix, self.taken, self.compat, self.watch = matrix, taken, compat, watch
        self.losses: list[float] = []

    def begin(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        denoiser.offsets.clear()
        asked = self.amount_asked
        self.amount_first = AMOUNTS[denoiser.prediction] if asked is None else asked
        self.amount = self.amount_first
        device = denoiser.cond.embeds.device
        self._tables = [None if t is None else t.to(device) for t in (self.matrix, self.taken)]
        self._branch: int | None = None  # whose maps are looked at; None in the walk's own calls
        self._source: dict[Site, Tensor] = {}
        self._loss: Tensor | None = None
        self.losses = []
        self.checks: list[tuple[int, float, float]] = []
        self.shortened = self.skipped = 0

    def watches(self, site: Site) -> bool:
        return site.cross

    def active(self, step: Step) -> bool:
        return self._branch is not None

    def wants_maps(self, call: Call) -> bool:
        return True

    def probs(self, p: Tensor, call: Call) -> Tensor:
        if self._branch == 0:
            self._source[call.site] = p
        elif self._branch is not None:
            distance = self._distance(_wide(p), _wide(self._source[call.site]))
            self._loss = distance if self._loss is None else self._loss + distance
        return p

    def _distance(self, p: Tensor, source: Tensor) -> Tensor:
        """Of maps [R, N, P, T]; a scalar."""
        matrix, taken = self._tables
        assert self._branch is not None
        if matrix is not None and taken is not None:
            g = self._branch - 1
            source, p = source @ matrix[g], p * taken[g]
        return (p - source).square().sum() / (2 * p.shape[1])

    def before(self, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        denoiser.offsets.clear()
        first, last = self.window
        if not first <= step.index < last or (step.index - first) % self.every:
            return x
        both = self.compat and denoiser.guide.needs_uncond()
        halves = (UNCOND, COND) if both else (COND,)
        try:
            self._look(x, step, [(half, 0) for half in halves])
            total = 0.0
            for branch in range(1, denoiser.branches):
                rows = [(half, branch) for half in halves]
                loss, shifts = self._move(x, step, rows)
                total += loss
                x = x.clone()
                x[branch] += shifts[0]  # what is walked goes with the first row
                if len(rows) > 1:
                    denoiser.offsets.update(zip(rows, shifts - shifts[0], strict=True))
        finally:
            self._branch, self._loss = None, None
            self._source.clear()
        self.losses.append(total)
        return x

    def after(self, x: Tensor, step: Step) -> Tensor:
        self._denoiser.offsets.clear()
        return x

    def _look(self, x: Tensor, step: Step, rows: Sequence[Row]) -> Tensor:
        """Ask the network about rows of one branch; their distance (0 for the source)."""
        self._branch, self._loss = rows[0][1], None
        self._denoiser.predict(x, step, Layout(tuple(rows)))
        return x.new_zeros(()) if self._loss is None else self._loss

    def _move(self, x: Tensor, step: Step, rows: Sequence[Row]) -> tuple[float, Tensor]:
        """The distance of a target, and how far its rows are moved [R, C, h, w]."""
        offsets = self._denoiser.offsets
        leaf = x.new_zeros((len(rows), *x.shape[1:])).requires_grad_()
        with torch.enable_grad(), frozen(self._denoiser.model):
            offsets.update(zip(rows, leaf, strict=True))
            loss = self._look(x, step, rows)
            scale = HALF_SCALE if self._half() else 1.0
            (gradient,) = torch.autograd.grad(loss * scale, leaf)
        gradient = gradient / scale
        self._denoiser.rows_backward += len(rows)
        self.watch(gradient)
        distance, slope = float(loss.detach()), float(gradient.square().sum())
        self._loss = None
        if self.compat:
            return distance, -self.amount * gradient
        if not math.isfinite(distance + slope):
            self.skipped += 1
            distance, shifts = math.nan, torch.zeros_like(gradient)
        elif slope == 0:
            shifts = torch.zeros_like(gradient)
        else:
            shifts = self._guarded(x, step, rows, gradient, distance, slope)
        for row in rows:
            offsets.pop(row)
        return distance, shifts

    def _guarded(
        self,
        x: Tensor,
        step: Step,
        rows: Sequence[Row],
        gradient: Tensor,
        distance: float,
        slope: float,
    ) -> Tensor:
        """The move, no longer than to where the slope would reach 0; now and then looked at before
        it is made, and halved, for all later steps too, while the distance would rise."""
        length = min(self.amount, distance / slope)
        self.shortened += length < self.amount_first
        if len(self.losses) % CHECKED:
            return -length * gradient
        for _ in range(HALVINGS):
            shifts = -length * gradient
            self._denoiser.offsets.update(zip(rows, shifts, strict=True))
            found = float(self._look(x, step, rows))
            self.checks.append((step.index, distance, found))
            if found <= distance:
                return shifts
            self.shortened += length == self.amount_first
            self.amount = length = length / 2
        self.skipped += 1
        return torch.zeros_like(gradient)

    def _half(self) -> bool:
        """Whether maps are made in float16."""
        return any(p.dtype == torch.float16 for p in self._source.values())

    def report(self) -> dict[str, object]:
        return {
            "guidance_amount": self.amount_first,
            "guidance_amount_at_end": self.amount,
            "losses": self.losses,
            "checked": [list(c) for c in self.checks],
            "moves_shortened": self.shortened,
            "moves_skipped": self.skipped,
        }


def _wide(p: Tensor) -> Tensor:
    """Maps in float32 at least."""
    return p if p.dtype == torch.float64 else p.float()
