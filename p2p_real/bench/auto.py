"""Auto-edit against the truth: instructions in plain words on held-out scenes of every kind.

Each edit of the tabletop benchmark is asked for as a person would (`instructions`); the photo goes
through `p2p-real auto`, which knows nothing of the truth, and the readers of the benchmark say what
its picture shows. So its own verdict is judged too: how many of those that it gave up are truly
undone, and how many that it calls done are not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from captioning.instructions import parse_instruction
from inversion.sampling import Progress, quiet

from .. import defaults
from ..auto.asked import Asked
from ..auto.results import COULD_NOT, DONE, ENDS, RETRIED, SKIPPED, AutoResult
from ..auto.running import pipeline
from ..auto.settings import BATCH, Settings
from ..captions import captioner_for
from ..files import check_output_folder, write_json, write_text
from ..measure import versions
from ..metrics import perceptual, pixels, psnr_where
from ..pictures import grid, save_png
from ..tabletop.reader import load_reader
from .tabletop.figures import Ruler
from .tabletop.instructions import instruction_of
from .tabletop.reading import Readers
from .tabletop.running import load_tabletop
from .tabletop.summary import interval
from .tabletop.truths import SEED, TabletopError, TruthEdit, truth_set

if TYPE_CHECKING:
    from ..editor import Editor

LIMIT = 100
EACH = 3  # rows of the sheet of each kind, at most
NAMES = ("results.csv", "table.md", "summary.json", "manifest.json", "sheet.png")

Row = dict[str, Any]


def judged(result: AutoResult, truth: TruthEdit, readers: Readers, ruler: Ruler) -> Row:
    """One edit as a row: what auto says of it, and what the readers say.

    Args:
        result: of auto.
        truth: the edit.
        readers, ruler: of the benchmark.
    """
    report = result.report
    tries = report["tries"]
    row: Row = {
        "id": truth.id,
        "kind": truth.kind,
        "instruction": report["instruction"],
        "end": report["end"],
        **{name: report["end"] == end for name, end in _ENDED.items()},
        "retried": len(tries) > 1,
        "kept_try": report.get("kept"),
        "asked": False,
        "kept": False,
        "right": False,
        "first_right": False,
        **dict.fromkeys(("saved", "lost", "needless", "false_alarm", "missed"), False),
        "caption_right": report.get("caption") == truth.pair.source_caption,
        "source": report.get("caption"),
        "target": report.get("understood", {}).get("target"),
        "truth": truth.pair.target_caption,
        "said": "",
        "why": report["why"],
    }
    for number, one in enumerate(tries, 1):
        row[f"failed_{number}"] = "+".join(one["check"]["failed"])
        for name in ("acted", "kept", "said"):
            row[f"{name}_{number}"] = one["check"][name]["value"]
    if result.image is None:
        return row
    reading = readers.read(result.image, truth)
    right = reading.asked and reading.kept
    row |= {"asked": reading.asked, "kept": reading.kept, "right": right, "said": reading.said}
    row |= ruler.measure(result.image, truth)
    near = psnr_where(result.image, truth.truth, truth.changed)
    far = psnr_where(result.image, truth.photo, truth.changed)
    row["nearer"] = near is not None and far is not None and near > far
    row["reconstruction_psnr"] = report["reconstruction_psnr"]
    row["seconds"] = report["seconds"]
    row["unet_rows"] = sum(one.get("unet_rows", 0) for one in tries)
    first = result.image if report["kept"] == 1 else result.other
    if first is not None:
        again = reading if report["kept"] == 1 else readers.read(first, truth)
        row["first_right"] = again.asked and again.kept
    row["saved"] = row["retried"] and right and not row["first_right"]
    row["lost"] = row["retried"] and row["first_right"] and not right
    row["needless"] = row["retried"] and row["first_right"]
    row["false_alarm"] = report["end"] == COULD_NOT and right
    row["missed"] = report["end"] in (DONE, RETRIED) and not right
    return row


_ENDED = {"done": DONE, "done_again": RETRIED, "could_not": COULD_NOT, "skipped": SKIPPED}
_FIGURES = (
    *_ENDED,
    *("retried", "saved", "lost", "needless", "false_alarm", "missed"),
    *("asked", "kept", "right", "first_right", "nearer", "caption_right"),
    *("psnr_inside", "psnr_outside", "reconstruction_psnr", "seconds", "unet_rows"),
)


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Figures of all edits and by kind: mean with its 95 % interval, and counts.

    A figure that some rows lack (no picture) is the mean over those that have it; a verdict that
    they lack is no.
    """
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(row["kind"], []).append(row)
    found: dict[str, dict[str, Any]] = {}
    for name, group in groups.items():
        figures: dict[str, Any] = {"count": len(group)}
        figures["ends"] = {end: sum(r["end"] == end for r in group) for end in ENDS}
        for key in _FIGURES:
            verdict = any(isinstance(r.get(key), bool) for r in rows)
            values = [r.get(key, False) if verdict else r.get(key) for r in group]
            numbers = [float(v) for v in values if v is not None]
            if numbers:
                figures[key] = interval(numbers)
                if verdict:
                    figures[f"{key}_count"] = int(sum(numbers))
        found[name] = figures
    return found


def table(summary: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    whole = summary["all"]
    kinds = [*(k for k in summary if k != "all"), "all"]
    lines = [
        "# Edits asked for in plain words",
        "",
        f"{whole['count']} edits of held-out scenes (seed {settings['seed']}), {settings['steps']} "
        "steps; each asked for in words by `p2p-real auto`, which sees the photo alone. *Right*: "
        "the readers see the change as asked and everything else as before; *first try*: the same "
        "of the first try alone. Decibels are PSNR to the rendered truth outside and inside the "
        "region that truly changes; *nearer*: there nearer to the truth than to the photo. In "
        "brackets 95 % intervals, bootstrap over scenes.",
        "",
        "| kind | edits | right | as asked | first try right | dB outside | dB inside | nearer |",
        "|---|" + "---:|" * 7,
    ]
    for kind in kinds:
        f = summary[kind]
        cells = [
            kind,
            str(f["count"]),
            _figure(f, "right", 2, True),
            _figure(f, "asked", 2),
            _figure(f, "first_right", 2, True),
            _figure(f, "psnr_outside", 1, True),
            _figure(f, "psnr_inside", 1),
            _figure(f, "nearer", 2),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    heads = ["kind", *ENDS, "tried again", "saved by it", "lost by it", "needless"]
    heads += ["could not, though right", "done, though not right"]
    lines += ["", "## How they ended", "", "| " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---:|" * (len(heads) - 1))
    keys = ("retried", "saved", "lost", "needless", "false_alarm", "missed")
    for kind in kinds:
        f = summary[kind]
        counts = [*f["ends"].values(), *(f.get(f"{key}_count", 0) for key in keys)]
        lines.append("| " + " | ".join([kind, *map(str, counts)]) + " |")
    gave_up = whole["ends"][COULD_NOT]
    lines += [
        "",
        f'Of {gave_up} that ended in "could not", {gave_up - whole["false_alarm_count"]} are truly '
        f"not right; of {whole['done_count'] + whole['done_again_count']} called done, "
        f"{whole['missed_count']} are not right. The photo's caption was exact in "
        f"{_figure(whole, 'caption_right', 2)}. Where an object comes or goes, the reader of the "
        "benchmark is the captioner that auto checks itself by, so there the two cannot disagree "
        "about the object; *nearer* is the judgement that shares nothing with it. "
        f"Of the rendered truth itself {_figure(settings, 'truth_right', 3)} is read right.",
        "",
        f"{_figure(whole, 'seconds', 1)} s and {_figure(whole, 'unet_rows', 0)} UNet rows of edits "
        f"a photo (the rows without the inversion's); {settings['device']}, {settings['dtype']}.",
    ]
    return "\n".join(lines) + "\n"


def _figure(figures: Mapping[str, Any], key: str, digits: int, brackets: bool = False) -> str:
    if key not in figures:
        return ""
    mean, low, high = figures[key]
    text = f"{mean:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if brackets else text


def as_csv(rows: Sequence[Row]) -> str:
    """One line an edit; empty where a figure does not exist."""
    stream = io.StringIO()
    keys = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(stream, list(keys), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def sheet(shown: Sequence[tuple[Row, TruthEdit, AutoResult]]) -> Image.Image:
    """Photo, reconstruction, the edit, the try that was not kept, and the truth."""
    pictures: list[list[Image.Image | None]] = []
    labels, names = [], []
    for row, truth, result in shown:
        edit = None if result.image is None else Image.fromarray(pixels(result.image))
        pictures.append([truth.photo, result.reconstruction, edit, result.other, truth.truth])
        verdict = "right" if row["right"] else "not right"
        said = (
            f"{row['end']}; read: {row['said']}" if row["said"] else f"{row['end']}: {row['why']}"
        )
        labels.append([str(row["source"] or ""), "", said, "", truth.pair.target_caption])
        names.append(f"{row['id']}\n{row['instruction']}\n{verdict}")
    return grid(pictures, names, ["photo", "reconstruction", "kept", "not kept", "truth"], labels)


def _shown(rows: Sequence[Row]) -> list[str]:
    """Which edits the sheet shows: of each kind first those that went wrong or were tried again."""
    found: list[str] = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        mine.sort(key=lambda row: (row["right"], not row["retried"]))
        found += [row["id"] for row in mine[:EACH]]
    return found


def _right(readers: Readers, truth: TruthEdit) -> float:
    reading = readers.read(truth.truth, truth)
    return float(reading.asked and reading.kept)


def run(
    out: str | Path,
    *,
    kinds: str | Iterable[str] | None = None,
    limit: int = LIMIT,
    seed: int = SEED,
    steps: int = defaults.STEPS,
    method: str | None = None,
    guidance_scale: float | None = None,
    batch: int = BATCH,
    load: Callable[[], Editor] = load_tabletop,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Edit held-out scenes by instructions, and write how many were done.

    Finished photos are kept under ``out/cells``: a run that was stopped goes on there.

    Args:
        out: folder for results.csv, table.md, summary.json, manifest.json and sheet.png.
        kinds: as :func:`p2p_real.bench.tabletop.truth_set` takes them.
        limit: edits in all, of the kinds in turns.
        seed: of the held-out scenes.
        steps, method, guidance_scale, batch: as :func:`p2p_real.auto.auto` takes them.
        load: makes the editor.
        progress: called through all work.

    Returns:
        ``manifest``, ``summary``, ``rows`` and ``files``.

    Raises:
        TabletopError: a number below 1, or an unknown kind.
        OutputError: `out` cannot be written.
    """
    if limit < 1:
        raise TabletopError(f"--limit {limit}: give a whole number of 1 or more")
    truths = truth_set(kinds, per_kind=limit, seed=seed, limit=limit)
    settings = Settings(method=method, steps=steps, guidance_scale=guidance_scale, batch=batch)
    settings.check()
    folder = check_output_folder(out)
    editor = load()
    backbone = editor.backbone
    readers = Readers(
        load_reader(device=backbone.device),
        captioner_for("blip", "tabletop", str(backbone.device)).caption,
    )
    ruler = Ruler(perceptual(), readers.reader)
    rows: list[Row] = []
    results: dict[str, AutoResult] = {}
    asked = [
        Asked(truth.photo, truth.id, text, parse_instruction(text))
        for truth, text in ((truth, instruction_of(truth)) for truth in truths)
    ]
    line = pipeline(editor, settings, out=folder, progress=progress)
    for truth, result in zip(truths, line.each(asked), strict=True):
        rows.append(judged(result, truth, readers, ruler))
        results[truth.id] = result
    shown = set(_shown(rows))
    by_id = {truth.id: truth for truth in truths}
    manifest = {
        "benchmark": "auto",
        "edits": len(truths),
        "kinds": sorted({truth.kind for truth in truths}),
        "seed": seed,
        "steps": steps,
        "method": method,
        "guidance_scale": guidance_scale,
        "truth_right": interval([_right(readers, truth) for truth in truths]),
        "model": backbone.name,
        "model_hash": backbone.weights_hash,
        "dtype": str(backbone.dtype),
        "device": backbone.device.type,
        "perceptual": ruler.perceptual.note,
        "versions": versions(),
    }
    summary = summarise(rows)
    write_text(folder / "results.csv", as_csv(rows))
    write_text(folder / "table.md", table(summary, manifest))
    write_json(folder / "summary.json", summary)
    write_json(folder / "manifest.json", manifest)
    picked = [(row, by_id[row["id"]], results[row["id"]]) for row in rows if row["id"] in shown]
    save_png(sheet(picked), folder / "sheet.png", {"command": {"verb": "bench", "what": "auto"}})
    files = {name: str(folder / name) for name in NAMES}
    return {"manifest": manifest, "summary": summary, "rows": rows, "files": files}
