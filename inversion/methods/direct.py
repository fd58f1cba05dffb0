"""Direct inversion: the recorded path is the source branch.

Published as adding back, after each step, the difference between the recorded latents and the
step's own; by induction that puts the source exactly on its record, so the record is used itself:
the same numbers without the extra passes.

Paper: PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code (arXiv 2310.01506).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import Denoiser, Layout
from ..inverter import Inverter, Recording, inverters
from ..registry import setting
from ..sampling import Progress, Replay, quiet
from ..schedule import Schedule, Step, mix
from .ddim import walk_up


class PinnedSource(Replay):
    """Row 0 is the record after every step; targets may share the source's correction."""

    def __init__(self, trajectory: Tensor, share: float) -> None:
        super().__init__(trajectory)
        self.share = share
        self.pins_source = share == 0

    def step(self, x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
        x = super().step(x, step, denoiser, layout)
        record = self.trajectory[step.level - 1]
        if self.share:
            x = x + self.share * (record - x[0])
        return torch.cat([record[None], x[1:]])


@inverters.register("direct")
class Direct(Inverter):
    """Direct inversion: source row exactly on its DDIM path, at any guidance, at no cost."""

    paper = "PnP Inversion, arXiv 2310.01506"
    exact = True

    share: float = setting(
        0.0,
        "how much of the source's correction the targets get too: 0 as published, 1 makes an "
        "unchanged prompt give the reconstruction",
        low=0,
        high=1,
    )

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        return Recording(walk_up(x0, denoiser, schedule, progress=progress))

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return PinnedSource(trajectory, self.share)

    @staticmethod
    @torch.no_grad()
    def offsets(trajectory: Tensor, denoiser: Denoiser, schedule: Schedule) -> Tensor:
        """The published corrections: record minus guided step from the record, [S, B, C, h, w].

        Args:
            trajectory: [S + 1, C, h, w].
            denoiser: the B prompts whose guided steps are compared with the record.
            schedule: the sampling schedule.
        """
        rows = []
        for step in schedule.down():
            x = trajectory[step.level].expand(denoiser.branches, *trajectory.shape[1:])
            rows.append(trajectory[step.level - 1] - mix(denoiser(x, step), step.clean))
        return torch.stack(rows)
