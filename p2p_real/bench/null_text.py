"""Null-text inversion, ours and the published loop, at the same inner steps: seconds and memory.

Paper: Null-text Inversion (arXiv 2211.09794).
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inversion import inverters
from inversion.sampling import Progress, quiet

from ..files import check_output_folder
from ..measure import tensor_peak
from . import plainly
from .subjects import GUIDANCE, Subject, quarter, sd15, tabletop
from .timing import Disagreement, Timing, hold, in_turns, off
from .writing import circumstances, mebibytes, page, write

TOGETHER = 4
AGREE_TEXT = 1e-5  # of the largest value: fitted texts
BASE = "published null-text"
PHOTOS = {"null-text, 4 photos together": TOGETHER}  # of ways that take more than one
ROUNDS = 2
NULL_RATIOS = (
    ("null-text", "published null-text", "at most 0.50"),
    ("null-text", "published null-text, as released", "at most 0.50"),
)


class NullTextWays:
    """Null-text inversion by every way; each gives the fitted texts [S, T, D]."""

    def __init__(self, subject: Subject, steps: int, inner_steps: int) -> None:
        self.subject, self.steps, self.inner_steps = subject, steps, inner_steps

    def ours(self) -> Tensor:
        return self._ours(self.subject, 1)[:, 0]

    def checkpointed(self) -> Tensor:
        return self._ours(self.subject, 1, checkpointing=True)[:, 0]

    def together(self) -> Tensor:
        """Photos at once; the first is that of the other ways."""
        return self._ours(self.subject, TOGETHER)[:, 0]

    def half(self) -> Tensor:
        """The network in bfloat16; text, Adam and loss in float32."""
        return self._ours(self._halved, 1)[:, 0]

    @functools.cached_property
    def _halved(self) -> Subject:
        return self.subject.to(torch.bfloat16)

    def _ours(self, s: Subject, photos: int, **settings: Any) -> Tensor:
        method = inverters.create(
            "null-text", inner_steps=self.inner_steps, early_stop=0.0, compat=True, **settings
        )
        draw = torch.Generator().manual_seed(1)
        others = torch.randn((photos - 1, *s.latents.shape[1:]), generator=draw)
        x0 = 0.5 * torch.cat([s.latents, others.to(s.latents)])
        made = method.invert(x0, s.denoiser((1,) * photos), s.schedule(self.steps))
        return made.tape["uncond"]

    def published(self) -> Tensor:
        """On today's attention processors."""
        s = self.subject
        s.unet.requires_grad_(True)
        try:
            return plainly.null_text(
                s.unet,
                0.5 * s.latents,
                s.text[1:2],
                s.text[:1],
                s.timed(self.steps),
                GUIDANCE,
                inner_steps=self.inner_steps,
                early_stop=0.0,
            )
        finally:
            s.unet.requires_grad_(False)
            s.unet.zero_grad(set_to_none=True)

    def as_released(self) -> Tensor:
        """As released: prompt-to-prompt's attention hook is in place, so maps are formed."""
        with plainly.explicit_attention(self.subject.unet, plainly.unedited):
            return self.published()

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "null-text": self.ours,
            "published null-text": self.published,
            "published null-text, as released": self.as_released,
        }

    def more(self) -> dict[str, Callable[[], Tensor]]:
        """Besides: ways that are ours alone."""
        ways = {
            "null-text, checkpointing": self.checkpointed,
            "null-text, 4 photos together": self.together,
        }
        if self.subject.latents.device.type != "cpu":  # which would only emulate it
            ways["null-text, bfloat16"] = self.half
        return ways


def text_agreement(
    name: str,
    texts: Mapping[str, Tensor],
    timed: Mapping[str, Tensor],
    start: Tensor,
) -> dict[str, float]:
    """Fitted texts held to each other on a short run; how far the timed runs went apart is told.

    Adam divides by the gradient, so where that is next to nothing each of its steps makes rounding
    larger: the numbers agree for a few steps and the results for all of them.
    """
    ours, told = texts["null-text"], {}
    if not float((ours[-1] - start).abs().max()) > 1e-3:
        raise Disagreement(f"{name}: null-text inversion fitted nothing")
    for _, way, _ in NULL_RATIOS:
        apart = hold(f"{name}, {way}", off(ours, texts[way]), AGREE_TEXT)
        told[f"{way}: ours and theirs"] = apart
        far = (timed["null-text"] - timed[way]).abs().mean() / timed[way].abs().max()
        told[f"{way}: mean difference of the timed run"] = float(far)
    return told


def run(
    out: Path, *, quick: bool = False, progress: Progress = quiet, device: str = "cpu"
) -> dict[str, Any]:
    """Time null-text inversion every way, and write the table.

    Args:
        out: folder for ``results.csv``, ``table.md`` and ``manifest.json``.
        quick: small networks and few steps: a smoke test, not a measurement.
        progress: called after each timed call.
        device: where to compute.

    Returns:
        The manifest: rows of the table, agreement, shapes, versions.

    Raises:
        Disagreement: ways that must give the same numbers did not.
        OutputError: ``out`` cannot be written to.
    """
    folder = check_output_folder(out)
    makers: list[Callable[[], Subject]] = [lambda: tabletop(device)]
    makers.append((lambda: quarter(device, 16)) if quick else (lambda: sd15(device, 16)))
    rounds, sizes = (1, [(2, 2), (1, 1)]) if quick else (ROUNDS, [(3, 10), (1, 5)])
    rows: list[dict[str, Any]] = []
    agreement: dict[str, dict[str, float]] = {}
    subjects: dict[str, dict[str, Any]] = {}
    count, total = 0, 0

    def tick(name: str) -> None:
        nonlocal count
        count += 1
        progress("null-text", count, total, name)

    for make, (steps, inner) in zip(makers, sizes, strict=True):
        s, where = make(), torch.device(device)
        whole, brief = NullTextWays(s, steps, inner), NullTextWays(s, 1, 2)
        ways, warm = whole.ways() | whole.more(), brief.ways() | brief.more()
        total += len(ways) * (rounds + 1)
        gave: dict[str, Tensor] = {}
        peaks: dict[str, int] = {}
        for name, way in warm.items():
            peaks[name] = tensor_peak(functools.partial(_keep, gave, name, way), where)
            tick(name)
        times, texts = in_turns(ways, rounds, where, tick, warm=False)
        agreement[s.name] = text_agreement(s.name, gave, texts, s.text[0])
        for name in brief.more():
            agreement[s.name][f"{name}: and null-text"] = off(gave[name], gave["null-text"])
        rows += [_row(s.name, name, times, peaks) for name in ways]
        subjects[s.name] = {
            "shape": s.shape,
            "parameters": sum(p.numel() for p in s.unet.parameters()),
            "steps": steps,
            "inner_steps": inner,
            "rounds": rounds,
        }
        del s, whole, brief, ways, warm  # the next network needs the room
    manifest: dict[str, Any] = {
        "benchmark": "null-text",
        "quick": quick,
        "guidance_scale": GUIDANCE,
        "subjects": subjects,
        "measurements": rows,
        "agreement": agreement,
        **circumstances(device),
    }
    write(folder, manifest, table(manifest))
    return manifest


def _keep(gave: dict[str, Tensor], name: str, way: Callable[[], Tensor]) -> None:
    gave[name] = way()


def _row(
    subject: str, way: str, times: Mapping[str, Timing], peaks: Mapping[str, int]
) -> dict[str, Any]:
    """Seconds a photo and peak memory of a way, and how they compare with the published loop."""
    photos, mine, theirs = PHOTOS.get(way, 1), times[way], times[BASE]
    wall = statistics.median(mine.wall) / photos
    cpu = statistics.median(mine.cpu) / photos
    return {
        "network": subject,
        "way": way,
        "photos": photos,
        "seconds_a_photo": wall,
        "cpu_seconds_a_photo": cpu,
        "times_as_fast": statistics.median(theirs.wall) / wall,
        "times_as_fast_cpu": statistics.median(theirs.cpu) / cpu,
        "peak_tensor_bytes": peaks[way],
        "share_of_memory": peaks[way] / peaks[BASE],
    }


def table(manifest: Mapping[str, Any]) -> str:
    """The measurements as Markdown."""
    rows = [
        (
            r["network"],
            r["way"],
            f"{r['seconds_a_photo']:.2f} ({r['cpu_seconds_a_photo']:.2f})",
            f"{r['times_as_fast']:.2f} ({r['times_as_fast_cpu']:.2f})",
            mebibytes(r["peak_tensor_bytes"]),
            f"{r['share_of_memory']:.2f}",
        )
        for r in manifest["measurements"]
    ]
    return page(
        "Null-text inversion against the published loop, at the same inner steps",
        (
            "Seconds a photo, medians of one run in turns, and in brackets the processor's, which",
            "other work on the machine moves less; memory is the peak of tensors beside the",
            "weights.",
        ),
        ("network", "way", "seconds a photo", "times as fast", "peak memory", "share of published"),
        rows,
        manifest,
        lambda s: (
            f"{s['shape']}; {s['parameters'] / 1e6:.1f} million parameters; {s['steps']} timesteps "
            f"of {s['inner_steps']} inner steps, {s['rounds']} rounds; memory at 1 timestep of 2"
        ),
    )
