"""Null-text inversion: an unconditional text a step, fitted so that guidance keeps to the path.

Paper: Null-text Inversion for Editing Real Images using Guided Diffusion Models
(arXiv 2211.09794), algorithm 1.

What differs from the published loop, and what does not: weights take no gradient, the conditional
estimate is made once a timestep, and what does not depend on the text is computed once a timestep;
the embeddings are the same to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import COND, UNCOND, ClassifierFree, Denoiser, Layout, TextCond
from ..inverter import Inverter, Recording, frozen, inverters
from ..memo import memo
from ..registry import setting
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


@inverters.register("null-text")
class NullText(Inverter):
    """Null-text inversion: slow to invert, the photo's own text to edit with at high guidance."""

    paper = "Null-text Inversion, arXiv 2211.09794"
    needs_grad = True
    owns_uncond = True

    inner_steps: int = setting(10, "Adam steps a timestep, at most", low=0, high=1000)
    early_stop: float = setting(
        1e-5, "stop a timestep when the loss is below this (plus 2e-5 a step)", low=0, high=1
    )
    lr: float = setting(
        1e-2, "Adam's learning rate at the first step; falls to half", low=0, high=1
    )
    start: float = setting(0.0, "first timestep that is fitted, as a share", low=0, high=1)
    stop: float = setting(
        1.0, "end of the fitted timesteps; outside them the empty text stays", low=0, high=1
    )
    compat: bool = setting(
        False,
        "the published rule: the loss is tested after an update, so each timestep makes at least "
        "one, and the rate falls by 1 % of the first a step",
    )

    def forwards(self, steps: int) -> str:
        return f"{3 * steps} + up to {self.inner_steps * steps} forward and backward"

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        path = walk_up(x0, denoiser, schedule, progress=progress)
        photos = [
            self._fit(path[:, b], one_photo(denoiser, b), schedule, progress)
            for b in range(denoiser.branches)
        ]
        names = ("uncond", "losses")
        tape = {n: torch.stack([p[i] for p in photos], dim=1) for i, n in enumerate(names)}
        denoiser.rows_seen += sum(p[2].rows_seen for p in photos)
        denoiser.rows_backward += sum(p[2].rows_backward for p in photos)
        return Recording(path, tape)

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return LearnedUncond(trajectory, tape["uncond"])

    def fits(self, step: Step) -> bool:
        """Whether the text of a step is fitted."""
        return int(self.start * step.count) <= step.index < int(self.stop * step.count)

    def rate(self, step: Step) -> float:
        """Adam's learning rate at a step."""
        return self.lr * (1 - step.index / (100 if self.compat else 2 * step.count))

    def _fit(
        self, path: Tensor, denoiser: Denoiser, schedule: Schedule, progress: Progress
    ) -> tuple[Tensor, Tensor, Denoiser]:
        """Fitted embeddings [S, T, D], losses [S, inner_steps] (-1 = not run), and the counts."""
        scale = getattr(denoiser.guide, "scale", 1.0)
        guide = ClassifierFree(scale)
        x, start = path[-1][None], denoiser.uncond
        empty = start.embeds[:1].float()
        embeds = empty
        kept, losses = [], torch.full((len(schedule), max(1, self.inner_steps)), -1.0)
        with frozen(denoiser.model), memo(denoiser.model) as remember:
            for step in schedule.down():
                goal = path[step.level - 1][None]
                remember.forget()
                with torch.no_grad():
                    cond = denoiser.predict(x, step, Layout(((COND, 0),)))
                remember.start()
                text = embeds if self.fits(step) else empty
                embeds, out = self._inner(
                    x, goal, cond, text, step, denoiser, guide, losses[step.index]
                )
                remember.forget()
                kept.append(embeds[0])
                x = mix(
                    both_ends(guide(out, cond, step), x, step.noisy, denoiser.prediction),
                    step.clean,
                )
                if not torch.isfinite(x).all() or not torch.isfinite(embeds).all():
                    raise NumericsError(
                        f"null-text inversion: values are not finite at step {step.index + 1} of "
                        f"{step.count}: run in float32 (--dtype float32)"
                    )
                done = losses[step.index][losses[step.index] >= 0]
                note = f"loss {done[-1]:.1e}" if len(done) else "no inner step"
                progress("null-text inversion", step.index + 1, len(schedule), note)
        return torch.stack(kept), losses, denoiser

    def _inner(
        self,
        x: Tensor,
        goal: Tensor,
        cond: Tensor,
        embeds: Tensor,
        step: Step,
        denoiser: Denoiser,
        guide: ClassifierFree,
        losses: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The fitted text [1, T, D] of one timestep and the unconditional output under it."""
        text = embeds.detach().clone().requires_grad_(True)
        rate = self.rate(step)
        adam = torch.optim.Adam([text], lr=rate)
        stop = self.early_stop + step.index * 2e-5
        plain, layout = denoiser.uncond.rows([0]), Layout(((UNCOND, 0),))

        def answer(t: Tensor) -> Tensor:
            full = TextCond(t.to(plain.embeds.dtype), plain.pooled, plain.time_ids)
            return denoiser.predict(x, step, layout, uncond=full)

        for j in range(self.inner_steps if self.fits(step) else 0):
            with torch.enable_grad():
                out = answer(text)
                est = both_ends(guide(out, cond, step), x, step.noisy, denoiser.prediction)
                loss = torch.nn.functional.mse_loss(mix(est, step.clean), goal)
            losses[j] = loss.detach()
            if not self.compat and losses[j] < stop:
                return text.detach(), out.detach()
            text.grad = torch.autograd.grad(loss, text)[0]
            denoiser.rows_backward += 1
            adam.step()
            if losses[j] < stop:
                break
        with torch.no_grad():
            return text.detach(), answer(text.detach())


def one_photo(denoiser: Denoiser, b: int) -> Denoiser:
    """The denoiser of photo ``b`` alone, with its own counts."""
    one = denoiser.with_guide(denoiser.guide)
    one.cond = denoiser.cond.rows([b])
    one.uncond = denoiser.uncond.expand(denoiser.branches).rows([b])
    return one
