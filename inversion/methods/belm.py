"""BELM: a two-step scheme that reads the same backwards, at one evaluation a step.

Three neighbouring latents are linked by the network's answer at the middle one, so each end follows
exactly from the other two. The weights make the scheme as accurate as three points allow (O-BELM).

A step that the scheme cannot make is a plain DDIM step whose residual on the photo's path is
recorded and added again, so that it too is exact: the first one down, which has no neighbour above,
and one beside a step that is ``ratio`` times longer, where the scheme would blow up what little it
has to go by (the last step of Stable Diffusion's schedules, the first of zero terminal SNR).

Paper: BELM: Bidirectional Explicit Linear Multi-step Sampler for Exact Inversion in Diffusion
Models (arXiv 2410.07273), the optimal member of its family.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Denoiser, Guide, Layout
from ..inverter import Cost, Inverter, Recording, inverters
from ..registry import setting
from ..sampling import NumericsError, Progress, Replay, quiet
from ..schedule import Level, Schedule, Step, both_ends, mix
from .edict import float64, output
from .edit_friendly import SourceGuided

Triple = tuple[Level, Level, Level]


def _time(at: Level) -> float:
    """Noise over signal, the time in which the path is straight; infinite for pure noise."""
    return at.sigma / at.alpha if at.alpha else float("inf")


def weights(above: Level, here: Level, below: Level) -> tuple[float, float, float]:
    """Of ``x_below = a x_above + b x_here + c eps(x_here)``: a, b and c."""
    h, h_above = _time(here) - _time(below), _time(above) - _time(here)
    r = (h / h_above) ** 2
    return (
        r * below.alpha / above.alpha,
        (1 - r) * below.alpha / here.alpha,
        -h * (h + h_above) / h_above * below.alpha,
    )


class TwoSteps(Replay):
    """The scheme with its memory of one latent.

    In company the source row is its record, which is where its own steps lead to rounding.
    """

    def __init__(self, method: Belm, trajectory: Tensor, latents: Tensor, residual: Tensor) -> None:
        super().__init__(trajectory)
        self.method, self.latents, self.residual = method, latents, residual  # [S, C, h, w]
        self.above: tuple[Tensor, Level] | None = None

    def start(self, branches: int) -> Tensor:
        self.above, self.pins_source = None, branches > 1
        return self.latents[0].expand(branches, *self.latents.shape[1:]).clone()

    def step(self, x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
        est = both_ends(output(x, step, denoiser, layout), x, step.noisy, denoiser.prediction)
        if self.above is None or not self.method.fits(self.above[1], step):
            new = mix(est, step.clean) + self.residual[step.index]
        else:
            a, b, c = weights(self.above[1], step.noisy, step.clean)
            new = a * self.above[0] + b * x + c * est.eps
        self.above = (x, step.noisy)
        if len(x) > 1:
            last = step.level == 1
            record = self.trajectory[0].double() if last else self.latents[step.index + 1]
            new = torch.cat([record[None], new[1:]])
        return new


@inverters.register("belm")
class Belm(Inverter):
    """O-BELM: exact at one evaluation a step, latents in float64."""

    paper = "BELM, arXiv 2410.07273"
    exact = True

    source_guidance: float = setting(
        0.0, "guidance_scale of the source, up and down; 0: that of the edit", low=0, high=50
    )
    ratio: float = setting(
        3.0,
        "a step beside one that is this many times longer is a DDIM step with its residual kept",
        low=1,
        high=1e6,
    )

    def cost(self, steps: int) -> Cost:
        return Cost(steps + 1 if self.source_guidance == 1 else 2 * steps + 2)

    def guide(self, guide: Guide) -> Guide:
        return SourceGuided(self.source_guidance, guide) if self.source_guidance else guide

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return TwoSteps(self, trajectory, tape["latents"], tape["residual"])

    def fits(self, above: Level, step: Step) -> bool:
        """Whether the scheme makes this step, coming from ``above``."""
        h = _time(step.noisy) - _time(step.clean)
        return 0 < _time(above) - _time(step.noisy) <= self.ratio * h

    @torch.no_grad()
    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        guide = denoiser.guide
        own = denoiser.with_guide(
            ClassifierFree(self.source_guidance) if self.source_guidance else guide
        )
        layout, prediction = own.full_layout(), own.prediction
        steps = list(schedule.up())
        x = float64(x0)
        est = both_ends(output(x, steps[0], own, layout), x, steps[0].clean, prediction)
        path, residuals = [x, mix(est, steps[0].noisy)], []
        for step in steps:
            below, x = path[step.level - 1], path[step.level]
            est = both_ends(output(x, step, own, layout), x, step.noisy, prediction)
            residual = below - mix(est, step.clean)
            if step.level < step.count:
                above = steps[step.level].noisy
                new = mix(est, above)
                if self.fits(above, step):
                    a, b, c = weights(above, step.noisy, step.clean)
                    new = (below - b * x - c * est.eps) / a
                    residual = torch.zeros_like(x)
                path.append(new)
            residuals.append(residual)
            if not torch.isfinite(path[-1] + residual).all():
                raise NumericsError(
                    f"belm inversion: values are not finite at step {step.level} of {step.count}: "
                    "run in float32 (--dtype float32) or lower the guidance"
                )
            progress("belm inversion", step.level, len(steps))
        denoiser.rows_seen += own.rows_seen
        tape = {"latents": torch.stack(path[:0:-1]), "residual": torch.stack(residuals[::-1])}
        return Recording(torch.stack(path).float(), tape)
