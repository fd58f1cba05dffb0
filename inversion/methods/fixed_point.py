"""AIDI: DDIM inversion with every level solved as a fixed point, accelerated.

With ``inversion_guidance`` 1 the source prompt alone leads both ways (it stands in for the empty
text on the way back, as in negative-prompt inversion), so the path holds at any guidance of an
edit; otherwise the empty text leads too, and the path holds at that guidance. The paper keeps
guidance low on the way up and blends it on the way back by a mask; masks are an edit's matter here.

Paper: Effective Real Image Editing with Accelerated Iterative Diffusion Inversion
(arXiv 2309.04907), section 3.2: Anderson acceleration of the iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Denoiser
from ..fixed_point import Solver
from ..inverter import Cost, Inverter, Recording, inverters
from ..registry import setting
from ..sampling import Progress, Replay, climb, quiet
from ..schedule import Schedule, Step
from .negative_prompt import SourceAsUncond


@dataclass(frozen=True)
class OwnGuidance(Inverter):
    """Base of methods that choose the guidance of the way up, and the way back that fits it."""

    owns_uncond = True

    inversion_guidance: float = setting(
        1.0,
        "guidance_scale on the way up: 1 asks the source prompt alone, which then also stands in "
        "for the empty text on the way back; 0 takes the guidance of the edits to come",
        low=0,
        high=50,
    )

    def upward(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser of the way up, with its own counts."""
        if self.inversion_guidance == 0:
            return denoiser.with_guide(denoiser.guide)
        return denoiser.with_guide(ClassifierFree(self.inversion_guidance))

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return (SourceAsUncond if self.inversion_guidance == 1 else Replay)(trajectory)


@inverters.register("fixed-point")
class FixedPoint(OwnGuidance):
    """Every step up is solved until the step down lands where it came from (AIDI)."""

    paper = "Accelerated Iterative Diffusion Inversion, arXiv 2309.04907"

    iterations: int = setting(
        10, "network evaluations a step, at most; 1 is DDIM inversion", low=1, high=1000
    )
    tolerance: float = setting(1e-5, "relative residual at which a step is done", low=0, high=1)
    acceleration: int = setting(
        1, "earlier iterates mixed in by Anderson acceleration; 0 is plain iteration", low=0, high=5
    )

    def cost(self, steps: int) -> Cost:
        rows = steps if self.inversion_guidance == 1 else 2 * steps
        return Cost(rows * self.iterations, least=rows)

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
        up = self.upward(denoiser)
        solve = Solver(self.tolerance, self.iterations, self.acceleration)
        residuals, evaluations = [], []

        def move(x: Tensor, step: Step) -> Tensor:
            solved = solve(x, step, up)
            residuals.append(solved.residual)
            evaluations.append(solved.evaluations)
            return solved.x

        path = climb(x0, schedule, move, progress=progress, stage="fixed-point inversion")
        denoiser.rows_seen += up.rows_seen
        tape = {"residuals": residuals, "evaluations": evaluations}
        return Recording(path, {k: torch.stack(v[::-1]) for k, v in tape.items()})
