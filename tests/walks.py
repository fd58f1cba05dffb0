"""Small walks for tests: a backbone with prompts, an inversion and controls, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edit import BlendWords, ControlStack, EditContext, edits, make_plan
from inversion import ClassifierFree, Denoiser, Replay, Schedule, inverters, sample

SMALL = (
    "a fluffy cat sitting on a mat",
    "a fluffy dog sitting on a mat",
    "a big fluffy cat sitting on a red mat",
    "a cat",
)
TABLE = (
    "a red ball on a wooden table",
    "a blue ball on a wooden table",
    "a large red ball on a wooden table",
    "a red ball",
)


@dataclass
class Record:
    """What an inversion method recorded of latents, ready to be walked back."""

    method: Any
    trajectory: Tensor
    tape: dict[str, Tensor]
    schedule: Schedule
    guidance: float

    def replay(self) -> Replay:
        return self.method.replay(self.trajectory, self.tape)


@dataclass
class Walker:
    """A backbone at a latent size; ``prompts[0]`` is the source."""

    backbone: Any
    prompts: tuple[str, ...]
    latent_size: tuple[int, int] = (16, 16)

    @property
    def pixels(self) -> tuple[int, int]:
        f = self.backbone.vae_scale_factor
        return self.latent_size[0] * f, self.latent_size[1] * f

    def latents(self, seed: int = 0, count: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rows = [self.backbone.noise(self.pixels, generator) for _ in range(count)]
        return 0.6 * torch.cat(rows)

    def denoiser(self, prompts: Sequence[str], guide: Any) -> Denoiser:
        cond = self.backbone.encode_text(list(prompts), self.pixels)
        empty = self.backbone.empty_text(self.pixels)
        return Denoiser(self.backbone, cond, empty, guide, self.backbone.prediction)

    def invert(
        self, name: str, *, steps: int = 4, guidance: float = 7.5, seed: int = 0, **settings: Any
    ) -> Record:
        method = inverters.create(name, **settings)
        schedule = self.backbone.schedule(steps)
        denoiser = self.denoiser(self.prompts[:1], ClassifierFree(guidance))
        made = method.invert(
            self.latents(seed), denoiser, schedule, generator=torch.Generator().manual_seed(0)
        )
        return Record(method, *made.photo(0), schedule, guidance)

    def context(self, prompts: Sequence[str], steps: int) -> EditContext:
        tokens = [self.backbone.tokens(p) for p in prompts]
        return EditContext(tokens[0], tuple(tokens[1:]), steps, self.latent_size)

    def controls(
        self,
        prompts: Sequence[str],
        steps: int,
        *,
        blend: BlendWords | None = None,
        extra: Sequence[Any] = (),
        edit: str = "p2p",
        **settings: Any,
    ) -> tuple[Any, ...]:
        context = self.context(prompts, steps)
        return make_plan(
            context, [edits.create(edit, **settings)], blend=blend, extra=extra
        ).controls

    def walk(
        self,
        record: Record,
        prompts: Sequence[str],
        controls: Sequence[Any] | None = None,
        *,
        explicit: bool = False,
        all_rows: bool = False,
        progress: Any = None,
        counts: list[int] | None = None,
    ) -> Tensor:
        """Clean latents [B, C, h, w]; a stack that did not act is an error."""
        guide = record.method.guide(ClassifierFree(record.guidance))
        denoiser = self.denoiser(prompts, guide)
        stack = [] if controls is None else [ControlStack(controls, explicit=explicit)]
        more = {} if progress is None else {"progress": progress}
        x = sample(denoiser, record.replay(), record.schedule, stack, all_rows=all_rows, **more)
        if counts is not None:
            counts.append(denoiser.rows_seen)
        return x


def off(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def left_behind(w: Walker) -> list[Any]:
    """All that a control could leave behind in a network."""
    unet = w.backbone.unet
    kept: list[Any] = list(unet.attn_processors.values())
    for module in unet.modules():
        kept += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        kept.append("forward" in vars(module))
    kept += [p.requires_grad for p in unet.parameters()]
    kept += [p.grad for p in unet.parameters()]
    return kept
