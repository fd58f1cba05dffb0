"""ReNoise inversion: each step up is renoised several times and its noise predictions averaged.

What the published code does and this does not (``compat`` is not offered, none of it is wanted):
the reference noise of the enhancement is predicted at properly noised latents (there, for other
models than turbo ones, at the clean ones); guidance pairs each row with its own text (there the
reference rows shift the pairs); correlation is never measured at shift 0; the range of averaged
predictions is counted from the last one, so it is never empty (there it starts at the ninth
prediction, which with few renoising steps does not exist, and then nothing is averaged or
enhanced); predictions that nobody reads are not made.

Paper: ReNoise: Real Image Inversion Through Iterative Noising (arXiv 2403.14602), algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..fixed_point import enter, size
from ..inverter import Cost, Recording, inverters
from ..registry import setting
from ..regularizers import draw_with, liken
from ..sampling import Progress, climb, quiet
from ..schedule import Estimate, Schedule, Step, both_ends, mix
from .fixed_point import OwnGuidance

EARLY_TIMESTEP, EARLY_COUNT = 250, 5  # below this timestep the first five are averaged


@inverters.register("renoise")
class ReNoise(OwnGuidance):
    """Renoising: a few fixed-point iterations a step, their noise predictions averaged."""

    paper = "ReNoise, arXiv 2403.14602"
    draws = True

    renoise_steps: int = setting(
        4, "renoising steps after the first estimate of each step", low=0, high=100
    )
    average: int = setting(
        2, "how many of the last noise predictions are averaged; 1 takes the last", low=1, high=100
    )
    early: bool = setting(True, "below timestep 250 average the first five predictions instead")
    enhance: bool = setting(
        False, "move predictions towards white noise: patch KL and auto-correlation"
    )
    lambda_kl: float = setting(0.065, "weight of the patch KL", low=0, high=10)
    lambda_ac: float = setting(20.0, "weight of the auto-correlation", low=0, high=1000)

    def cost(self, steps: int) -> Cost:
        rows = steps if self.inversion_guidance == 1 else 2 * steps
        return Cost(rows * (self.renoise_steps + 1 + self.enhance))

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
        generator = generator or torch.Generator().manual_seed(0)
        up, x0 = self.upward(denoiser), x0.float()
        noise = torch.randn(x0.shape[1:], generator=generator).to(x0.device).expand_as(x0)
        residuals: list[Tensor] = []

        def move(below: Tensor, step: Step) -> Tensor:
            like = None
            if self.enhance:
                like = up(mix(Estimate(x0, noise), step.noisy), step).eps
            x, residual = self._renoised(below, step, up, like, generator)
            residuals.append(residual)
            return x

        path = climb(x0, schedule, move, progress=progress, stage="renoise inversion")
        denoiser.rows_seen += up.rows_seen
        return Recording(path, {"residuals": torch.stack(residuals[::-1])})

    def averaged(self, step: Step) -> range:
        """Which predictions of a step are averaged; the last of them is the last that is made."""
        if self.early and step.t < EARLY_TIMESTEP:
            return range(min(EARLY_COUNT, self.renoise_steps + 1))
        return range(max(0, self.renoise_steps + 1 - self.average), self.renoise_steps + 1)

    def _renoised(
        self,
        below: Tensor,
        step: Step,
        up: Denoiser,
        like: Tensor | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Latents [B, C, h, w] at ``step.noisy``, and the last measured residual [B].

        Args:
            below: latents at ``step.clean``.
            step: the step that is undone.
            up: network, text and guidance of the way up.
            like: noise that predictions should resemble, or None to leave them alone.
            generator: of the enhancement's shifts.
        """

        def land(eps: Tensor) -> Tensor:
            return enter(eps, below, step, "epsilon")

        def enhanced(eps: Tensor) -> Tensor:
            if like is None:
                return eps
            draw = draw_with(generator)
            return liken(eps, like, draw, lambda_ac=self.lambda_ac, lambda_kl=self.lambda_kl)

        kept = self.averaged(step)
        x, fx, mean = below, below, torch.zeros_like(below)
        layout = up.full_layout()
        for i in range(kept.stop):
            x = fx
            out = up.combine(up.predict(x, step, layout), layout, step, x)
            at = step.noisy if i else step.clean  # the level of what was fed to the network
            eps = both_ends(out, x, at, up.prediction).eps
            if i in kept:
                mean = mean + (eps - mean) / (i - kept.start + 1)
                eps = enhanced(eps) if i + 1 < kept.stop else eps
            fx = land(eps)
        return land(enhanced(mean)), size(fx - x) / size(x).clamp_min(1e-30)
