"""Edit-friendly DDPM inversion: the noises that make sampling give back the photo.

The latents of all levels are drawn independently of each other around the photo, and the noise of
each step is what leads from one to the next. That noise carries the picture's structure: played
under another prompt it keeps what the words do not change.

The authors leave out 0.36 of the walk for the new prompt alone and 0.12 beside prompt-to-prompt;
the default is the latter, because windows are fractions of the whole walk and the self-attention
window of an edit (0.2 to 0.4) must reach beyond what is left out.

Paper: An Edit Friendly DDPM Noise Space: Inversion and Manipulations (arXiv 2304.06140), equations
5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Denoiser, Guide, Layout
from ..inverter import Cost, Inverter, Recording, inverters
from ..registry import setting
from ..sampling import NumericsError, Progress, Replay, quiet
from ..schedule import Estimate, Level, Schedule, Step, both_ends, mix


@dataclass(frozen=True)
class SourceGuided:
    """Guidance of its own for the source row; the targets keep theirs.

    Args:
        source: guidance_scale of row 0.
        targets: the guidance of the other rows.
    """

    source: float
    targets: Guide

    def needs_uncond(self) -> bool:
        return self.source != 1 or self.targets.needs_uncond()

    def __call__(self, uncond: Tensor, cond: Tensor, step: Step) -> Tensor:
        own = cond[:1]
        if self.source != 1:  # at 1 to the last bit what the conditional half says
            own = ClassifierFree(self.source)(uncond[:1], own, step)
        return torch.cat([own, self.targets(uncond, cond, step)[1:]])


def variance(step: Step) -> float:
    """Variance of the noise that DDPM adds in a step (DDIM's at eta 1)."""
    (a, s), (a_to, s_to) = step.noisy, step.clean
    return (s_to / s) ** 2 * (1 - (a / a_to) ** 2)


def mean_of(est: Estimate, step: Step, noise_share: float) -> Tensor:
    """Where a stochastic step lands before its noise is added, [B, C, h, w].

    Args:
        est: the guided estimate.
        step: the step.
        noise_share: variance that is left to the noise, in [0, ``variance(step)``].
    """
    rest = max(0.0, step.clean.sigma**2 - noise_share) ** 0.5
    return mix(est, Level(step.clean.alpha, rest))


def draws(like: Tensor, count: int, generator: torch.Generator | None) -> list[Tensor]:
    """Standard normal maps [C, h, w], drawn one by one on the CPU (None: seed 0)."""
    generator = generator or torch.Generator().manual_seed(0)
    return [torch.randn(like.shape[-3:], generator=generator).to(like) for _ in range(count)]


class SameNoise(Replay):
    """Stochastic steps whose noise is the record's, for all rows.

    In company the source row is its record, which is where its own steps lead to rounding.
    """

    def __init__(self, method: EditFriendly, trajectory: Tensor, noise: Tensor) -> None:
        super().__init__(trajectory)
        self.method, self.noise = method, noise  # noise [S, C, h, w]

    def level(self) -> int:
        return self.method.start_level(len(self.noise))

    def start(self, branches: int) -> Tensor:
        self.pins_source = branches > 1 and self.method.keeps_last and self.method.share == 0
        return super().start(branches)

    def step(self, x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
        out = denoiser.predict(x, step, layout, self.uncond(step, denoiser))
        moved = self._land(denoiser.combine(out, layout, step, x), x, step, denoiser)
        if len(x) == 1 or not self.method.keeps_last:
            return moved
        record = self.trajectory[step.level - 1]
        if self.method.share and isinstance(denoiser.guide, SourceGuided):
            as_target = denoiser.with_guide(denoiser.guide.targets).combine(out, layout, step, x)
            shift = record - self._land(as_target, x, step, denoiser)[0]
            moved = moved + self.method.share * shift
        return torch.cat([record[None], moved[1:]])

    def _land(self, guided: Tensor, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        est = both_ends(guided, x, step.noisy, denoiser.prediction)
        return self.method.mean(est, step) + self.method.scale(step) * self.noise[step.index]


@inverters.register("edit-friendly")
class EditFriendly(Inverter):
    """Edit-friendly DDPM noises: exact, and editable well away from the photo's own guidance."""

    paper = "An Edit Friendly DDPM Noise Space, arXiv 2304.06140"
    draws = True
    exact = True

    source_guidance: float = setting(
        3.5,
        "guidance_scale of the source, up and down; the targets have the edit's",
        low=0,
        high=50,
    )
    skip: float = setting(
        0.12,
        "fraction of the walk that the way back leaves out at the noisy end: less of it lets the "
        "edit change more; 0.36 is the authors' for edits without attention control",
        low=0,
        high=1,
    )
    eta: float = setting(
        1.0, "how much of DDPM's noise a step has; 0 records offsets of DDIM's steps", low=0, high=1
    )
    keep_last: bool = setting(
        True, "keep the last step's noise: exact; without it the photo comes back a little smoother"
    )
    share: float = setting(
        0.0,
        "how much the targets get of what leads the source's step under their guidance back to "
        "the record: 0 as published, 1 makes an unchanged prompt give the reconstruction",
        low=0,
        high=1,
    )
    compat: bool = setting(
        False, "as published: variance eta v where DDIM has eta^2 v, and no noise in the last step"
    )

    @property
    def keeps_last(self) -> bool:
        """Whether the last step's noise is kept."""
        return self.keep_last and not self.compat

    def start_level(self, steps: int) -> int:
        """The level at which the way back starts, 1 to ``steps``."""
        return max(1, steps - round(self.skip * steps))

    def mean(self, est: Estimate, step: Step) -> Tensor:
        """Where a step lands without its noise, [B, C, h, w]."""
        share = self.eta if self.compat else self.eta**2
        return mean_of(est, step, share * variance(step))

    def scale(self, step: Step) -> float:
        """The noise's standard deviation; 1 for a step without, whose residual is recorded."""
        return self.eta * variance(step) ** 0.5 or 1.0

    def cost(self, steps: int) -> Cost:
        return Cost(steps if self.source_guidance == 1 else 2 * steps)

    def guide(self, guide: Guide) -> Guide:
        return SourceGuided(self.source_guidance, guide)

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return SameNoise(self, trajectory, tape["noise"])

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        # one noise a level for all photos, so that each gets what it would get alone
        noises = torch.stack(draws(x0, len(schedule), generator))[:, None]
        return self.extract(x0, noises, denoiser, schedule, progress=progress)

    @torch.no_grad()
    def extract(
        self,
        x0: Tensor,
        noises: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        progress: Progress = quiet,
    ) -> Recording:
        """The record of given draws.

        Args:
            x0: [B, C, h, w] clean latents.
            noises: [S, B or 1, C, h, w] standard normal, ``noises[k - 1]`` for level k.
            denoiser: network and the photos' prompts.
            schedule: the sampling schedule.
            progress: called after each step.

        Returns:
            trajectory [S + 1, B, C, h, w]; tape ``noise`` [S, B, C, h, w], row 0 = noisiest step.

        Raises:
            NumericsError: latents became NaN or infinite; names the step.
        """
        x0 = x0.float()
        own = denoiser.with_guide(ClassifierFree(self.source_guidance))
        path = [x0] + [
            at.alpha * x0 + at.sigma * n for at, n in zip(schedule.levels[1:], noises, strict=True)
        ]
        kept = []
        for done, step in enumerate(schedule.down(), 1):
            mean = self.mean(own(path[step.level], step), step)
            noise = (path[step.level - 1] - mean) / self.scale(step)
            # what the way back will make of it, so that rounding does not add up
            landed = mean + self.scale(step) * noise
            if not torch.isfinite(landed).all():
                raise NumericsError(
                    f"edit-friendly inversion: values are not finite at step {done} of "
                    f"{step.count}: run in float32 (--dtype float32)"
                )
            if step.level > 1:
                path[step.level - 1] = landed
            kept.append(noise)
            progress("edit-friendly inversion", done, len(schedule))
        if not self.keeps_last:
            kept[-1] = torch.zeros_like(kept[-1])
        denoiser.rows_seen += own.rows_seen
        return Recording(torch.stack(path), {"noise": torch.stack(kept)})
