"""How fast: ratios within one run, against diffusers' own loop and the published way.

Ways are timed in turns (A B A B ...), medians are compared, and every way that should give the same
numbers as another is held to it in the same run. Absolute times mean nothing on another machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inversion.sampling import Progress, quiet

from ..files import check_output_folder
from ..measure import tensor_peak
from .null_text import NULL_RATIOS, NullTextWays, text_agreement
from .subjects import GUIDANCE, quarter, tabletop
from .swaps import PLAIN, WINDOWS, EditWays
from .timing import Timing, hold, in_turns, off
from .writing import circumstances, mebibytes, page, write

AGREE = 1e-4  # of the largest value: latents after a whole walk
SHORT = {"tabletop": (2, 3), "sd-shaped": (1, 2)}  # timesteps and Adam steps held to it

# (way, against, aim) of the table; a ratio is seconds of the way over seconds of the other
EDIT_RATIOS = (
    ("edit", PLAIN, "at most 1.10"),
    ("edit, local", PLAIN, "at most 1.10"),
    ("edit", "published edit", "below 1"),
    ("edit, local", "published edit, local", "below 1"),
)


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
        **circumstances(device),
    }
    write(folder, manifest, table(manifest))
    return manifest


def _edit_agreement(name: str, gave: dict[str, Tensor], plain: Tensor) -> dict[str, float]:
    stock = gave[PLAIN]
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


def table(manifest: Mapping[str, Any]) -> str:
    """The ratios as Markdown."""
    memory = {(r["network"], r["way"]): r["peak_tensor_bytes"] for r in manifest["measurements"]}
    rows = []
    for r in manifest["ratios"]:
        name, way, against = r["network"], r["way"], r["against"]
        peaks = f"{mebibytes(memory[name, way])}, {mebibytes(memory[name, against])}"
        ratio = f"{r['ratio']:.2f} ({r['ratio_cpu']:.2f})"
        rows.append((name, way, against, ratio, r["aim"], peaks))
    return page(
        "Speed",
        (
            "Seconds of the way over seconds of what it is held against, medians of one run in",
            "turns; in brackets the same of processor seconds, which other work on the machine",
            "moves less.",
        ),
        ("network", "way", "against", "ratio", "aim", "peak memory of tensors"),
        rows,
        manifest,
        lambda s: f"{s['shape']}; {s['parameters'] / 1e6:.1f} million parameters",
    )
