"""The table of a comparison: its columns, its rows, and the files it is written to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_json, write_text
from ..pictures import save_png
from . import trace
from .cells import Cell
from .entries import Comparison, Entry
from .photos import NAMES

COSTS = ("inversion_seconds", "edit_seconds", "peak_memory_bytes", "inversion_from_cache")


@dataclass(frozen=True)
class Column:
    """One column for people.

    Args:
        key: of the row.
        title: short, over the column.
        about: one sentence.
        digits: behind the point; None for words.
        better: +1 more is better, -1 less is, 0 neither.
        scale: shown = value x scale.
    """

    key: str
    title: str
    about: str
    digits: int | None = None
    better: int = 0
    scale: float = 1.0


def columns(distance: str, edited: bool) -> list[Column]:
    """What is shown of a row.

    Args:
        distance: "lpips" or "gmsd".
        edited: whether there are edits.
    """
    name, where = distance.upper(), "(outside the mask, if there is one)"
    found = [
        Column("photo", "photo", "the photo"),
        Column("method", "inversion", "inversion method, with the settings named for it"),
        Column("edit", "edit", "edit methods"),
        Column("guidance_scale", "guidance", "guidance_scale of the way back", 1),
        Column("psnr", "PSNR", "reconstruction against the photo, dB", 2, 1),
        Column("ssim", "SSIM", "reconstruction against the photo, 1 = equal", 4, 1),
        Column(distance, name, "reconstruction against the photo, 0 = equal", 4, -1),
        Column("edit_psnr", "edit PSNR", f"edit against photo {where}, dB", 2),
        Column("edit_ssim", "edit SSIM", f"edit against photo {where}", 4),
        Column(f"edit_{distance}", f"edit {name}", f"edit against photo {where}", 4),
        Column("inversion_seconds", "invert s", "seconds of the inversion", 2, -1),
        Column("edit_seconds", "edit s", "seconds of one edit", 2, -1),
        Column("psnr_to_ceiling", "PSNR ceil.", "reconstruction against the ceiling, dB", 2, 1),
        Column("ssim_to_ceiling", "SSIM ceil.", "reconstruction against the ceiling", 4, 1),
        Column(f"{distance}_to_ceiling", f"{name} ceil.", "reconstruction to ceiling", 4, -1),
        Column("drift_max", "drift", "largest RMS distance of latents from the record", 4, -1),
        Column("unet_forwards", "UNet fwd", "UNet rows forward, to invert", 0, -1),
        Column("unet_backwards", "UNet bwd", "UNet rows backward, to invert", 0, -1),
        Column("edit_unet_rows", "UNet edit", "UNet rows forward, to edit", 0, -1),
        Column("peak_memory_bytes", "peak MB", "on a GPU tensors, else the process", 0, -1, 1e-6),
        Column("region", "measured", "where the edit was measured"),
    ]
    if edited:
        return found
    return [c for c in found if not c.key.startswith("edit") and c.key != "region"]


def rows(made: Comparison) -> list[dict[str, Any]]:
    """All rows as plain data; a figure that was not measured is missing, equal pictures are inf."""
    return [_row(entry) for entry in made.entries]


def _row(entry: Entry) -> dict[str, Any]:
    subject, failure = entry.subject, entry.failure
    row: dict[str, Any] = {
        "photo": subject.label,
        "method": entry.method.label,
        "edit": entry.edit.label if entry.edit else "",
        "status": "failed" if failure else "ok",
        "reason": failure.reason if failure else "",
        "source": subject.prompt,
        "target": subject.prompts.target if subject.prompts else "",
        "guidance_scale": entry.guidance_scale,
        "method_settings": entry.method.resolved(),
    }
    memory = []
    if isinstance(entry.inversion, Cell):
        facts = entry.inversion.facts
        row |= _figures(facts["measured"])
        row |= trace.summary(facts["drift"])
        row |= {
            "inversion_seconds": facts["seconds"],
            "unet_forwards": facts["unet_forwards"],
            "unet_backwards": facts["unet_backwards"],
            "inversion_from_cache": facts["from_cache"],
            "drift": facts["drift"],
            "curves": facts["curves"],
        }
        memory.append(facts["peak_memory_bytes"])
        row["files"] = dict(entry.inversion.files)
    if isinstance(entry.edited, Cell):
        facts = entry.edited.facts
        row |= _figures(facts["measured"])
        row |= {
            "edit_seconds": facts["seconds"],
            "edit_unet_rows": facts["unet_rows"],
            "mask_coverage": facts["mask_coverage"],
            "edit_settings": facts["edit_settings"],
        }
        memory.append(facts["peak_memory_bytes"])
        row["files"] |= entry.edited.files
    known = [m for m in memory if m is not None]
    if known:
        row["peak_memory_bytes"] = max(known)
    if failure and failure.trace:
        row["traceback"] = failure.trace
    return {k: v for k, v in row.items() if v is not None}


def _figures(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Figures read from JSON, which has no word for the PSNR of equal pictures."""
    return {
        k: math.inf if v is None and "psnr" in k else v
        for k, v in measured.items()
        if v is not None or "psnr" in k
    }


def as_csv(found: list[dict[str, Any]], distance: str) -> str:
    """The rows as CSV: one header, empty where not measured, ``inf`` for equal pictures."""
    shown = [c.key for c in columns(distance, True)]
    extra = ("ceiling_psnr", "ceiling_ssim", "drift_end", "mask_coverage", "outside")
    keys = [*shown, *extra, "inversion_from_cache", "status", "reason", "source", "target"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return stream.getvalue()


def text(value: Any, column: Column) -> str:
    """A figure for people."""
    if value is None:
        return ""
    if column.digits is None:
        return str(value)
    if math.isinf(value):
        return "equal"
    return f"{value * column.scale:.{column.digits}f}"


def best(found: list[dict[str, Any]], column: Column) -> dict[str, float]:
    """The best value of a column for each photo that has more than one."""
    by_photo: dict[str, list[float]] = {}
    for row in found:
        if column.better and row.get(column.key) is not None:
            by_photo.setdefault(row["photo"], []).append(row[column.key])
    pick = max if column.better > 0 else min
    return {photo: pick(values) for photo, values in by_photo.items() if len(set(values)) > 1}


def describe(made: Comparison) -> str:
    """A short table for a terminal."""
    found = made.rows()
    edited = any(r["edit"] for r in found)
    keys = {"photo", "method", "edit", "psnr", "ssim", made.perceptual.name, "edit_psnr"}
    keys |= {"inversion_seconds", "edit_seconds"}
    shown = [c for c in columns(made.perceptual.name, edited) if c.key in keys]
    lines = [[c.title for c in shown]]
    for row in found:
        lines.append([text(row.get(c.key), c) for c in shown])
    widths = [max(len(line[n]) for line in lines) for n in range(len(shown))]
    out = []
    for n, line in enumerate(lines):
        words = [
            t.ljust(w) if c.digits is None else t.rjust(w)
            for t, w, c in zip(line, widths, shown, strict=True)
        ]
        reason = found[n - 1]["reason"] if n else ""
        out.append("  ".join([*words, *([f"failed: {reason}"] if reason else [])]).rstrip())
    return "\n".join(out)


def save(made: Comparison, out: Path) -> dict[str, str]:
    """Write compare.html, compare.png, results.csv and results.json; where they are.

    Raises:
        OutputError: one cannot be written.
    """
    from .page import page
    from .sheet import sheet

    found = made.rows()
    data = {
        "settings": made.settings,
        "perceptual": {"name": made.perceptual.name, "note": made.perceptual.note},
        "rows": found,
    }
    write_text(out / "results.csv", as_csv(found, made.perceptual.name))
    write_json(out / "results.json", data)
    save_png(sheet(made, found), out / "compare.png", {"command": {"verb": "compare"}})
    write_text(out / "compare.html", page(made, found))
    return {name: str(out / name) for name in NAMES}
