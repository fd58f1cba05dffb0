"""An edit's files and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import plain, write_json
from ..pictures import save_png
from ..result import EditResult


def save(
    result: EditResult, folder: Path, command: dict[str, Any], *, generated: bool = False
) -> dict[str, Any]:
    """Write the pictures and ``report.json``; the report with the files' names.

    Args:
        result: of an edit.
        folder: an output folder that exists.
        command: what repeats this run, kept in the PNGs' metadata.
        generated: name the starting picture ``source.png``.
    """
    settings = {"command": command, "report": _short(result.report)}
    files = {"edited": "edited.png", "reconstruction": "reconstruction.png", "strip": "strip.png"}
    if generated:
        files["source"] = files.pop("reconstruction")
        files["source"] = "source.png"
    save_png(result.image, folder / files["edited"], settings)
    other = "source" if generated else "reconstruction"
    save_png(result.reconstruction, folder / files[other], settings)
    save_png(result.strip(), folder / files["strip"], settings)
    if result.mask is not None:
        files["mask"] = "mask.png"
        save_png(result.mask, folder / files["mask"], settings)
    report = dict(plain(result.report))
    report["files"] = {k: str(folder / v) for k, v in files.items()}
    report["command"] = command
    write_json(folder / "report.json", report)
    return report


def _short(report: dict[str, Any]) -> dict[str, Any]:
    keys = ("model", "source", "target", "method", "guidance_scale", "steps", "seed", "versions")
    return {k: report[k] for k in keys if k in report}


def steps_text(steps: list[int]) -> str:
    """``0-39`` for a run of steps."""
    if not steps:
        return "-"
    whole = steps == list(range(steps[0], steps[-1] + 1))
    return f"{steps[0]}-{steps[-1]}" if whole else f"{len(steps)} of {steps[-1] + 1}"


def acted_table(report: dict[str, Any]) -> str:
    """What acted, as a table for people."""
    lines = [f"  {'control':<18}{'layers':>7}  {'steps':<9}notes"]
    for row in report.get("controls", ()):
        layers = sum(row["layers_hooked"].values())
        coverage = row.get("mask_coverage")
        note = f"mask covers {coverage[0]:.0%}" if coverage else ""
        steps = steps_text(row["steps_injected"])
        lines.append(f"  {row['control']:<18}{layers:>7}  {steps:<9}{note}".rstrip())
    changes = [
        f"{r['source'] or '(nothing)'} -> {r['target'] or '(nothing)'}"
        for r in report.get("token_alignment", ())
        if r["kind"] != "same"
    ]
    if changes:
        lines.append(f"  words: {'; '.join(changes)}")
    return "\n".join(lines)


def describe(report: dict[str, Any]) -> str:
    """A few lines about an edit."""
    lines = [f"source  {report.get('source')}", f"target  {report.get('target')}"]
    if report.get("controls"):
        lines.append(acted_table(report))
    if report.get("reconstruction_psnr") is not None:
        ceiling = report.get("ceiling_psnr")
        of = f" of {ceiling:.1f} dB possible" if ceiling else ""
        lines.append(f"reconstruction {report['reconstruction_psnr']:.1f} dB{of}")
    lines.append(f"{report['seconds']:.1f} s, {report['unet_rows']} UNet rows")
    lines += [f"{name:<15} {path}" for name, path in report["files"].items()]
    return "\n".join(lines)
