"""Null-text inversion: an unconditional text a step, fitted so that guidance keeps to the path.

Paper: Null-text Inversion for Editing Real Images using Guided Diffusion Models
(arXiv 2211.09794), algorithm 1.

What differs from the published loop, and what does not: weights take no gradient, the conditional
estimate is made once a timestep, what does not depend on the text is computed once a timestep, and
photos share the network's calls, each with its own stop; the embeddings are the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adam import RowAdam
from ..checkpointing import checkpointed
from ..denoiser import COND, UNCOND, ClassifierFree, Denoiser, Layout, TextCond
from ..inverter import Cost, Inverter, Recording, frozen, inverters
from ..memo import Memo, memo
from ..registry import SettingError, setting
from ..resuming import PartFile, work_of
from ..sampling import NumericsError, Progress, Replay, quiet
from ..schedule import Schedule, Step, both_ends, mix
from .ddim import walk_up


class LearnedUncond(Replay):
    """Plain, with the step's fitted unconditional text for all branches."""

    def __init__(self, trajectory: Tensor, embeds: Tensor) -> None:
        super().__init__(trajectory)
        self.embeds = embeds  # [S, T, D]

    def uncond(self, step: Step, denoiser: Denoiser) -> TextCond:
        plain = denoiser.uncond.rows([0])
        embeds = self.embeds[step.index][None].to(plain.embeds)
        return TextCond(embeds, plain.pooled, plain.time_ids)


@dataclass
class _Done:
    """What is fitted so far: of the photos before ``first`` all, of the next the first ``steps``.

    Args:
        path: [S + 1, B, C, h, w].
        texts: [S, B, T, D]; losses: [S, B, inner_steps], -1 = not run.
        x: latents of the photos that are being fitted, [b, C, h, w].
        first: photo; steps: timesteps; seen, backward: rows so far.
    """

    path: Tensor
    texts: Tensor
    losses: Tensor
    x: Tensor
    first: int = 0
    steps: int = 0
    seen: int = 0
    backward: int = 0

    def save(self, keep: PartFile, work: str) -> None:
        tensors = {n: getattr(self, n) for n in ("path", "texts", "losses", "x")}
        facts = {n: getattr(self, n) for n in ("first", "steps", "seen", "backward")}
        keep.save(work, tensors, facts)

    @classmethod
    def load(cls, keep: PartFile, work: str, device: torch.device) -> _Done | None:
        found = keep.load(work)
        if found is None:
            return None
        tensors, facts = found
        where = {n: t if n == "losses" else t.to(device) for n, t in tensors.items()}
        return cls(**where, **facts)


@inverters.register("null-text")
class NullText(Inverter):
    """Null-text inversion: slow to invert, the photo's own text to edit with at high guidance."""

    paper = "Null-text Inversion, arXiv 2211.09794"
    needs_grad = True
    owns_uncond = True
    resumable = True

    inner_steps: int = setting(10, "Adam steps a timestep, at most", low=0, high=1000)
    early_stop: float = setting(
        1e-5, "stop a timestep when the loss is below this (plus 2e-5 a step)", low=0, high=1
    )
    min_gain: float = setting(
        0.0,
        "stop a timestep when two updates together lower the loss by less than this share, such "
        "as 0.005; 0: never, as small gains add up; not with compat",
        low=0,
        high=1,
    )
    lr: float = setting(
        1e-2, "Adam's learning rate at the first step; falls to half", low=0, high=1
    )
    start: float = setting(0.0, "first timestep that is fitted, as a share", low=0, high=1)
    stop: float = setting(
        1.0, "end of the fitted timesteps; outside them the empty text stays", low=0, high=1
    )
    together: int = setting(4, "photos that share the network's calls, at most", low=1, high=64)
    checkpointing: bool = setting(
        False, "keep the inputs of the network's blocks only: less memory, a third more time"
    )
    compat: bool = setting(
        False,
        "the published rule: the loss is tested after an update, so each timestep makes at least "
        "one, and the rate falls by 1 % of the first a step",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat and self.min_gain:
            raise SettingError("null-text: min_gain has no effect with compat: leave one out")

    def cost(self, steps: int) -> Cost:
        inner = self.inner_steps * sum(self._fits(i, steps) for i in range(steps))
        # the early stop grows with the timestep: at 50 steps and guidance 1.5 a tabletop photo
        # needed 290 of 500 inner steps; at 20 steps and guidance 3 or 7.5 photos needed all
        likely = 0.6 if self.early_stop and steps >= 50 else 1.0
        return Cost(3 * steps + inner, inner, likely=likely)

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
        keep: PartFile | None = None,
    ) -> Recording:
        work = "" if keep is None else self._work(x0, denoiser, schedule)
        done = None if keep is None else _Done.load(keep, work, x0.device)
        if done is None:
            before = denoiser.rows_seen
            path = walk_up(x0, denoiser, schedule, progress=progress)
            empty = denoiser.uncond.embeds[:1].float()
            done = _Done(
                path,
                empty.repeat(len(schedule), denoiser.branches, 1, 1),
                torch.full((len(schedule), denoiser.branches, max(1, self.inner_steps)), -1.0),
                path[-1, : self.together],
                seen=denoiser.rows_seen - before,
            )
            denoiser.rows_seen = before
        with ExitStack() as stack:
            stack.enter_context(frozen(denoiser.model))
            stack.enter_context(checkpointed(denoiser.model, self.checkpointing))
            remember = stack.enter_context(memo(denoiser.model))
            while done.first < denoiser.branches:
                for step in list(schedule.down())[done.steps :]:
                    note = self._timestep(step, done, denoiser, remember)
                    if keep is not None and keep.due():
                        done.save(keep, work)
                    whole = len(schedule) * -(-denoiser.branches // self.together)
                    at = len(schedule) * (done.first // self.together) + step.index + 1
                    progress("null-text inversion", at, whole, note)
                done.first, done.steps = done.first + self.together, 0
                done.x = done.path[-1, done.first : done.first + self.together]
        denoiser.rows_seen += done.seen
        denoiser.rows_backward += done.backward
        return Recording(done.path, {"uncond": done.texts, "losses": done.losses})

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return LearnedUncond(trajectory, tape["uncond"])

    def fits(self, step: Step) -> bool:
        """Whether the text of a step is fitted."""
        return self._fits(step.index, step.count)

    def _fits(self, index: int, count: int) -> bool:
        return int(self.start * count) <= index < int(self.stop * count)

    def rate(self, step: Step) -> float:
        """Adam's learning rate at a step."""
        return self.lr * (1 - step.index / (100 if self.compat else 2 * step.count))

    def _work(self, x0: Tensor, denoiser: Denoiser, schedule: Schedule) -> str:
        """Everything that decides the fit but the network's weights, which the file's name says."""
        return work_of(
            (x0, *denoiser.cond.parts(), *denoiser.uncond.parts()),
            method=repr(self),
            schedule=repr(schedule),
            guide=repr(denoiser.guide),
            dtype=str(getattr(denoiser.model, "dtype", "")),
        )

    def _timestep(self, step: Step, done: _Done, denoiser: Denoiser, remember: Memo) -> str:
        """Fit one timestep of the photos at hand; says their losses."""
        rows = slice(done.first, done.first + len(done.x))
        some = photos(denoiser, range(denoiser.branches)[rows])
        fit = _Timestep(self, step, done.x, done.path[step.level - 1, rows], some, remember)
        empty = some.uncond.embeds[:1].float().expand(len(done.x), -1, -1)
        before = done.texts[step.index - 1, rows] if step.index else empty
        text = fit.run(before if self.fits(step) else empty, done.losses[step.index, rows])
        done.texts[step.index, rows] = text
        done.x, done.steps = fit.advance(), step.index + 1
        done.seen += some.rows_seen
        done.backward += some.rows_backward
        if not torch.isfinite(done.x).all() or not torch.isfinite(text).all():
            raise NumericsError(
                f"null-text inversion: values are not finite at step {step.index + 1} of "
                f"{step.count}: run in float32 (--dtype float32)"
            )
        last = [r[r >= 0][-1:].tolist() for r in done.losses[step.index, rows]]
        found = [f"{value:.1e}" for one in last for value in one]
        return f"loss {' '.join(found)}" if found else "no inner step"


class _Timestep:
    """The fit of one timestep, of photos that leave the calls when they are done.

    Args:
        method: its settings.
        step: the timestep.
        x: [B, C, h, w] where the photos' own walks are; goal: where they should land.
        denoiser: of these photos; its counts go on.
        remember: the network's memo.
    """

    def __init__(
        self,
        method: NullText,
        step: Step,
        x: Tensor,
        goal: Tensor,
        denoiser: Denoiser,
        remember: Memo,
    ) -> None:
        self.method, self.step, self.x, self.goal = method, step, x, goal
        self.denoiser, self.remember = denoiser, remember
        self.guide = ClassifierFree(getattr(denoiser.guide, "scale", 1.0))
        self.everyone = list(range(len(x)))
        remember.forget()
        with torch.no_grad():
            self.cond = denoiser.predict(x, step, Layout(tuple((COND, b) for b in self.everyone)))
        remember.start()
        self.out = torch.empty_like(self.cond)

    def run(self, start: Tensor, losses: Tensor) -> Tensor:
        """The fitted texts [B, T, D], float32; leaves the outputs under them in ``out``.

        Args:
            start: texts to start from.
            losses: [B, inner_steps], written to.
        """
        m, step = self.method, self.step
        text, unknown = start.clone(), list(self.everyone)
        adam = RowAdam(text, m.rate(step))
        stop = m.early_stop + step.index * 2e-5
        rows = list(self.everyone)  # still fitted
        for j in range(m.inner_steps if m.fits(step) else 0):
            leaf = text[rows].requires_grad_(True)
            with torch.enable_grad():
                answer = self._ask(leaf, rows)
            loss, slope = self._loss(answer.detach(), rows)
            losses[rows, j] = loss.cpu()
            low = [b for b in rows if losses[b, j] < stop]
            if not m.compat:
                low += [b for b in rows if b not in low and self._stuck(losses[b], j)]
                self.out[low] = answer.detach()[[rows.index(b) for b in low]]
                unknown = [b for b in unknown if b not in low]
                if len(low) == len(rows):
                    break
            going = rows if m.compat else [b for b in rows if b not in low]
            gradient = pulled(answer, leaf, slope)
            self.denoiser.rows_backward += len(rows)
            adam.step(text, gradient[[rows.index(b) for b in going]], going)
            rows = [b for b in rows if b not in low]
            if not rows:
                break
        if unknown:
            with torch.no_grad():
                self.out[unknown] = self._ask(text[unknown], unknown)
        self.remember.forget()
        return text

    def advance(self) -> Tensor:
        """The photos' own walks one level on, under the fitted texts, [B, C, h, w]."""
        return self._land(self.out, self.everyone)

    def _ask(self, text: Tensor, rows: Sequence[int]) -> Tensor:
        """Unconditional output [R, C, h, w] of some photos under texts [R, T, D]."""
        d = self.denoiser
        whole = text
        if len(rows) < len(self.x):
            index = torch.tensor(rows, device=text.device)
            whole = text.new_zeros(len(self.x), *text.shape[1:]).index_copy(0, index, text)
        self.remember.only(rows)
        plain = d.uncond.expand(len(self.x))
        uncond = TextCond(whole.to(plain.embeds.dtype), plain.pooled, plain.time_ids)
        return d.predict(self.x, self.step, Layout(tuple((UNCOND, b) for b in rows)), uncond)

    def _land(self, out: Tensor, rows: list[int]) -> Tensor:
        """Where the step ends under an unconditional output [R, C, h, w]."""
        mixed = self.guide(out, self.cond[rows], self.step)
        est = both_ends(mixed, self.x[rows], self.step.noisy, self.denoiser.prediction)
        return mix(est, self.step.clean)

    def _loss(self, answer: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Each photo's mean squared error [R], and its slope at the output [R, C, h, w]."""
        with torch.enable_grad():
            out = answer.requires_grad_(True)
            off = self._land(out, rows) - self.goal[rows]
            loss = off.square().flatten(1).mean(1)
            (slope,) = torch.autograd.grad(loss.sum(), out)
        return loss.detach(), slope

    def _stuck(self, losses: Tensor, j: int) -> bool:
        """Whether the last two updates together gained less than is worth mentioning."""
        gain = self.method.min_gain
        return gain > 0 and j >= 2 and bool(losses[j] > (1 - gain) * losses[j - 2])


def pulled(out: Tensor, leaf: Tensor, slope: Tensor) -> Tensor:
    """The gradient at ``leaf`` [R, ...] of a loss with slope [R, ...] at ``out``.

    Each row's slope goes through the network at a size near 1 and is put back after: a power of
    two, so exact, without which half precision loses gradients that are next to nothing.
    """
    size = slope.abs().flatten(1).amax(1)
    power = torch.where(size > 0, torch.frexp(size).exponent, 0).view(-1, *[1] * (slope.ndim - 1))
    (gradient,) = torch.autograd.grad(out, leaf, torch.ldexp(slope, -power))
    return torch.ldexp(gradient, power.view(-1, *[1] * (gradient.ndim - 1)))


def photos(denoiser: Denoiser, which: Sequence[int]) -> Denoiser:
    """The denoiser of some photos alone, with its own counts."""
    some = denoiser.with_guide(denoiser.guide)
    some.cond = denoiser.cond.rows(which)
    some.uncond = denoiser.uncond.expand(denoiser.branches).rows(which)
    return some


def one_photo(denoiser: Denoiser, b: int) -> Denoiser:
    """The denoiser of photo ``b`` alone, with its own counts."""
    return photos(denoiser, [b])
