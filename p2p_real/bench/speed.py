"""How fast: ratios within one run, against diffusers' own loop and the published way.

Ways are timed in turns (A B A B ...), medians are compared, and every way that should give the same
numbers as another is held to it in the same run. Absolute times mean nothing on another machine.
"""

from __future__ import annotations

import csv
import io
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edit import BlendWords, ControlStack, EditContext, edits, make_plan, published
from edit.methods.p2p import P2P
from inversion import Replay, sample
from inversion.sampling import Progress, quiet

from ..files import check_output_folder, write_json, write_text
from ..measure import tensor_peak, versions
from . import plainly
from .null_text import NULL_RATIOS, NullTextWays, text_agreement
from .subjects import GUIDANCE, Subject, quarter, tabletop
from .timing import Timing, hold, in_turns, off

WINDOWS = {"cross_replace": 0.8, "self_replace": 0.4}
AGREE = 1e-4  # of the largest value: latents after a whole walk
SHORT = {"tabletop": (2, 3), "sd-shaped": (1, 2)}  # timesteps and Adam steps held to it

# What is compared -----------------------------------------------------------------------------


class EditWays:
    """One word swap by every way; each gives latents [2, C, h, w]."""

    def __init__(self, subject: Subject, steps: int) -> None:
        self.subject, self.steps = subject, steps
        self.size = subject.latents.shape[-2], subject.latents.shape[-1]
        self.context = EditContext(subject.tokens[0], subject.tokens[1:], steps, self.size)
        self.method = edits.create("p2p", mode="replace", compat=True, **WINDOWS)

    def diffusers(self) -> Tensor:
        """No control: diffusers' loop with its own processors."""
        s = self.subject
        text = s.text[[0, 0, 1, 2]]
        x = s.latents.expand(2, -1, -1, -1)
        return plainly.sampling_loop(s.unet, x, text, s.timed(self.steps), GUIDANCE)

    def uncontrolled(self) -> Tensor:
        """No control: our loop."""
        return self._ours([])

    def ours(self) -> Tensor:
        return self._ours(make_plan(self.context, [self.method]).controls)

    def ours_local(self) -> Tensor:
        blend = BlendWords((self.subject.words,), start=0.2)
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
        side = self.size[0] // self.context.scale_near(16)
        assert isinstance(self.method, P2P)
        controller = plainly.PublishedReplace(
            len(s.unet.attn_processors),
            torch.stack([published.replace_mapper(self.context.source, t) for t in targets]).to(
                device
            ),
            published.cross_window(self.steps, targets, self.method.cross_replace).to(device),
            published.self_window(self.steps, self.method.self_replace),
            (self.size[0] // 2) ** 2,
            max(self.size[0] // 2, side) ** 2,
            blend=blend,
            blend_side=side,
            start=int(0.2 * self.steps),
        )
        with plainly.explicit_attention(s.unet, controller):
            return plainly.sampling_loop(
                s.unet,
                s.latents.expand(2, -1, -1, -1),
                s.text[[0, 0, 1, 2]],
                s.timed(self.steps),
                GUIDANCE,
                controller.after,
            )

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "diffusers' loop": self.diffusers,
            "edit": self.ours,
            "edit, local": self.ours_local,
            "published edit": self.published,
            "published edit, local": self.published_local,
        }


# (way, against, aim) of the table; a ratio is seconds of the way over seconds of the other
EDIT_RATIOS = (
    ("edit", "diffusers' loop", "at most 1.10"),
    ("edit, local", "diffusers' loop", "at most 1.10"),
    ("edit", "published edit", "below 1"),
    ("edit, local", "published edit, local", "below 1"),
)

# The run --------------------------------------------------------------------------------------


def run(
    out: Path, *, quick: bool = False, progress: Progress = quiet, device: str = "cpu"
) -> dict[str, Any]:
    """Time edits and null-text inversion, and write the table.

    Args:
        out: folder for ``results.csv``, ``table.md`` and ``manifest.json``.
        quick: fewer rounds and steps: a smoke test, not a measurement.
        progress: called after each timed call.
        device: where to compute.

    Returns:
        The manifest: ratios, seconds, agreement, shapes, versions.

    Raises:
        Disagreement: ways that must give the same numbers did not.
        OutputError: ``out`` cannot be written to.
    """
    folder = check_output_folder(out)
    subjects = [tabletop(device), quarter(device, 16 if quick else 32)]
    rounds = {"tabletop": 1 if quick else 5, "sd-shaped": 1 if quick else 3}
    steps = {"tabletop": 5 if quick else 10, "sd-shaped": 3}
    inner = {"tabletop": (2, 3) if quick else (3, 10), "sd-shaped": (1, 2) if quick else (1, 10)}
    total = sum(8 * (rounds[s.name] + 1) for s in subjects)
    count = 0

    def tick(name: str) -> None:
        nonlocal count
        count += 1
        progress("speed", count, total, name)

    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    agreement: dict[str, dict[str, float]] = {}
    for s in subjects:
        where = torch.device(device)
        editing = EditWays(s, steps[s.name])
        times, gave = in_turns(editing.ways(), rounds[s.name], where, tick)
        small = EditWays(s, 2).ways()
        agreement[s.name] = _edit_agreement(s.name, gave, editing.uncontrolled())
        null = NullTextWays(s, *inner[s.name])
        more, texts = in_turns(null.ways(), rounds[s.name], where, tick)
        small |= NullTextWays(s, 1, 2).ways()
        brief = NullTextWays(s, *SHORT[s.name]).ways()
        agreement[s.name] |= text_agreement(
            s.name, {way: fit() for way, fit in brief.items()}, texts, s.text[0]
        )
        times |= more
        for name, timing in times.items():
            rows.append(_row(s.name, name, timing, tensor_peak(small[name], where)))
        for way, against, aim in (*EDIT_RATIOS, *NULL_RATIOS):
            ratios.append(_ratio(s.name, way, against, aim, times))
    manifest: dict[str, Any] = {
        "benchmark": "speed",
        "quick": quick,
        "guidance_scale": GUIDANCE,
        "windows": WINDOWS,
        "subjects": {
            s.name: {
                "shape": s.shape,
                "parameters": sum(p.numel() for p in s.unet.parameters()),
                "edit_steps": steps[s.name],
                "null_text_steps_and_inner_steps": list(inner[s.name]),
                "rounds": rounds[s.name],
            }
            for s in subjects
        },
        "ratios": ratios,
        "agreement": agreement,
        "measurements": rows,
        "device": device,
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    write_text(folder / "results.csv", _csv(rows))
    write_text(folder / "table.md", table(manifest))
    write_json(folder / "manifest.json", manifest)
    return manifest


def _edit_agreement(name: str, gave: dict[str, Tensor], plain: Tensor) -> dict[str, float]:
    stock = gave["diffusers' loop"]
    return {
        "uncontrolled: our loop and diffusers'": hold(
            f"{name}, uncontrolled", off(plain, stock), AGREE
        ),
        "edit: ours and the published": hold(
            f"{name}, edit", off(gave["edit"], gave["published edit"]), AGREE
        ),
        # a place whose map is at the threshold may fall on either side: its share is told
        "local edit: share of values that differ": float(
            (
                (gave["edit, local"] - gave["published edit, local"]).abs()
                > AGREE * gave["published edit, local"].abs().max()
            )
            .float()
            .mean()
        ),
    }


def _row(subject: str, way: str, timing: Timing, peak: int) -> dict[str, Any]:
    return {
        "network": subject,
        "way": way,
        "seconds": statistics.median(timing.wall),
        "seconds_least": min(timing.wall),
        "cpu_seconds": statistics.median(timing.cpu),
        "rounds": len(timing.wall),
        "peak_tensor_bytes": peak,
    }


def _ratio(
    subject: str, way: str, against: str, aim: str, times: Mapping[str, Timing]
) -> dict[str, Any]:
    a, b = times[way], times[against]
    by_round = [x / y for x, y in zip(a.cpu, b.cpu, strict=True)]
    return {
        "network": subject,
        "way": way,
        "against": against,
        "ratio": statistics.median(a.wall) / statistics.median(b.wall),
        "ratio_cpu": statistics.median(a.cpu) / statistics.median(b.cpu),
        "ratio_cpu_least": min(by_round),
        "ratio_cpu_most": max(by_round),
        "aim": aim,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(manifest: Mapping[str, Any]) -> str:
    """The ratios as Markdown."""
    memory = {(r["network"], r["way"]): r["peak_tensor_bytes"] for r in manifest["measurements"]}
    lines = [
        "# Speed",
        "",
        "Seconds of the way over seconds of what it is held against, medians of one run in turns;",
        "in brackets the same of processor seconds, which other work on the machine moves less.",
        "",
        "| network | way | against | ratio | aim | peak memory of tensors |",
        "|---|---|---|---|---|---|",
    ]
    for r in manifest["ratios"]:
        mine, theirs = (memory[r["network"], r[k]] / 2**20 for k in ("way", "against"))
        lines.append(
            f"| {r['network']} | {r['way']} | {r['against']} | {r['ratio']:.2f} "
            f"({r['ratio_cpu']:.2f}) | {r['aim']} | {mine:.0f} MiB, {theirs:.0f} MiB |"
        )
    lines.append("")
    for name, s in manifest["subjects"].items():
        lines.append(f"- {name}: {s['shape']}; {s['parameters'] / 1e6:.1f} million parameters")
    lines.append(f"- {manifest['device']}, {manifest['threads']} threads")
    return "\n".join(lines) + "\n"
