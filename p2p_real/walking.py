"""One controlled walk: source and target rows together, decoded and reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edit import Control, ControlStack, FixedMask, NothingActed, Plan
from inversion import Denoiser, Replay, Schedule, TextCond, sample
from inversion.denoiser import Guide
from inversion.sampling import Progress

from .backbones.base import Backbone
from .directions.applying import summary, target_text
from .inverting import decode, guarded
from .masks import Mask
from .measure import Meter, versions
from .prompts import Prompts
from .result import Outcome
from .steering import EditControl


@dataclass(frozen=True)
class Walk:
    """Where a walk starts and how it goes.

    Args:
        replay: makes a fresh replay (called again if the walk must be repeated).
        schedule: the steps.
        size: (H, W) of the picture.
        guide: how the halves mix.
        negative_prompt: text of the unconditional half.
    """

    replay: Callable[[], Replay]
    schedule: Schedule
    size: tuple[int, int]
    guide: Guide
    negative_prompt: str = ""

    def denoiser(self, backbone: Backbone, cond: TextCond) -> Denoiser:
        """The network under this walk's guidance."""
        empty = backbone.empty_text(self.size, self.negative_prompt)
        return Denoiser(backbone, cond, empty, self.guide, backbone.prediction)


def draw(
    backbone: Backbone,
    walk: Walk,
    prompt: str,
    progress: Progress,
    watch: Sequence[Control] = (),
) -> Outcome:
    """A picture of a prompt, uncontrolled; ``watch`` may look on."""
    stack = ControlStack(watch)
    denoiser = walk.denoiser(backbone, backbone.encode_text([prompt], walk.size))
    with Meter(backbone.device) as meter:
        latents = guarded(
            backbone,
            lambda: sample(
                denoiser, walk.replay(), walk.schedule, [stack], progress=progress, stage="drawing"
            ),
        )
        pictures = decode(backbone, latents)
    report: dict[str, object] = {"model": backbone.name, "source": prompt, "target": prompt}
    if watch:
        report["controls"] = stack.report()
    return Outcome(pictures, latents, None, report | _cost(walk, denoiser, meter))


def run_edit(
    backbone: Backbone,
    walk: Walk,
    prompts: Prompts,
    plan: Plan,
    how: EditControl,
    progress: Progress,
) -> list[Outcome]:
    """The edits of a source by all targets of its prompts, in one walk.

    Raises:
        NothingActed: a control never acted, or source and a target came out equal.
    """
    cond = target_text(backbone, prompts, walk.size)
    if how.strength != 1:
        source, targets = cond.rows([0]), cond.rows(range(1, len(cond)))
        same = source.expand(len(targets))
        cond = TextCond.cat([source, same.lerp(targets, how.strength)])
    denoiser = walk.denoiser(backbone, cond)
    stack = ControlStack(plan.controls, explicit=how.explicit)

    def go() -> Tensor:
        replay = walk.replay()
        return sample(denoiser, replay, walk.schedule, [stack], progress=progress, stage="editing")

    with Meter(backbone.device) as meter:
        latents = guarded(backbone, go)
        pictures = decode(backbone, latents)
    acted = stack.report()
    changes = (latents[1:] - latents[:1]).abs().flatten(1).amax(1).tolist()
    if 0 in changes and how.strength > 0:
        which = f" ({prompts.targets[changes.index(0)]!r})" if prompts.also else ""
        raise NothingActed(
            f"the edit changed nothing: source and target{which} came out equal; raise --strength "
            "or --guidance, or shorten --cross-replace and --self-replace"
        )
    shape = how.mask if isinstance(how.mask, Mask) else None
    masks = [
        m
        for c in plan.controls
        if (m := getattr(c, "mask", None)) is not None
        and not (shape is not None and isinstance(c, FixedMask))
    ]
    shared = {
        "model": backbone.name,
        "source": prompts.source,
        "direction": summary(prompts.direction),
        "controls": acted,
        "layers_hooked": {row["control"]: row["layers_hooked"] for row in acted},
        "steps_injected": {row["control"]: row["steps_injected"] for row in acted},
        "settings": how.settings(),
        **_cost(walk, denoiser, meter),
    }
    made = []
    for b, (target, change) in enumerate(zip(prompts.targets, changes, strict=True), 1):
        parts = [m[min(b, len(m) - 1), 0].float().cpu() for m in masks]
        mask = torch.stack(parts).amin(0) if parts else None
        report = {
            "target": target,
            "token_alignment": plan.table()[b - 1],
            "mask_coverage": None if mask is None else round(float(mask.mean()), 4),
            "max_latent_change": {"reconstruction": change, "uninjected": None},
        }
        rows = [pictures[0], pictures[b]]
        made.append(Outcome(rows, latents[[0, b]], mask, shared | report, shape))
    return made


def _cost(walk: Walk, denoiser: Denoiser, meter: Meter) -> dict[str, object]:
    return {
        "steps": len(walk.schedule),
        "negative_prompt": walk.negative_prompt,
        "seconds": meter.seconds,
        "unet_rows": denoiser.rows_seen,
        "peak_memory_bytes": meter.peak_memory_bytes,
        "versions": versions(),
    }
