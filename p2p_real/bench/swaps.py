"""One word swap by every way: diffusers' loop, ours, and the published code's explicit maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edit import BlendWords, ControlStack, EditContext, edits, make_plan, published
from edit.attention import sites_of
from edit.methods.p2p import P2P
from inversion import Replay, sample

from . import plainly
from .subjects import GUIDANCE, Subject

WINDOWS = {"cross_replace": 0.8, "self_replace": 0.4}
PLAIN = "diffusers' loop"
ROWS = [0, 0, 1, 2]  # of the subject's texts: both halves of source and target


class EditWays:
    """One word swap by every way; each gives latents [2, C, h, w].

    Args:
        subject: the network and its prompts.
        steps: of the walk.
        windows: settings of the edit.
        start: first fraction of the walk without local blend.
    """

    def __init__(
        self,
        subject: Subject,
        steps: int,
        windows: dict[str, float] = WINDOWS,
        start: float = 0.2,
    ) -> None:
        self.subject, self.steps, self.start = subject, steps, start
        self.size = subject.latents.shape[-2], subject.latents.shape[-1]
        self.context = EditContext(subject.tokens[0], subject.tokens[1:], steps, self.size)
        self.method = edits.create("p2p", mode="replace", compat=True, **windows)

    def diffusers(self) -> Tensor:
        """No control: diffusers' loop with its own processors."""
        return self._plainly()

    def uncontrolled(self) -> Tensor:
        """No control: our loop."""
        return self._ours([])

    def ours(self) -> Tensor:
        return self._ours(make_plan(self.context, [self.method]).controls)

    def ours_local(self) -> Tensor:
        blend = BlendWords((self.subject.words,), start=self.start)
        return self._ours(make_plan(self.context, [self.method], blend=blend).controls)

    def _ours(self, controls: Any) -> Tensor:
        s = self.subject
        replay = Replay(s.latents.expand(self.steps + 1, -1, -1, -1))
        stack = ControlStack(controls)
        x = sample(s.denoiser((1, 2)), replay, s.schedule(self.steps), [stack], all_rows=True)
        stack.report()
        return x

    def published(self) -> Tensor:
        return self._published(None)

    def published_local(self) -> Tensor:
        pairs = zip(self.subject.tokens, self.subject.words, strict=True)
        rows = [published.blend_selector(tokens, word) for tokens, word in pairs]
        return self._published(torch.stack(rows).to(self.subject.latents.device))

    def _published(self, blend: Tensor | None) -> Tensor:
        s, targets = self.subject, self.context.targets
        device = s.latents.device
        assert isinstance(self.method, P2P)
        controller = plainly.PublishedReplace(
            len(s.unet.attn_processors),
            torch.stack([published.replace_mapper(self.context.source, t) for t in targets]).to(
                device
            ),
            published.cross_window(self.steps, targets, self.method.cross_replace).to(device),
            published.self_window(self.steps, self.method.self_replace),
            (self.size[0] // 2) ** 2,
            self._stored(),
            blend=blend,
            blend_side=self._blend_side(),
            start=int(self.start * self.steps),
        )
        with plainly.explicit_attention(s.unet, controller):
            return self._plainly(controller.after)

    def _plainly(self, after: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        s = self.subject
        return plainly.sampling_loop(
            s.unet,
            s.latents.expand(2, -1, -1, -1),
            s.text[ROWS],
            s.timed(self.steps),
            GUIDANCE,
            after,
            s.added(ROWS),
        )

    def _blend_side(self) -> int:
        return self.size[0] // self.context.scale_near(16)

    def _stored(self) -> int:
        """Positions of the largest map that the published code stores."""
        return max(self.size[0] // self.subject.stored_scale, self._blend_side()) ** 2

    def map_bytes(self) -> tuple[int, int]:
        """What the published way makes of maps: the largest layer's scores and map at once, and
        what it stores (this step's, and from the second step on their sums)."""
        s, largest, stored = self.subject, 0, 0
        bytes_each = next(s.unet.parameters()).element_size()
        for site in sites_of(s.unet).values():
            heads = s.unet.get_submodule(site.name.removesuffix(".processor")).heads
            places = (self.size[0] // site.scale) * (self.size[1] // site.scale)
            one = heads * places * (s.text.shape[1] if site.cross else places) * bytes_each
            largest = max(largest, 2 * len(ROWS) * one)
            stored += len(ROWS) // 2 * one if places <= self._stored() else 0
        return largest, stored * min(self.steps, 2)

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        return {
            PLAIN: self.diffusers,
            "edit": self.ours,
            "edit, local": self.ours_local,
            "published edit": self.published,
            "published edit, local": self.published_local,
        }
