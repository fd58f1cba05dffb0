"""DDIM inversion: the deterministic path of the photo, walked up once.

Paper: Denoising Diffusion Implicit Models (arXiv 2010.02502), section 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Denoiser, TextCond
from ..inverter import Cost, Inverter, Recording, inverters
from ..registry import setting
from ..sampling import Progress, ddim_invert, quiet
from ..schedule import Schedule


def walk_up(
    x0: Tensor,
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    guidance_scale: float = 1.0,
    text: str = "source",
    departure: bool = False,
    progress: Progress = quiet,
) -> Tensor:
    """DDIM trajectory [S + 1, B, C, h, w]; counts its rows on ``denoiser``.

    A path that ``denoiser.paths`` knows is not walked again.
    """
    up = denoiser.with_guide(ClassifierFree(guidance_scale))
    if text == "empty":
        up.cond = TextCond.cat([denoiser.uncond.expand(1)] * denoiser.branches)
    how, starts = (guidance_scale, departure, schedule), _starts(x0, up)
    known = None if denoiser.paths is None else denoiser.paths.find(how, starts)
    if known is not None:
        return known
    path = ddim_invert(x0, up, schedule, departure=departure, progress=progress)
    denoiser.rows_seen += up.rows_seen
    if denoiser.paths is not None:
        denoiser.paths.keep(how, starts, path)
    return path


def _starts(x0: Tensor, up: Denoiser) -> list[tuple[Tensor, ...]]:
    """What decides the path of each photo: its latents and the text that is read."""
    halves = [up.cond, up.uncond.expand(up.branches)] if up.guide.needs_uncond() else [up.cond]
    parts = [x0, *(part for text in halves for part in text.parts())]
    return [tuple(part[b] for part in parts) for b in range(up.branches)]


@inverters.register("ddim")
class DDIM(Inverter):
    """Plain DDIM inversion. Faithful at guidance 1; guidance pulls the way back off the path."""

    paper = "Denoising Diffusion Implicit Models, arXiv 2010.02502"

    inversion_guidance: float = setting(
        1.0, "guidance_scale on the way up; 1 asks the source prompt alone", low=0, high=50
    )
    text: str = setting("source", "which prompt leads the way up", choices=("source", "empty"))
    departure: bool = setting(
        False, "ask the network at the timestep that is left, not at the one that is entered"
    )

    def cost(self, steps: int) -> Cost:
        return Cost(steps if self.inversion_guidance == 1 else 2 * steps)

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        path = walk_up(
            x0,
            denoiser,
            schedule,
            guidance_scale=self.inversion_guidance,
            text=self.text,
            departure=self.departure,
            progress=progress,
        )
        return Recording(path)
