"""Eta inversion: the photo's DDIM path, played with fresh noise that leans towards it.

Each step adds noise, more of it early; of some draws the one is taken that leads the source
nearest to its record. All rows get it, and the source is then put on the record.

The paper's optional mask (less noise outside the edited words) is left out.

Paper: Eta Inversion: Designing an Optimal Eta Function for Diffusion-based Real Image Editing
(arXiv 2403.09468), algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import Denoiser, Layout
from ..inverter import Cost, Inverter, Recording, inverters
from ..registry import setting
from ..sampling import Progress, Replay, quiet
from ..schedule import Estimate, Schedule, Step
from .ddim import walk_up
from .edit_friendly import draws, mean_of, variance


class FreshNoise(Replay):
    """Stochastic steps with the chosen noise in all rows; row 0 is the record after every step."""

    def __init__(self, method: Eta, trajectory: Tensor, noise: Tensor) -> None:
        super().__init__(trajectory)
        self.method, self.noise = method, noise  # noise [S, C, h, w]
        self.pins_source = method.share == 0

    def step(self, x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
        est = denoiser(x, step, layout=layout)
        x = self.method.mean(est, step) + self.method.scale(step) * self.noise[step.index]
        record = self.trajectory[step.level - 1]
        if self.method.share:
            x = x + self.method.share * (record - x[0])
        return torch.cat([record[None], x[1:]])


@inverters.register("eta")
class Eta(Inverter):
    """Eta inversion: the source exactly on its path, the target freed from it by noise."""

    paper = "Eta Inversion, arXiv 2403.09468"
    draws = True
    exact = True

    eta_start: float = setting(0.4, "eta at the noisy end", low=0, high=1)
    eta_end: float = setting(0.0, "eta at the clean end; linear in between", low=0, high=1)
    candidates: int = setting(
        10, "draws a step of which the nearest to the source's own noise is taken", low=1, high=1000
    )
    share: float = setting(
        0.0,
        "how much of the source's correction the targets get too: 0 as published, 1 makes an "
        "unchanged prompt give the reconstruction",
        low=0,
        high=1,
    )

    def cost(self, steps: int) -> Cost:
        return Cost(3 * steps)

    def eta(self, step: Step) -> float:
        """Linear in the level that a step starts from, 0 being the last step's."""
        place = (step.level - 1) / step.count
        return self.eta_end + place * (self.eta_start - self.eta_end)

    def scale(self, step: Step) -> float:
        """Standard deviation of a step's noise."""
        return self.eta(step) * variance(step) ** 0.5

    def mean(self, est: Estimate, step: Step) -> Tensor:
        """Where a step lands without its noise, [B, C, h, w]."""
        return mean_of(est, step, self.scale(step) ** 2)

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
        path = walk_up(x0, denoiser, schedule, progress=progress)
        kept = []
        for done, step in enumerate(schedule.down(), 1):
            drawn = draws(x0, self.candidates, generator)
            scale = self.scale(step)
            chosen = drawn[0].expand_as(x0)
            if scale > 0 and len(drawn) > 1:
                est = denoiser(path[step.level], step)
                best = (path[step.level - 1] - self.mean(est, step)) / scale
                away = torch.stack([(best - n).square().sum((1, 2, 3)) for n in drawn])
                chosen = torch.stack([drawn[int(i)] for i in away.argmin(0)])
            kept.append(chosen)
            progress("eta inversion", done, len(schedule))
        return Recording(path, {"noise": torch.stack(kept)})

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return FreshNoise(self, trajectory, tape["noise"])
