"""Attention maps kept for people and for masks: running means, never a map a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inversion.denoiser import COND, Denoiser

from .control import Call, Control, Site


class AttentionStore(Control):
    """The mean map of every watched cross-attention layer, as really used (after the edits).

    Args:
        scales: which layers, by latent side / map side; None for all up to ``max_pixels``.
        max_pixels: no layer with more map positions than this.
        half: the guidance half that is kept.
    """

    label = "attention store"

    def __init__(
        self, scales: Sequence[int] | None = None, *, max_pixels: int = 1024, half: str = COND
    ) -> None:
        self.scales, self.max_pixels, self.half = scales, max_pixels, half
        self.sums: dict[Site, Tensor] = {}
        self.sizes: dict[Site, tuple[int, int]] = {}
        self.count = 0

    def begin(self, denoiser: Denoiser) -> None:
        self.sums, self.sizes, self.count = {}, {}, 0
        self._seen: set[int] = set()

    def watches(self, site: Site) -> bool:
        return site.cross and (self.scales is None or site.scale in self.scales)

    def wants_maps(self, call: Call) -> bool:
        return call.size[0] * call.size[1] <= self.max_pixels

    def probs(self, p: Tensor, call: Call) -> Tensor:
        rows = [r for r, (half, _) in enumerate(call.layout.rows) if half == self.half]
        mean = p[rows].float().mean(1)  # [B, P, T]
        old = self.sums.get(call.site)
        self.sums[call.site] = mean if old is None else old + mean
        self.sizes[call.site] = call.size
        self._seen.add(call.step.index)
        return p

    def average(self) -> dict[Site, Tensor]:
        """Mean over steps and heads of each layer's maps, [B, P, T]."""
        return {site: total / max(1, len(self._seen)) for site, total in self.sums.items()}

    def word_map(self, branch: int, positions: Sequence[int]) -> Tensor:
        """[h, w] the attention to some tokens, mean over layers, on the finest map's grid."""
        size = max(self.sizes.values())
        maps = []
        for site, mean in self.average().items():
            flat = mean[branch][:, list(positions)].sum(-1)
            maps.append(
                torch.nn.functional.interpolate(
                    flat.view(1, 1, *self.sizes[site]), size=size, mode="bilinear"
                )[0, 0]
            )
        return torch.stack(maps).mean(0)


class SelfStore(Control):
    """The mean self-attention map of all layers of one scale.

    Args:
        scale: latent side / map side of the layers.
        half: the guidance half that is kept.
    """

    label = "self-attention store"

    def __init__(self, scale: int, *, half: str = COND) -> None:
        self.scale, self.half = scale, half
        self.sum: Tensor | None = None
        self.count = 0

    def begin(self, denoiser: Denoiser) -> None:
        self.sum, self.count = None, 0

    def watches(self, site: Site) -> bool:
        return not site.cross and site.scale == self.scale

    def wants_maps(self, call: Call) -> bool:
        return True

    def probs(self, p: Tensor, call: Call) -> Tensor:
        rows = [r for r, (half, _) in enumerate(call.layout.rows) if half == self.half]
        mean = p[rows].float().mean(1)  # [B, P, P]
        self.sum = mean if self.sum is None else self.sum + mean
        self.count += 1
        return p

    def average(self) -> Tensor:
        """Mean over steps, layers and heads, [B, P, P], rows of sum 1.

        Raises:
            LookupError: no layer of that scale was seen.
        """
        if self.sum is None:
            raise LookupError(f"no self-attention layer of scale {self.scale} was seen")
        return self.sum / self.count
