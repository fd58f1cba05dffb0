"""Attend-and-Excite before and after: prompts that name two objects, drawn without it and with it.

The prompts are captions of held-out scenes of the embedded world. One walk draws both pictures
from one seed, and a captioner, trained on other scenes, reads what each shows.

Paper: Attend-and-Excite (arXiv 2301.13826), section 4.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from inversion.sampling import Progress, quiet

from .. import defaults
from ..captions import captioner_for
from ..compare.cells import Cell, Cells
from ..files import check_output_folder, write_json, write_text
from ..measure import versions
from ..pictures import grid, save_png
from ..tabletop import CAPTIONER
from ..tabletop.render import render
from ..tabletop.scene import Record, caption, parse_caption
from .tabletop.running import load_tabletop
from .tabletop.summary import interval
from .tabletop.truths import SEED, TabletopError, two_object_scenes
from .tabletop.ways import read_scales

if TYPE_CHECKING:
    from ..editor import Editor

LIMIT = 30
SHOWN = 12  # rows of the sheet
WITHOUT, WITH, TRUTH = "without", "with", "truth"
FIGURES = {  # of a picture, and how the table calls them
    "right": "both objects right",
    "shapes": "both shapes",
    "two": "two objects",
    "scene": "ground and light",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """What is read of a picture, held to what its prompt says.

    Args:
        said: the picture in words.
        two: it shows two objects.
        shapes: they have the shapes that were asked for, in whatever order.
        right: and each its colour and material.
        scene: ground and light are those that were asked for.
    """

    said: str
    two: bool
    shapes: bool
    right: bool
    scene: bool

    @classmethod
    def of(cls, said: str, record: Record) -> Read:
        """Hold a picture's caption to a scene."""
        try:
            seen = parse_caption(said)
        except ValueError:
            return cls(said, False, False, False, False)
        return cls(
            said,
            two=len(seen["objects"]) == 2,
            shapes=_count(seen, _SHAPE) == _count(record, _SHAPE),
            right=_count(seen, _WHOLE) == _count(record, _WHOLE),
            scene=all(seen[name] == record[name] for name in ("ground", "light")),
        )


_SHAPE, _WHOLE = ("shape",), ("shape", "color", "material")


def _count(record: Record, parts: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(thing[part] for part in parts) for thing in record["objects"])


def excited_words(record: Record) -> list[str]:
    """The nouns of both objects; a noun that stands twice is excited at both places."""
    return list(dict.fromkeys(thing["shape"] for thing in record["objects"]))


@dataclass
class Bench:
    """Draws pairs; a pair that is drawn is kept in the output folder.

    Args:
        editor: the models.
        cells: where pairs are kept.
        steps: sampling steps.
    """

    editor: Editor
    cells: Cells
    steps: int = defaults.STEPS

    def __post_init__(self) -> None:
        backbone = self.editor.backbone
        self.captioner = captioner_for("blip", "tabletop", str(backbone.device))
        self.shared = {
            "model": backbone.name,
            "model_hash": backbone.weights_hash,
            "steps": self.steps,
            "preset": defaults.preset(backbone.name),
            "dtype": str(backbone.dtype),
            "device": backbone.device.type,
            "readers": [_digest(path) for path in sorted(CAPTIONER.glob("*.safetensors"))],
            "versions": versions(),
        }

    def row(self, seed: int, record: Record, guidance_scale: float) -> tuple[Row, Cell]:
        """A pair of pictures: what is read of each, and what both cost.

        Args:
            seed: they are drawn from it.
            record: the scene that their prompt describes.
            guidance_scale: of both.
        """
        how: dict[str, Any] = {"seed": seed, "guidance_scale": guidance_scale}
        made_of = {"what": "excite", **self.shared, **how, "record": record}
        title = f"excite-{seed:03d}-{guidance_scale:g}"
        found = self.cells.get(made_of, title)
        if found is None:
            found = self.cells.put(made_of, title, *self._draw(record, **how))
        said = {"prompt": caption(record), "words": " ".join(excited_words(record))}
        return {**how, **said, **found.facts}, found

    def _draw(
        self, record: Record, seed: int, guidance_scale: float
    ) -> tuple[dict[str, Any], dict[str, Image.Image]]:
        result = self.editor.generate(
            caption(record),
            excite=excited_words(record),
            steps=self.steps,
            seed=seed,
            guidance_scale=guidance_scale,
        )
        pictures = {WITHOUT: result.source, WITH: result.image}
        true = Image.fromarray(render([record], result.image.width)[0].numpy())
        facts: dict[str, Any] = {}
        for name, picture in {**pictures, TRUTH: true}.items():
            read = Read.of(str(self.captioner.caption([picture])[0]), record)
            facts |= {f"{name}_{key}": getattr(read, key) for key in ("said", *FIGURES)}
        (acted,) = (c for c in result.report["controls"] if "excited" in c)
        (log,) = acted["excited"]
        facts |= {"moves": log["updates"], "refinements": log["refinements"]}
        facts |= {key: result.report[key] for key in ("seconds", "unet_rows")}
        return facts, pictures


def run(
    out: str | Path,
    *,
    limit: int = LIMIT,
    seed: int = SEED,
    guidance: str | Iterable[float] | None = None,
    steps: int = defaults.STEPS,
    load: Callable[[], Editor] = load_tabletop,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Draw held-out prompts with two objects without and with both excited, and read them.

    Pairs that are drawn are kept under ``out/cells``: a run that was stopped goes on there.

    Args:
        out: folder for results.csv, table.md, summary.json, manifest.json and sheet.png.
        limit: prompts; each has a seed of its own, the same for both pictures.
        seed: of the held-out scenes.
        guidance: numbers, or text such as ``"1.5,3"``; None is what suits the model.
        steps: sampling steps.
        load: makes the editor.
        progress: called before each pair.

    Returns:
        ``manifest``, ``summary``, ``rows`` and ``files``.

    Raises:
        TabletopError, OptionError: no number of prompts, or no guidance.
        OutputError: `out` cannot be written.
    """
    if limit < 1:
        raise TabletopError(f"--limit {limit}: give a whole number of 1 or more")
    defaults.check_numbers(steps=steps, seed=seed)
    scales = read_scales(guidance, "--guidance")
    folder = check_output_folder(out)
    bench = Bench(load(), Cells(folder), steps)
    asked = [defaults.guidance(bench.editor.backbone, scale) for scale in scales]
    rows: list[Row] = []
    cells: list[Cell] = []
    for scale in asked:
        for number, record in enumerate(two_object_scenes(limit, seed=seed)):
            progress("pairs", len(rows), limit * len(asked), caption(record))
            row, cell = bench.row(number, record, scale)
            rows.append(row)
            cells.append(cell)
    summary = {
        f"{scale:g}": summarise([row for row in rows if row["guidance_scale"] == scale])
        for scale in asked
    }
    manifest = {"benchmark": "excite", "prompts": limit, "seed": seed, **bench.shared}
    write_text(folder / "results.csv", _csv(rows))
    write_text(folder / "table.md", table(summary, manifest))
    write_json(folder / "summary.json", summary)
    write_json(folder / "manifest.json", manifest)
    save_png(sheet(rows, cells), folder / "sheet.png", {"command": {"verb": "bench"}})
    names = ("results.csv", "table.md", "summary.json", "manifest.json", "sheet.png")
    files = {name: str(folder / name) for name in names}
    return {"manifest": manifest, "summary": summary, "rows": rows, "files": files}


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares with 95 % intervals without, with and of the rendered truth; what changed; cost."""
    found: dict[str, Any] = {"count": len(rows)}
    for name in (WITHOUT, WITH, TRUTH):
        found[name] = {key: interval([float(r[f"{name}_{key}"]) for r in rows]) for key in FIGURES}
    gains = {key: [r[f"{WITH}_{key}"] - r[f"{WITHOUT}_{key}"] for r in rows] for key in FIGURES}
    found["gain"] = {key: interval(values) for key, values in gains.items()}
    for name, sign in (("mended", 1), ("spoiled", -1)):
        found[name] = {key: values.count(sign) for key, values in gains.items()}
    for key in ("moves", "refinements", "unet_rows", "seconds"):
        found[key] = interval([r[key] for r in rows])
    return found


def table(summary: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """The summary, by guidance, as Markdown."""
    lines = [
        "# Two objects in a prompt, without and with Attend-and-Excite",
        "",
        f"{settings['prompts']} captions of held-out scenes (seed {settings['seed']}), "
        f"{settings['steps']} steps; each pair of pictures from one seed, *with*: the nouns of "
        "both objects excited. Shares of pictures as the captioner reads them; in brackets 95 % "
        "intervals, bootstrap over prompts. *Mended*: not without, but with; *spoiled*: the other "
        "way round.",
        "",
        "| " + " | ".join(["guidance", "pictures", *FIGURES.values()]) + " |",
        "|---|---|" + "---:|" * len(FIGURES),
    ]
    for scale, found in summary.items():
        for name in (WITHOUT, WITH, "gain", "mended", "spoiled"):
            lines.append("| " + " | ".join([scale, name, *_cells(found[name])]) + " |")
    first = next(iter(summary.values()))
    lines += ["| " + " | ".join(["", "rendered truth", *_cells(first[TRUTH])]) + " |", ""]
    for scale, found in summary.items():
        moves, rows, seconds = (found[key][0] for key in ("moves", "unet_rows", "seconds"))
        lines.append(
            f"- guidance {scale}: a pair took {moves:.0f} moves of the latents, {rows:.0f} UNet "
            f"rows and {seconds:.1f} seconds"
        )
    return "\n".join(lines) + "\n"


def _cells(figures: Mapping[str, Any]) -> list[str]:
    found = [figures[key] for key in FIGURES]
    return [str(f) if isinstance(f, int) else f"{f[0]:.2f} [{f[1]:.2f}, {f[2]:.2f}]" for f in found]


def sheet(rows: Sequence[Row], cells: Sequence[Cell]) -> Image.Image:
    """Pairs side by side with what was read: those that differ first."""

    def first(pair: tuple[Row, Cell]) -> tuple[bool, bool]:
        row = pair[0]
        return row[f"{WITH}_right"] == row[f"{WITHOUT}_right"], row[f"{WITH}_right"]

    chosen = sorted(zip(rows, cells, strict=True), key=first)[:SHOWN]
    return grid(
        [[cell.pictures[WITHOUT], cell.pictures[WITH]] for _, cell in chosen],
        [f"{row['prompt']}\nguidance {row['guidance_scale']:g}" for row, _ in chosen],
        ["without", "both objects excited"],
        [[_verdict(row, WITHOUT), _verdict(row, WITH)] for row, _ in chosen],
    )


def _verdict(row: Row, name: str) -> str:
    return f"{'right' if row[f'{name}_right'] else 'wrong'}: {row[f'{name}_said']}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _csv(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
