"""A sheet of strips: photo, reconstruction, edit, truth, plain regeneration; failures first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...pictures import grid
from .truths import TruthEdit
from .ways import Row

EACH = 3  # strips of each kind, at most
_COLUMNS = ("photo", "reconstruction", "edit", "truth", "plain regeneration")


def sheet(
    folder: Path, truths: Sequence[TruthEdit], rows: Sequence[Row], way: str, plain: str | None
) -> Image.Image:
    """Some edits of each kind: those that failed first, then the farthest from the truth.

    Args:
        folder: the output folder, in which the rows' files lie.
        truths: the edits.
        rows: all rows.
        way: whose edits are shown.
        plain: the way that is plain regeneration.
    """
    by_id = {truth.id: truth for truth in truths}
    other = {r["id"]: r for r in rows if r["way"] == plain}
    pictures: list[list[Image.Image | None]] = []
    labels: list[list[str]] = []
    names: list[str] = []
    for kind in dict.fromkeys(truth.kind for truth in truths):
        mine = [r for r in rows if r["way"] == way and r["kind"] == kind]
        for row in sorted(mine, key=_goodness)[:EACH]:
            truth, bound = by_id[row["id"]], other.get(row["id"], {})
            pictures.append(
                [
                    truth.photo,
                    _picture(folder, row, "reconstruction"),
                    _picture(folder, row, "edited"),
                    truth.truth,
                    _picture(folder, bound, "edited"),
                ]
            )
            labels.append(
                [row["source"], "", _said(row), row["target"], _said(bound) if bound else ""]
            )
            names.append(f"{row['id']}\n{_verdict(row)}")
    return grid(pictures, names, [*_COLUMNS[:2], way, *_COLUMNS[3:]], labels)


def _goodness(row: Row) -> tuple[int, int, float]:
    """The least first: not done, done with losses, then by decibels inside the change."""
    return int(row["asked"]), int(row["kept"]), row.get("psnr_inside") or 0.0


def _verdict(row: Row) -> str:
    if row["status"] == "failed":
        return "failed"
    words = ["done" if row["asked"] else "not done", "rest kept" if row["kept"] else "rest lost"]
    return "\n".join(words)


def _said(row: Row) -> str:
    if row["status"] == "failed":
        return f"failed: {row['reason']}"
    inside = row.get("psnr_inside")
    figure = "" if inside is None else f" ({inside:.1f} dB inside)"
    return f"read: {row['said']}{figure}"


def _picture(folder: Path, row: Row, name: str) -> Image.Image | None:
    file = row.get("files", {}).get(name)
    if file is None:
        return None
    with Image.open(folder / file) as image:
        return image.convert("RGB")
