"""DDIM inversion under the edit's own guidance: the plain baseline.

The way up makes the guided estimate that the way back will make, one level too early; at high
guidance its error is multiplied (by up to ``2 w - 1``) and the photo is lost, which is what the
other methods are measured against.

Paper: Denoising Diffusion Implicit Models (arXiv 2010.02502), section 4.3, with classifier-free
guidance (arXiv 2207.12598).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..inverter import Cost, Inverter, Recording, inverters
from ..sampling import Progress, ddim_invert, quiet
from ..schedule import Schedule


@inverters.register("guided-ddim")
class GuidedDDIM(Inverter):
    """DDIM inversion with both halves, at the guidance of the edits to come."""

    paper = "Denoising Diffusion Implicit Models, arXiv 2010.02502"

    def cost(self, steps: int) -> Cost:
        return Cost(2 * steps)

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        return Recording(ddim_invert(x0, denoiser, schedule, progress=progress))
