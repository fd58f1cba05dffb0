"""The files of a run: results.csv, table.md, summary.json, manifest.json, plot.png, sheet.png."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import write_json, write_text
from ...pictures import save_png
from .plot import plot
from .sheet import sheet
from .summary import best_bound, in_order, mark_nearer, summarise
from .truths import TruthEdit
from .ways import CEILING, TRUTH, UNTOUCHED, Row, Way

NAMES = ("results.csv", "table.md", "summary.json", "manifest.json", "plot.png", "sheet.png")
_FEW = 4  # ways of which each gets its own table by kind; of more, only the best does
_FIRST = ("id", "kind", "way", "method", "edit", "status", "asked", "kept", "right", "nearer")
_LAST = ("said", "by", "source", "target", "reason")


def save(
    folder: Path,
    truths: Sequence[TruthEdit],
    rows: list[Row],
    ways: Sequence[Way],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Write the six files; what was found.

    Raises:
        OutputError: one cannot be written.
    """
    plain = best_bound(rows, ways)
    mark_nearer(rows, plain)
    summary = summarise(rows)
    settings = {**settings, "plain": plain}
    machine = {"system": platform.system(), "processor": platform.machine()}
    manifest = {**settings, "machine": machine}
    write_text(folder / "results.csv", as_csv(rows))
    write_text(folder / "table.md", table(summary, settings))
    write_json(folder / "summary.json", summary)
    write_json(folder / "manifest.json", manifest)
    command = {"command": {"verb": "bench", "what": "tabletop"}}
    save_png(plot(summary), folder / "plot.png", command)
    save_png(sheet(folder, truths, rows, ways[0].label, plain), folder / "sheet.png", command)
    files = {name: str(folder / name) for name in NAMES}
    return {"manifest": manifest, "summary": summary, "rows": rows, "files": files}


def as_csv(rows: Sequence[Row]) -> str:
    """One line an edit and way; empty where a figure does not exist."""
    keys = dict.fromkeys(k for row in rows for k in row)
    middle = [k for k in keys if k not in (*_FIRST, *_LAST, "files")]
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, [*_FIRST, *middle, *_LAST], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def table(summary: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    ways = in_order(summary)
    kinds = [name for name in summary[TRUTH] if name != "all"]
    lines = [
        "# Edits of the embedded world against their truth",
        "",
        f"{settings['edits']} edits of held-out scenes ({', '.join(kinds)}; seed "
        f"{settings['seed']}), {settings['steps']} steps. *As asked*: the change is read off the "
        "edited picture as it was asked for; *kept*: everything else is read as before; *right*: "
        "both; ways are ordered by it. Decibels are PSNR to the rendered truth inside and outside "
        "the region that truly changes; *nearer*: share nearer to the truth than "
        f"{_bound(settings)}. In brackets 95 % intervals, bootstrap over scenes.",
        "",
        *_over_ways(summary, ways),
        "",
        _reader_note(summary),
        "",
        *_matrix(summary, ways, kinds),
    ]
    for way in ways if len(ways) <= _FEW else ways[:1]:
        lines += ["", f"## {way}", "", *_by_kind(summary, way, kinds)]
    failed = [(way, summary[way]["all"]["failed"]) for way in ways]
    lines += ["", *(f"- {way}: {n} edits failed" for way, n in failed if n)]
    if any(way.get("direction") for way in settings["ways"].values()):
        lines.append("- a direction is made once for its words; that is not in an edit's seconds")
    lines += [
        f"- {settings['perceptual']}",
        f"- {settings['device']}, {settings['dtype']}, {settings['threads']} threads, "
        f"{settings['processes']} processes, {settings['batch']} photos inverted together",
    ]
    return "\n".join(lines).rstrip() + "\n"


def _bound(settings: Mapping[str, Any]) -> str:
    return f"`{settings['plain']}`" if settings["plain"] else "plain regeneration (which failed)"


def _over_ways(summary: Mapping[str, Any], ways: Sequence[str]) -> list[str]:
    """One line a way, all edits."""
    heads = (
        *("inversion, edit", "right", "as asked", "kept", "dB inside", "dB outside", "nearer"),
        *("reconstruction dB", "below ceiling", "seconds", "processor seconds"),
        *("UNet rows", "peak MB"),
    )
    lines = _header(heads)
    for way in (CEILING, *ways, UNTOUCHED):
        f = summary[way]["all"]
        cells = [
            way,
            _figure(f, "right", 2, True),
            *(_figure(f, key, 2) for key in ("asked", "kept")),
            *(_figure(f, key, 1, True) for key in ("psnr_inside", "psnr_outside")),
            _figure(f, "nearer", 2),
            _figure(f, "reconstruction_psnr", 1),
            _figure(f, "below_ceiling", 2),
            _figure(f, "seconds", 1),
            _figure(f, "cpu_seconds", 1),
            _figure(f, "unet_rows", 0),
            _figure(f, "peak_memory_bytes", 0, scale=1e-6),
        ]
        lines.append(_line(cells))
    return lines


def _matrix(summary: Mapping[str, Any], ways: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Share of edits done right, ways down and kinds across."""
    lines = ["## Right, by kind", "", *_header(("inversion, edit", *kinds))]
    lines += [
        _line([way, *(_figure(summary[way][kind], "right", 2) for kind in kinds)])
        for way in (TRUTH, CEILING, *ways)
    ]
    return lines


def _by_kind(summary: Mapping[str, Any], way: str, kinds: Sequence[str]) -> list[str]:
    """One way, kind by kind."""
    perceptual = [k for k in ("lpips", "gmsd") if k in summary[way]["all"]]
    heads = ["kind", "edits", "as asked", "kept", "right", "dB inside", "dB outside", "nearer"]
    keys = [*(f"ssim_{w}" for w in ("inside", "outside"))]
    keys += [f"{p}_{w}" for p in perceptual for w in ("inside", "outside")]
    keys = [key for key in keys if key in summary[way]["all"]]
    more = [*keys, *(key for key in ("structure", "mask_iou") if key in summary[way]["all"])]
    titles = [" ".join([key.split("_")[0].upper(), *key.split("_")[1:]]) for key in keys]
    titles += [key.replace("_", " ") for key in more[len(keys) :]]
    lines = _header([*heads, *titles])
    for kind in [*kinds, "all"]:
        f = summary[way][kind]
        cells = [
            kind,
            str(f["count"]),
            *(_figure(f, key, 2, True) for key in ("asked", "kept", "right")),
            *(_figure(f, key, 1, True) for key in ("psnr_inside", "psnr_outside")),
            _figure(f, "nearer", 2),
            *(_figure(f, key, 4 if key == "structure" else 3) for key in more),
        ]
        lines.append(_line(cells))
    return lines


def _reader_note(summary: Mapping[str, Any]) -> str:
    truth, back = summary[TRUTH]["all"], summary[CEILING]["all"]
    return (
        f"Upper bounds: of the rendered truth itself {_figure(truth, 'right', 3)} is read right "
        f"(as asked {_figure(truth, 'asked', 3)}, kept {_figure(truth, 'kept', 3)}; the rest is "
        f"the readers' own error), of the truth through the autoencoder "
        f"{_figure(back, 'right', 3)}. *{UNTOUCHED}* is the photo as it is."
    )


def _figure(
    figures: Mapping[str, Any], key: str, digits: int, brackets: bool = False, scale: float = 1.0
) -> str:
    if key not in figures:
        return ""
    mean, low, high = (value * scale for value in figures[key])
    text = f"{mean:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if brackets else text


def _header(heads: Sequence[str]) -> list[str]:
    return [_line(heads), "|---|" + "---:|" * (len(heads) - 1)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
