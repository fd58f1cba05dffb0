"""DiffEdit: where the network's noise estimates under the old and the new prompt differ.

Paper: DiffEdit: Diffusion-based semantic image editing with mask guidance (arXiv 2210.11427),
section 3.2, step 1. The published code clamps the difference at three times its mean and takes what
is above half of that: above 1.5 times the mean. It compares guided estimates; as both have the same
unconditional half, guidance only scales their difference, so that the mask is the same without.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inversion import ClassifierFree, Denoiser
from inversion.registry import setting
from inversion.schedule import Step

from ...inverting import guarded, pixel_size
from ..grammar import MaskError
from ..mask import on_photo
from ..source import MaskSource, Subject, mask_sources


@torch.no_grad()
def noise_difference(denoiser: Denoiser, x0: Tensor, noises: Tensor, step: Step) -> Tensor:
    """Mean difference of the guided noise estimates of two prompts, [h, w].

    Args:
        denoiser: text of two branches, source and target, and the guidance.
        x0: [M, C, h, w] clean latents, or [1, C, h, w] for all.
        noises: [M, C, h, w]; all are laid on the latents at ``step.noisy``.
        step: where the network is asked.
    """
    total = torch.zeros(noises.shape[-2:], device=x0.device)
    for clean, noise in zip(x0.expand_as(noises), noises, strict=True):
        x = step.noisy.alpha * clean + step.noisy.sigma * noise
        source, target = denoiser(x[None].expand(2, -1, -1, -1), step).eps
        total += (target - source).abs().mean(0)
    return total / len(noises)


def above(difference: Tensor, ratio: float = 1.5) -> Tensor:
    """The published mask: 1 where the difference is above ``ratio`` times its mean, else 0."""
    return (difference > ratio * difference.mean()).float()


@mask_sources.register("diffedit")
class DiffEdit(MaskSource):
    """The difference of noise estimates under the photo's prompt and the new one."""

    paper = "DiffEdit, arXiv 2210.11427"
    about = "nothing (the edit's own new prompt), or another new prompt"
    looks = True

    maps: int = setting(10, "how many noises are averaged", low=1, high=1000)
    noise: float = setting(
        0.5, "how much noise is laid on, as a fraction of the walk", low=0.01, high=1
    )
    ratio: float = setting(
        2.0,
        "how many times the mean difference a place must have (published: 1.5)",
        low=0,
        high=100,
    )
    soft: bool = setting(False, "soft values, full from twice that on, not a hard mask")

    def check(
        self, text: str, *, sizes: tuple[tuple[int, int], ...] = (), source: str | None = None
    ) -> None:
        if text and source is not None and text.split() == source.split():
            raise MaskError(f"diffedit:{text}: this is the photo's own prompt, nothing differs")

    def read(self, text: str, subject: Subject) -> np.ndarray:
        target = text or subject.target
        if not target:
            raise MaskError("diffedit needs a new prompt: give one, or diffedit:NEW PROMPT")
        found = self.map(target, subject)
        limit = self.ratio * float(found.mean())
        seen = on_photo(found, subject.fit)
        if limit == 0:  # nothing differs anywhere
            return np.zeros_like(seen)
        if self.soft:
            return np.clip(seen / (2 * limit), 0, 1).astype(np.float32)
        return (seen > limit).astype(np.float32)

    def map(self, target: str, subject: Subject) -> Tensor:
        """The mean difference [h, w]."""
        inversion, backbone = subject.inversion, subject.backbone
        size = pixel_size(backbone, inversion)
        denoiser = Denoiser(
            backbone,
            backbone.encode_text([inversion.prompt, target], size),
            backbone.empty_text(size),
            ClassifierFree(1.0),
            backbone.prediction,
        )
        steps = list(inversion.schedule.down())
        step = steps[len(steps) - max(1, int(self.noise * len(steps)))]
        generator = torch.Generator().manual_seed(subject.seed)
        noises = torch.cat([backbone.noise(size, generator) for _ in range(self.maps)])
        x0 = inversion.trajectory[:1].to(backbone.device, torch.float32)
        found = guarded(backbone, lambda: noise_difference(denoiser, x0, noises, step))
        subject.progress("comparing prompts", 1, 1)
        return found.cpu()
