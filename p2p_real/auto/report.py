"""What auto leaves behind: pictures, a contact sheet, report.json, and a line of summary."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import plain, write_json
from ..pictures import SettingsError, grid, read_settings, save_png, strip
from . import asked
from .results import COULD_NOT, DONE, ENDS, SKIPPED, AutoResult

MOST = 100  # photos on a sheet
SINGLE = ("edited.png", "strip.png", "reconstruction.png", "mask.png", "other.png")
_TALL, _WIDE = 256, 384  # pictures of a sheet, at most


class Writer:
    """The files of a run, written photo by photo.

    Args:
        folder: an output folder that exists.
        command: what repeats the run, kept in the PNGs' metadata.
        single: one photo was asked for: its files are named as `p2p-real edit` names them.
    """

    def __init__(self, folder: Path, command: Mapping[str, Any], *, single: bool = False) -> None:
        self.folder, self.command, self.single = folder, command, single
        self.rows: list[dict[str, Any]] = []
        self._cells: list[list[Image.Image | None]] = []
        self._labels: list[list[str]] = []

    def add(self, result: AutoResult) -> dict[str, Any]:
        """Write a photo's pictures; its row of the report, with the files' names.

        Raises:
            OutputError: one cannot be written.
        """
        files = {}
        for name, (file, picture) in self._pictures(result).items():
            save_png(picture, self.folder / file, self._settings(result))
            files[name] = str(self.folder / file)
        written = {Path(file).name for file in files.values()}
        mine = set(SINGLE) if self.single else {file_of(result.label, end) for end in ENDS}
        for name in sorted(mine - written):
            _forget(self.folder / name)
        row = {**plain(result.report), "files": files}
        self.rows.append(row)
        if len(self._cells) < MOST:
            small = [None if p is None else _small(p) for p in (result.source, result.image)]
            self._cells.append(small)
            self._labels.append([row.get("caption") or row["label"], label_of(row)])
        return row

    def _pictures(self, result: AutoResult) -> dict[str, tuple[str, Image.Image]]:
        """File names and pictures of a result, by what they are."""
        if result.image is None:
            return {}
        if not self.single:
            return {"edited": (file_of(result.label, result.end), result.image)}
        found = {"edited": result.image, "strip": strip_of(result)}
        more = {"reconstruction": result.reconstruction, "mask": result.mask, "other": result.other}
        found |= {name: picture for name, picture in more.items() if picture is not None}
        return {name: (f"{name}.png", picture) for name, picture in found.items()}

    def _settings(self, result: AutoResult) -> dict[str, Any]:
        keys = ("label", "instruction", "caption", "end", "why")
        return {"command": dict(self.command), "report": {k: result.report.get(k) for k in keys}}

    def end(self) -> dict[str, Any]:
        """Write report.json and, of several photos, sheet.png; the report.

        Raises:
            OutputError: one cannot be written.
        """
        files = {"report": str(self.folder / "report.json")}
        if not self.single and any(p is not None for row in self._cells for p in row):
            save_png(self.sheet(), self.folder / "sheet.png", {"command": dict(self.command)})
            files["sheet"] = str(self.folder / "sheet.png")
        report = {
            "summary": summary(self.rows),
            "photos": self.rows,
            "command": dict(self.command),
            "files": files,
        }
        write_json(self.folder / "report.json", report)
        return report

    def sheet(self) -> Image.Image:
        """Before, after and a label, a row a photo; at most ``MOST`` of them."""
        names = [f"{row['label']}\n{row['end']}" for row in self.rows[: len(self._cells)]]
        return grid(self._cells, names, ["before", "after"], self._labels)


def file_of(label: str, end: str) -> str:
    """The name of an edited picture; one that could not be done says so."""
    return f"{label}{asked.COULD_NOT if end == COULD_NOT else ''}.png"


def names_of(labels: Sequence[str], *, single: bool) -> list[str]:
    """Every file that a run may write."""
    if single:
        return [*SINGLE, "report.json"]
    pictures = [file_of(label, end) for label in labels for end in (DONE, COULD_NOT)]
    return [*pictures, "sheet.png", "report.json"]


def keep_photos(folder: Path, given: Sequence[asked.Asked], *, single: bool) -> None:
    """Refuse an output folder where a result would replace a photo.

    Raises:
        AutoError: names the photo.
    """
    names = names_of([one.label for one in given], single=single)
    ours = {(folder / name).resolve() for name in names}
    for one in given:
        if isinstance(one.photo, Path) and one.photo.resolve() in ours:
            raise asked.AutoError(
                f"{one.photo} would be overwritten by the result: give another output folder"
            )


def _forget(file: Path) -> None:
    """Remove what an earlier run called another way; nothing that is not ours."""
    with contextlib.suppress(SettingsError, OSError):
        command = read_settings(file).get("command")
        if isinstance(command, dict) and command.get("verb") == "auto":
            file.unlink()


def strip_of(result: AutoResult) -> Image.Image:
    """Photo, reconstruction, the edit, and the other try where there was one."""
    report = result.report
    pictures = [result.source, result.reconstruction, result.image]
    labels = [f"photo: {report.get('caption') or ''}", "reconstruction", label_of(report)]
    if report.get("reconstruction_psnr") is not None:
        labels[1] += f" ({report['reconstruction_psnr']:.1f} dB)"
    if result.other is not None:
        pictures.append(result.other)
        labels.append(f"the try that was not kept ({2 if report['kept'] == 1 else 1})")
    shown = [(p, label) for p, label in zip(pictures, labels, strict=True) if p is not None]
    return strip([p for p, _ in shown], [label for _, label in shown])


def label_of(row: Mapping[str, Any]) -> str:
    """What a picture is called on a sheet."""
    text = f"{row['instruction']}: {row['end']}"
    return f"{text} ({row['why']})" if row["end"] in (COULD_NOT, SKIPPED) else text


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many ended how."""
    counts = Counter(row["end"] for row in rows)
    return {"photos": len(rows), **{end: counts[end] for end in ENDS}}


def line_of(found: Mapping[str, Any]) -> str:
    """The summary in one line."""
    count = found["photos"]
    ends = ", ".join(f"{found[end]} {end}" for end in ENDS if found[end])
    return f"{count} photo{'' if count == 1 else 's'}: {ends}"


def describe(report: Mapping[str, Any]) -> str:
    """A few lines a photo, and the summary."""
    rows = report["photos"]
    lines: list[str] = []
    for row in rows:
        lines.append(f"{row['label']}: {row['instruction']}: {row['end']}")
        if row["end"] == SKIPPED:
            lines.append(f"  {row['why']}")
            continue
        meaning = row["understood"]
        lines.append(f"  {'source':<10}{meaning['source']}")
        lines.append(f"  {'target':<10}{meaning['target']}")
        for one in row["tries"]:
            if one["because"]:
                lines.append(f"  {'again':<10}{one['because']}")
            figures = [one["check"][name] for name in ("acted", "kept", "said")]
            notes = "; ".join(figure["note"] for figure in figures if figure["note"])
            lines.append(f"  try {one['number']:<6}{notes}")
        lines += [f"  warning: {text}" for text in row["warnings"]]
        if row["files"]:
            lines.append(f"  {'picture':<10}{row['files']['edited']}")
    lines += [f"{name:<16}{path}" for name, path in report["files"].items()]
    return "\n".join([*lines, line_of(report["summary"])])


def _small(picture: Image.Image) -> Image.Image:
    """A picture for the sheet, which is kept in memory until its end."""
    factor = min(_WIDE / picture.width, _TALL / picture.height)
    if factor >= 1:
        return picture.copy()
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
