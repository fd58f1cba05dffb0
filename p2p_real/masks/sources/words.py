"""Where words are seen: the photo's own word maps, sharpened by its own self-attention.

The network looks at some latents of the photo's recorded path under the photo's prompt; nothing is
edited. A word's map is the mean over those looks, layers and heads of the attention to its tokens
(as in DAAM, arXiv 2210.04885). It is then passed on along the mean self-attention map, so that
places that attend to one another are marked together (Dataset Diffusion, arXiv 2309.14303, and
DiffSegmenter, arXiv 2309.02773, multiply by powers of that map). A plain power blurs small things:
here two places are linked as strongly as they attend to *each other*, the geometric mean of both
ways, raised to an exponent that drops the weak links.

The rule of a local blend (``--local``) is another one, and stays as published.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captioning.matching import find_word
from edit import AttentionStore, ControlStack, EditContext, SelfStore, sites_of
from inversion import ClassifierFree, Denoiser
from inversion.denoiser import COND, Layout
from inversion.registry import setting

from ...inverting import guarded, pixel_size
from ..grammar import MaskError
from ..mask import on_photo
from ..source import MaskSource, Subject, mask_sources


@mask_sources.register("words")
class Words(MaskSource):
    """Words of the photo's prompt, by cross-attention and self-attention."""

    paper = "DAAM, arXiv 2210.04885; Dataset Diffusion, arXiv 2309.14303"
    about = "a word or phrase of the photo's prompt (several: red ball, or a ball | a mug)"
    looks = True

    threshold: float = setting(
        0.3, "how strongly a place must show the words, as a share of the strongest", low=0, high=1
    )
    soft: bool = setting(False, "soft values, full from twice the threshold on, not a hard mask")
    refine: int = setting(
        1, "how often the map is passed on along the self-attention; 0: not at all", low=0, high=50
    )
    exponent: float = setting(
        3.0, "of the self-attention's links: more keeps only strong ones", low=0.1, high=20
    )
    levels: int = setting(
        10, "at how many latents of the photo's path the network looks", low=1, high=1000
    )

    def check(
        self, text: str, *, sizes: tuple[tuple[int, int], ...] = (), source: str | None = None
    ) -> None:
        if not text:
            raise MaskError("words: say which, such as words:ball")
        if source is not None:
            find_word(source, text)

    def read(self, text: str, subject: Subject) -> np.ndarray:
        found = self.map(text, subject)
        seen = np.clip(on_photo(found, subject.fit), 0, 1)
        if self.soft:
            return np.clip(seen / max(2 * self.threshold, 1e-6), 0, 1).astype(np.float32)
        return (seen > self.threshold).astype(np.float32)

    def map(self, text: str, subject: Subject) -> Tensor:
        """How strongly each place shows the words, [h, w] from 0 to 1.

        Raises:
            WordNotFound: they do not stand in the photo's prompt; lists its tokens.
        """
        tokens = subject.backbone.tokens(subject.inversion.prompt)
        places = tokens.find(text)
        size = tuple(subject.inversion.trajectory.shape[-2:])
        there = {site.scale for site in sites_of(subject.backbone.unet).values()}
        near = EditContext(tokens, (), 1, size).scale_near(16)
        scale = min((s for s in there if s >= near), default=max(there))
        words, links = AttentionStore((scale, 2 * scale), max_pixels=2**30), SelfStore(scale)
        self.look(subject, [words, links] if self.refine else [words])
        seen = words.word_map(0, places)  # [h, w]
        values = seen.flatten()
        if self.refine:
            link = mutual(links.average()[0], self.exponent)
            for _ in range(self.refine):
                values = link @ values
        values = values - values.min()
        return (values / values.max().clamp(min=1e-12)).view(seen.shape).cpu()

    def look(self, subject: Subject, stores: Sequence[AttentionStore | SelfStore]) -> None:
        """Show the network latents of the photo's path, evenly from the photo to the noise."""
        inversion, backbone = subject.inversion, subject.backbone
        size = pixel_size(backbone, inversion)
        denoiser = Denoiser(
            backbone,
            backbone.encode_text([inversion.prompt], size),
            backbone.empty_text(size),
            ClassifierFree(1.0),
            backbone.prediction,
        )
        steps = list(inversion.schedule.up())
        count = min(self.levels, len(steps))
        chosen = [steps[round((n + 0.5) * len(steps) / count - 0.5)] for n in range(count)]

        @torch.no_grad()
        def go() -> None:
            with ControlStack(list(stores)).attach(denoiser):
                for done, step in enumerate(chosen, 1):
                    x = inversion.trajectory[step.level][None].to(backbone.device, torch.float32)
                    denoiser.predict(x, step, Layout(((COND, 0),)))
                    subject.progress("looking for words", done, count)

        guarded(backbone, go)


def mutual(attention: Tensor, exponent: float) -> Tensor:
    """Links [P, P], rows of sum 1, from a self-attention map [P, P]."""
    link = (attention * attention.T).clamp(min=0) ** (exponent / 2)
    return link / link.sum(-1, keepdim=True).clamp(min=1e-30)
