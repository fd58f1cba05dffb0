"""Dual-conditional inversion: SPDInv's search with noise drawn a little towards the photo.

Before an iterate is compared with its image, its noise estimate takes one step of length ``rate``
down the gradient of ``|z_0 - eps|``, the distance to the photo's latents (so the step is the unit
vector towards them; it is held constant when the residual is differentiated). The published step
is one unit for latents of 4 x 64 x 64; here it is scaled by the root of the size, so that every
element moves alike at any size (``compat``: one unit).

Paper: DCI: Dual-Conditional Inversion for Boosting Diffusion-Based Image Editing
(arXiv 2506.02560); the correction is the one of the authors' code.
"""

from __future__ import annotations

from torch import Tensor

from ..fixed_point import enter
from ..inverter import inverters
from ..registry import setting
from ..schedule import Step, both_ends
from .spdinv import SPDInv

PUBLISHED_SIZE = 4 * 64 * 64


@inverters.register("dual-conditional")
class DualConditional(SPDInv):
    """Fixed-point search under both the prompt and the photo itself (DCI)."""

    paper = "DCI: Dual-Conditional Inversion, arXiv 2506.02560"

    rate: float = setting(1.0, "length of the noise's step towards the photo", low=0, high=100)

    def target(
        self, out: Tensor, x: Tensor, below: Tensor, x0: Tensor, step: Step, prediction: str
    ) -> Tensor:
        eps = both_ends(out, x, step.noisy, prediction).eps
        away = x0 - eps.detach()
        rate = self.rate if self.compat else self.rate * (x0.numel() / PUBLISHED_SIZE) ** 0.5
        eps = eps + rate * away / away.norm().clamp_min(1e-30)
        return enter(eps, below, step, "epsilon")
