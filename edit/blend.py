"""Local blend: outside a mask read from the words' attention, the target is the source.

Paper: Prompt-to-Prompt (arXiv 2208.01626), section 4, local editing; with a start, an or with the
source's mask and subtracted words as in the null-text inversion release (arXiv 2211.09794).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from inversion.denoiser import COND, Denoiser
from inversion.schedule import Step

from .attention import sites_of
from .control import Call, Control, NothingActed, Site


class LocalBlend(Control):
    """Blend on a mask from words.

    Args:
        words: [B, T] in {0, 1}; the tokens whose attention makes the mask, a row a prompt. A row
            may be empty where the other prompt of the pair has some.
        subtract: the same for words whose place is taken out of the mask, or None.
        threshold: share of the map's maximum above which a place counts, for words and subtract.
        start: first fraction of the walk that is not blended.
        scales: layers to read, by latent side / map side (4 is 16x16 of SD at 512 pixels); where
            the network has none of them, those of the nearest scale it has.

    Raises:
        ValueError: a pair of prompts without any token to read.
    """

    label = "local blend"
    needs_layers = True

    def __init__(
        self,
        words: Tensor,
        subtract: Tensor | None = None,
        *,
        threshold: tuple[float, float] = (0.3, 0.3),
        start: float = 0.2,
        scales: Sequence[int] = (4,),
    ) -> None:
        for selector in (words, subtract):
            if selector is not None and not _readable(selector):
                raise ValueError("local blend: a prompt has none of the words its mask is read of")
        self.words, self.subtract = words, subtract
        self.threshold, self.first, self.scales = threshold, start, tuple(scales)
        self._read = set(self.scales)
        self.mask: Tensor | None = None

    def begin(self, denoiser: Denoiser) -> None:
        device = denoiser.cond.embeds.device
        kept = [self.words] if self.subtract is None else [self.words, self.subtract]
        self._selectors = torch.stack(kept, dim=-1).float().to(device)  # [B, T, 1 or 2]
        self._sums: dict[tuple[int, int], Tensor] = {}
        self.mask = None
        there = {s.scale for s in sites_of(denoiser.model.unet).values() if s.cross}  # type: ignore[attr-defined]
        self._read = there & set(self.scales) or nearest(there, self.scales)

    def watches(self, site: Site) -> bool:
        return site.cross and site.scale in self._read

    def reads_source(self, step: Step) -> bool:
        return True

    def value_columns(self, call: Call) -> Tensor:
        zero = torch.zeros_like(self._selectors[0])
        rows = [self._selectors[b] if half == COND else zero for half, b in call.layout.rows]
        return torch.stack(rows)  # [R, T, 1 or 2]

    def seen(self, sums: Tensor, call: Call) -> None:
        rows = [call.layout.index(COND, b) for b in range(len(self._selectors))]
        maps = sums[rows].float().mean(1)  # [B, P, 1 or 2]
        maps = maps.transpose(1, 2).unflatten(-1, call.size)  # [B, 1 or 2, h, w]
        old = self._sums.get(call.size)
        self._sums[call.size] = maps if old is None else old + maps

    def after(self, x: Tensor, step: Step) -> Tensor:
        if step.index < int(self.first * step.count) or not self._sums:
            return x
        self.mask = self._mask((x.shape[-2], x.shape[-1]))
        blended = x[:1] + self.mask[1:].to(x) * (x[1:] - x[:1])
        return torch.cat([x[:1], blended])

    def _mask(self, size: tuple[int, int]) -> Tensor:
        """[B, 1, h, w] in {0, 1} from what was seen so far."""
        finest = max(self._sums)
        total = sum(
            m if s == finest else interpolate(m, finest, mode="bilinear")
            for s, m in self._sums.items()
        )
        assert isinstance(total, Tensor)
        found = self._above(max_pool2d(total[:, :1], 3, 1, 1), size, self.threshold[0])
        if self.subtract is not None:
            found = found & ~self._above(total[:, 1:], size, self.threshold[1])
        return found.float()

    @staticmethod
    def _above(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
        maps = interpolate(maps, size, mode="nearest")
        # nothing is above a share of nothing: a prompt without the word adds no place
        found = maps / maps.amax((2, 3), keepdim=True) > threshold
        return found | found[:1]

    def report(self) -> dict[str, object]:
        """Share of the picture each target's mask covers.

        Raises:
            NothingActed: an empty mask, which would give the source back.
        """
        if self.mask is None:
            return {"mask_coverage": []}
        coverage = [round(float(m.mean()), 4) for m in self.mask[1:]]
        if any(c == 0 for c in coverage):
            raise NothingActed(
                "local blend: the mask is empty, so the picture would not change: name other "
                "words, subtract fewer, or lower the threshold (--local-threshold)"
            )
        return {"mask_coverage": coverage}


def _readable(selector: Tensor) -> bool:
    """Whether the source or the target of every pair has a token to read."""
    some = selector.sum(-1) > 0
    return bool((some[0] | some[1:]).all()) if len(some) > 1 else bool(some.all())


def nearest(there: set[int], wanted: Sequence[int]) -> set[int]:
    """The scale that is nearest to one of those wanted, by its ratio; empty where there is none."""
    ordered = sorted(there, key=lambda s: min(abs(math.log2(s / w)) for w in wanted))
    return set(ordered[:1])


class FixedMask(Control):
    """Blend on a given mask: outside it the target is the source.

    A value between 0 and 1 lets its place go for that last share of the walk, so half a value is
    about half a change (Differential Diffusion, arXiv 2306.00950); mixing at every step would leave
    next to nothing of it.

    Args:
        mask: [1, 1, h, w] at latent size, in [0, 1].
        start: first fraction of the walk that is not blended.
        path: [S + 1, C, h, w] latents by level; outside the mask the target is at the level it
            steps to on this path, not on the source's row. (DiffEdit, arXiv 2210.11427, as
            published takes the level it steps from: give ``path[1:]`` for that.)
    """

    label = "mask"

    def __init__(self, mask: Tensor, *, start: float = 0.0, path: Tensor | None = None) -> None:
        if float(mask.max()) <= 0:
            raise ValueError("the mask is empty: nothing of the picture could change")
        self.mask, self.first, self.path = mask, start, path

    def reads_source(self, step: Step) -> bool:
        return False

    def after(self, x: Tensor, step: Step) -> Tensor:
        if step.index < int(self.first * step.count):
            return x
        free = (step.index >= (1 - self.mask.to(x)) * step.count - 1e-4).to(x)
        kept = x[:1] if self.path is None else self.path[step.level - 1][None].to(x)
        return torch.cat([x[:1], kept + free * (x[1:] - kept)])

    def report(self) -> dict[str, object]:
        return {"mask_coverage": [round(float(self.mask.mean()), 4)]}
