"""Negative-prompt inversion: the source prompt stands in for the empty one.

With equal halves guidance of any scale is guidance 1 for the source, so it retraces its DDIM path
without optimisation; the target is pushed away from the source prompt.

Papers: Negative-prompt Inversion (arXiv 2305.16807); the proximal rule after Improving Tuning-Free
Real Image Editing with Proximal Guidance (arXiv 2306.05414), equations 6 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import Denoiser, Guide, TextCond
from ..inverter import Inverter, Recording, inverters
from ..registry import setting
from ..sampling import Progress, Replay, quiet
from ..schedule import Schedule, Step
from .ddim import walk_up


class SourceAsUncond(Replay):
    """Plain, with the source prompt in the unconditional half of all branches."""

    source_unguided = True

    def uncond(self, step: Step, denoiser: Denoiser) -> TextCond:
        return denoiser.cond.rows([0])


@dataclass(frozen=True)
class Proximal:
    """Guidance whose small differences are shrunk away.

    Args:
        scale: guidance_scale.
        kind: ``l0`` keeps differences above the threshold whole, ``l1`` shrinks them by it.
        quantile: the threshold, as a quantile of |cond - uncond| over the target rows.
        compat: the published rules instead: quantile over all rows; ``l0`` is the soft threshold
            and ``l1`` shifts once more what is left, first the positive part, then the negative.
    """

    scale: float
    kind: str
    quantile: float
    compat: bool = False

    def needs_uncond(self) -> bool:
        return True

    def __call__(self, uncond: Tensor, cond: Tensor, step: Step) -> Tensor:
        d = cond - uncond
        among = d if self.compat or len(d) == 1 else d[1:]
        q = torch.quantile(among.abs().flatten(), self.quantile)
        soft = d - d.clamp(-q, q)
        if not self.compat:
            return uncond + self.scale * (
                torch.where(d.abs() > q, d, 0) if self.kind == "l0" else soft
            )
        if self.kind == "l1":
            soft = torch.where(soft > 0, soft - q, soft)
            soft = torch.where(soft < 0, soft + q, soft)
        return uncond + self.scale * soft


@inverters.register("negative-prompt")
class NegativePrompt(Inverter):
    """Negative-prompt inversion: the DDIM path, found again at any guidance without optimising."""

    paper = "Negative-prompt Inversion, arXiv 2305.16807"
    owns_uncond = True

    proximal: str = setting(
        "none", "shrink small guidance differences", choices=("none", "l0", "l1")
    )
    quantile: float = setting(0.7, "threshold of the proximal rule", low=0, high=1)
    compat: bool = setting(False, "the published proximal rules, quirks included")

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

    def guide(self, guide: Guide) -> Guide:
        scale = getattr(guide, "scale", 1.0)
        if self.proximal == "none" or not isinstance(scale, float | int):
            return guide
        return Proximal(float(scale), self.proximal, self.quantile, self.compat)

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return SourceAsUncond(trajectory)
