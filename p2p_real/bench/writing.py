"""The files of a benchmark: results.csv, table.md and manifest.json."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import write_json, write_text
from ..measure import versions


def circumstances(device: str) -> dict[str, Any]:
    """What a manifest says of the machine."""
    return {
        "device": device,
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def write(folder: Path, manifest: Mapping[str, Any], table: str) -> None:
    """The three files; ``measurements`` of the manifest are the rows of results.csv.

    Raises:
        OutputError: one cannot be written.
    """
    rows = manifest["measurements"]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", text.getvalue())
    write_text(folder / "table.md", table)
    write_json(folder / "manifest.json", manifest)


def page(
    title: str,
    words: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    manifest: Mapping[str, Any],
    about: Callable[[Mapping[str, Any]], str],
) -> str:
    """A table as Markdown.

    Args:
        title: of the page.
        words: lines that say what is measured.
        columns: heads of the columns.
        rows: cells.
        manifest: names the subjects, the device and its threads.
        about: what is said of a subject below the table.
    """
    lines = [f"# {title}", "", *words, "", _line(columns), "|---" * len(columns) + "|"]
    lines += [_line(row) for row in rows]
    lines.append("")
    lines += [f"- {name}: {about(s)}" for name, s in manifest["subjects"].items()]
    lines.append(f"- {manifest['device']}, {manifest['threads']} threads")
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def mebibytes(size: float) -> str:
    """A number of bytes."""
    return f"{size / 2**20:.0f} MiB"
