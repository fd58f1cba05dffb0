"""An edit's files and what is said of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files import OutputError, plain, write_json
from ..numbers import OptionError
from ..pictures import save_png
from ..result import EditResult
from ..sweeping import Swept

OWN = ("target", "mask_coverage", "token_alignment", "max_latent_change")  # of each target
COSTS = ("seconds", "unet_rows", "peak_memory_bytes")
NAMES = ("edited.png", "reconstruction.png", "source.png", "strip.png", "mask.png", "report.json")


def keep_inputs(folder: Path, *inputs: str | None, names: Sequence[str] = NAMES) -> None:
    """Refuse an output folder where a result (of these names) would replace what was given.

    Raises:
        OptionError: names the file.
    """
    ours = {(folder / name).resolve() for name in names}
    for given in inputs:
        if given and Path(given).resolve() in ours:
            raise OptionError(f"{given} would be overwritten by the result: give another --out")


@contextlib.contextmanager
def together(folder: Path) -> Iterator[Path]:
    """A hidden folder to write to, whose files go into ``folder`` all at once at the end.

    Where one cannot be written, none of them appears, and what stood there before stays.

    Raises:
        OutputError: names the file as it would have been called.
    """
    hidden = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        hidden.mkdir()
        yield hidden
        for file in sorted(hidden.iterdir()):
            os.replace(file, folder / file.name)
    except (OutputError, OSError) as error:
        text = str(error).replace(str(hidden), str(folder))
        raise OutputError(text) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def save(
    result: EditResult, folder: Path, command: dict[str, Any], *, generated: bool = False
) -> dict[str, Any]:
    """Write the pictures and ``report.json``, all or none; the report with the files' names.

    Args:
        result: of an edit.
        folder: an output folder that exists.
        command: what repeats this run, kept in the PNGs' metadata.
        generated: name the starting picture ``source.png``.
    """
    settings = {"command": command, "report": _short(result.report)}
    first = "source" if generated else "reconstruction"
    pictures = {"edited": result.image, first: result.reconstruction, "strip": result.strip()}
    if result.mask is not None:
        pictures["mask"] = result.mask
    report = dict(plain(result.report))
    report["files"] = {name: str(folder / f"{name}.png") for name in pictures}
    report["others"] = []
    for n, other in enumerate(result.others, 2):
        mine = {f"edited_{n}": other.image}
        mine |= {} if other.mask is None else {f"mask_{n}": other.mask}
        files = {name: str(folder / f"{name}.png") for name in mine}
        facts = {key: other.report[key] for key in OWN}
        report["others"].append({**dict(plain(facts)), "files": files})
        pictures |= mine
    report["command"] = command
    with together(folder) as place:
        for name, picture in pictures.items():
            save_png(picture, place / f"{name}.png", settings)
        write_json(place / "report.json", report)
    return report


def save_sweep(swept: Swept, folder: Path, command: dict[str, Any]) -> dict[str, Any]:
    """Write ``sweep.png``, a picture a value, and ``report.json``, all or none; the report.

    Raises:
        NothingActed: not one value changed the picture.
    """
    sheet, rows = swept.sheet(), []
    with together(folder) as place:
        for value, result, reason in zip(
            swept.over.values, swept.results, swept.reasons, strict=True
        ):
            row: dict[str, Any] = {"value": value, "file": None, "reason": reason}
            if result is not None:
                name = f"{swept.over.name}_{value:g}.png"
                settings = {"command": command, "report": _short(result.report)}
                save_png(result.image, place / name, settings)
                report = dict(plain(result.report))
                row |= {"file": str(folder / name)} | {k: report[k] for k in (*OWN, *COSTS)}
            rows.append(row)
        save_png(sheet, place / "sweep.png", {"command": command})
        made = next(r for r in swept.results if r is not None)
        shared = {k: v for k, v in dict(plain(made.report)).items() if k not in (*OWN, *COSTS)}
        report = {
            **shared,
            "target": made.report["target"],
            "sweep": swept.over.name,
            "rows": rows,
            "files": {"sweep": str(folder / "sweep.png")},
            "command": command,
        }
        write_json(place / "report.json", report)
    return report


def describe_sweep(report: dict[str, Any]) -> str:
    """A line a value."""
    lines = [f"source  {report['source']}", f"target  {report['target']}"]
    for row in report["rows"]:
        said = row["reason"] or f"{row['unet_rows']} UNet rows, {row['file']}"
        lines.append(f"  {report['sweep']} {row['value']:<8g}{said}")
    return "\n".join([*lines, f"sheet   {report['files']['sweep']}"])


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


def decibel(psnr: float | None) -> str:
    """A PSNR for people; None is that of equal pictures."""
    return "every pixel" if psnr is None else f"{psnr:.1f} dB"


def describe(report: dict[str, Any]) -> str:
    """A few lines about an edit."""
    lines = [f"source  {report.get('source')}", f"target  {report.get('target')}"]
    if report.get("direction"):
        lines.append(f"        + the direction {report['direction']['name']}")
    if report.get("controls"):
        lines.append(acted_table(report))
    if "reconstruction_psnr" in report:
        reached, possible = report["reconstruction_psnr"], report.get("ceiling_psnr")
        lines.append(f"reconstruction {decibel(reached)} of {decibel(possible)} possible")
    lines.append(f"{report['seconds']:.1f} s, {report['unet_rows']} UNet rows")
    lines += [f"{name:<15} {path}" for name, path in report["files"].items()]
    for other in report.get("others", ()):
        lines.append(f"also    {other['target']}")
        lines += [f"{name:<15} {path}" for name, path in other["files"].items()]
    return "\n".join(lines)
