"""Null-text inversion, edited under proximal guidance: small differences of guidance are dropped.

The source keeps plain guidance, for which its texts were fitted; ``compat`` treats all rows alike,
as published.

Paper: Improving Tuning-Free Real Image Editing with Proximal Guidance (arXiv 2306.05414).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Guide
from ..inverter import inverters
from ..registry import setting
from ..schedule import Step
from .negative_prompt import Proximal
from .null_text import NullText


@dataclass(frozen=True)
class ProximalTargets:
    """The proximal rule for the targets, plain guidance for the source.

    Args:
        rule: what the targets get.
    """

    rule: Proximal

    @property
    def scale(self) -> float:
        """The guidance_scale of all rows."""
        return self.rule.scale

    def needs_uncond(self) -> bool:
        return True

    def __call__(self, uncond: Tensor, cond: Tensor, step: Step) -> Tensor:
        source = ClassifierFree(self.rule.scale)(uncond[:1], cond[:1], step)
        if len(cond) == 1:
            return source
        return torch.cat([source, self.rule(uncond, cond, step)[1:]])


@inverters.register("proximal-null-text")
class ProximalNullText(NullText):
    """Null-text inversion with proximal guidance: what the edit does not need stays the photo's."""

    paper = "Proximal Guidance, arXiv 2306.05414"

    proximal: str = setting("l0", "how small guidance differences shrink", choices=("l0", "l1"))
    quantile: float = setting(0.7, "threshold of the proximal rule", low=0, high=1)

    def guide(self, guide: Guide) -> Guide:
        scale = getattr(guide, "scale", 1.0)
        if not isinstance(scale, float | int):
            return guide
        rule = Proximal(float(scale), self.proximal, self.quantile, self.compat)
        return rule if self.compat else ProximalTargets(rule)
