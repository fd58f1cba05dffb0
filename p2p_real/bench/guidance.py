"""pix2pix-zero guidance, ours in one pass and the published two: seconds and memory.

Paper: Zero-shot Image-to-Image Translation (arXiv 2302.03027).
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edit import ControlStack
from edit.guidance import MapGuidance
from inversion import Replay, sample
from inversion.methods.direct import PinnedSource
from inversion.sampling import Progress, quiet

from ..files import check_output_folder
from ..measure import tensor_peak
from . import plainly
from .subjects import GUIDANCE, Subject, quarter, tabletop
from .timing import Timing, hold, in_turns, off
from .writing import circumstances, mebibytes, page, write

AMOUNT = 0.1
AGREE = 1e-4  # of the largest value: latents after the whole walk
PLAIN, OURS, PUBLISHED = "plain sampling", "guidance", "published guidance"
SECOND = "guidance at every second step"
TODAY = "published guidance, fused self-attention"
RATIOS = ("at least 2.00 times as fast as published", "at most 1.60 of plain sampling's memory")


class GuidanceWays:
    """One word swap on a recorded source, by every way; each gives the target [1, C, h, w]."""

    def __init__(self, subject: Subject, steps: int) -> None:
        self.subject, self.steps = subject, steps
        replay = Replay(subject.latents.expand(steps + 1, -1, -1, -1))
        path = [subject.latents[0]]

        class Watch(ControlStack):
            def after(self, x: Tensor, step: Any) -> Tensor:
                path.append(x[0])
                return x

        schedule = subject.schedule(steps)
        sample(subject.denoiser((1,)), replay, schedule, [Watch([])])
        self.trajectory = torch.stack(path[::-1])

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        return {
            PLAIN: lambda: self._ours([]),
            OURS: lambda: self._ours([MapGuidance(AMOUNT, (0, self.steps))]),
            SECOND: lambda: self._ours([MapGuidance(AMOUNT, (0, self.steps), every=2)]),
            TODAY: lambda: self.published(explicit=False),
            PUBLISHED: lambda: self.published(explicit=True),
        }

    def _ours(self, controls: list[Any]) -> Tensor:
        s, replay = self.subject, PinnedSource(self.trajectory, 0.0)
        stack = ControlStack(controls)
        return sample(s.denoiser((1, 2)), replay, s.schedule(self.steps), [stack])[1:]

    def compat(self) -> Tensor:
        """Ours in the published setting, which must give the published numbers."""
        s, replay = self.subject, Replay(self.trajectory)
        stack = ControlStack([MapGuidance(AMOUNT, (0, self.steps), compat=True)])
        return sample(s.denoiser((1, 2)), replay, s.schedule(self.steps), [stack])[1:]

    def published(self, *, explicit: bool) -> Tensor:
        """A pass that keeps all maps of both halves, then one that is led to them.

        Args:
            explicit: self-attention by maps too, as released.
        """
        s = self.subject
        scheduler, seen = s.timed(self.steps), list[Tensor]()

        def look(p: Tensor, cross: bool, place: str) -> Tensor:
            if cross:
                seen.append(p)
            return p

        def guided(x: Tensor, t: Any, text: Tensor) -> Tensor:
            u, c = s.unet(x, t, encoder_hidden_states=text, return_dict=False)[0].chunk(2)
            return u + GUIDANCE * (c - u)  # type: ignore[no-any-return]

        learnt = [p for n, p in s.unet.named_parameters() if "attn2" in n]
        for p in learnt:
            p.requires_grad_(True)
        before = dict(s.unet.attn_processors)
        try:
            with plainly.explicit_attention(s.unet, look):
                if not explicit:
                    mine = dict(s.unet.attn_processors)
                    kept = {n: mine[n] if "attn2" in n else before[n] for n in mine}
                    s.unet.set_attn_processor(kept)
                x, maps = s.latents, []
                for t in scheduler.timesteps:
                    seen.clear()
                    with torch.no_grad():
                        out = guided(torch.cat([x] * 2), t, s.text[[0, 1]])
                    maps.append([p.cpu() for p in seen])
                    x = scheduler.step(out, t, x, return_dict=False)[0]
                x = s.latents
                for i, t in enumerate(scheduler.timesteps):
                    both = torch.cat([x] * 2).requires_grad_()
                    seen.clear()
                    guided(both, t, s.text[[0, 2]])
                    pairs = zip(seen, maps[i], strict=True)
                    apart = [((p - q.to(p)) ** 2).sum((1, 2)).mean() for p, q in pairs]
                    torch.stack(apart).sum().backward()
                    assert both.grad is not None
                    both = (both - AMOUNT * both.grad).detach()
                    seen.clear()
                    with torch.no_grad():
                        out = guided(both, t, s.text[[0, 2]])
                    x = scheduler.step(out, t, both[:1], return_dict=False)[0]
        finally:
            for p in learnt:
                p.requires_grad_(False)
                p.grad = None
        return x


def run(
    out: Path, *, quick: bool = False, progress: Progress = quiet, device: str = "cpu"
) -> dict[str, Any]:
    """Time guidance every way, and write the table.

    Args:
        out: folder for ``results.csv``, ``table.md`` and ``manifest.json``.
        quick: a small network and few steps: a smoke test, not a measurement.
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
    makers.append(lambda: quarter(device, 8 if quick else 32))
    rounds, lengths = (1, (2, 1)) if quick else (2, (6, 2))
    rows: list[dict[str, Any]] = []
    agreement: dict[str, float] = {}
    subjects: dict[str, dict[str, Any]] = {}
    count, total = 0, 0

    def tick(name: str) -> None:
        nonlocal count
        count += 1
        progress("guidance", count, total, name)

    for make, steps in zip(makers, lengths, strict=True):
        s, where = make(), torch.device(device)
        whole, brief = GuidanceWays(s, steps), GuidanceWays(s, 1)
        total += len(whole.ways()) * (rounds + 1)
        weights = sum(p.numel() * p.element_size() for p in s.unet.parameters())
        peaks = {}
        for name, way in brief.ways().items():
            peaks[name] = tensor_peak(functools.partial(_quietly, way), where)
            tick(name)
        times, gave = in_turns(whole.ways(), rounds, where, tick, warm=False)
        for name in (PUBLISHED, TODAY):
            what = f"{s.name}: {name} and ours in its setting"
            agreement[what] = hold(what, off(whole.compat(), gave[name]), AGREE)
        rows += [_row(s.name, name, times, peaks, weights) for name in peaks]
        subjects[s.name] = {"shape": s.shape, "steps": steps, "weights_bytes": weights}
        del s, whole, brief  # the next network needs the room
    manifest: dict[str, Any] = {
        "benchmark": "guidance",
        "quick": quick,
        "guidance_scale": GUIDANCE,
        "aims": RATIOS,
        "subjects": subjects,
        "rounds": rounds,
        "measurements": rows,
        "agreement": agreement,
        **circumstances(device),
    }
    write(folder, manifest, table(manifest))
    return manifest


def _quietly(way: Callable[[], Tensor]) -> None:
    way()


def _row(
    subject: str,
    way: str,
    times: Mapping[str, Timing],
    peaks: Mapping[str, int],
    weights: int,
) -> dict[str, Any]:
    """Seconds and peak memory of a way, and how they compare."""

    def median(name: str, kind: str) -> float:
        return statistics.median(getattr(times[name], kind))

    return {
        "network": subject,
        "way": way,
        "seconds": median(way, "wall"),
        "cpu_seconds": median(way, "cpu"),
        "times_as_fast": median(PUBLISHED, "wall") / median(way, "wall"),
        "times_as_fast_cpu": median(PUBLISHED, "cpu") / median(way, "cpu"),
        "peak_tensor_bytes": peaks[way],
        "of_plain_memory": (weights + peaks[way]) / (weights + peaks[PLAIN]),
    }


def table(manifest: Mapping[str, Any]) -> str:
    """The measurements as Markdown."""
    rows = [
        (
            r["network"],
            r["way"],
            f"{r['seconds']:.2f} ({r['cpu_seconds']:.2f})",
            f"{r['times_as_fast']:.2f} ({r['times_as_fast_cpu']:.2f})",
            mebibytes(r["peak_tensor_bytes"]),
            f"{r['of_plain_memory']:.2f}",
        )
        for r in manifest["measurements"]
    ]
    return page(
        "pix2pix-zero guidance in one pass against the published two",
        (
            "Seconds of a walk, medians of one run in turns, and in brackets the processor's;",
            "memory is the peak of tensors beside the weights, its share of plain sampling counts",
            "these too.",
        ),
        ("network", "way", "seconds", "times as fast", "peak memory", "of plain sampling"),
        rows,
        manifest,
        lambda s: (
            f"{s['shape']}; weights {mebibytes(s['weights_bytes'])}; {s['steps']} steps, "
            f"{manifest['rounds']} rounds; memory at 1 step"
        ),
    )
