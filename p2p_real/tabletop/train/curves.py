"""Pictures of a run: loss curves and sheets of samples, drawn with PIL alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

_INK, _PAPER, _RULE = (60, 60, 60), (255, 255, 255), (225, 225, 225)
_COLORS = ((31, 90, 180), (200, 60, 40), (40, 140, 70), (150, 80, 170), (190, 130, 20))


def save_curve(path: Path, log: Sequence[dict[str, Any]], x: str = "step") -> None:
    """Draws every figure of a log over its steps, each scaled to its own range.

    Args:
        path: A PNG file.
        log: One row of figures for each measurement, oldest first.
        x: The figure along the bottom.
    """
    names = [name for name in (log[-1] if log else {}) if name not in (x, "minutes")]
    width, height, left, top = 720, 90, 110, 8
    image = Image.new("RGB", (width, max(1, len(names)) * (height + top) + 24), _PAPER)
    draw = ImageDraw.Draw(image)
    for k, name in enumerate(names):
        rows = [(row[x], row[name]) for row in log if math.isfinite(row.get(name, math.nan))]
        if not rows:
            continue
        low, high = (pick(value for _, value in rows) for pick in (min, max))
        first, last = rows[0][0], max(rows[-1][0], rows[0][0] + 1)
        y0 = top + k * (height + top)
        draw.rectangle((left, y0, width - 8, y0 + height), outline=_RULE)
        draw.text((6, y0 + 4), name, fill=_COLORS[k % len(_COLORS)])
        draw.text((6, y0 + 22), f"{rows[-1][1]:.4g} now", fill=_INK)
        draw.text((6, y0 + 40), f"{high:.4g} high", fill=_INK)
        draw.text((6, y0 + 58), f"{low:.4g} low", fill=_INK)
        span = (high - low) or 1.0
        points = [
            (
                left + (width - 8 - left) * (at - first) / (last - first),
                y0 + 4 + (height - 8) * (high - value) / span,
            )
            for at, value in rows
        ]
        draw.line(points, fill=_COLORS[k % len(_COLORS)], width=2)
    if log:
        draw.text((left, image.height - 18), f"{x} {log[0][x]} to {log[-1][x]}", fill=_INK)
    _write(image, path)


def save_sheet(path: Path, pictures: Tensor, columns: int = 8) -> None:
    """Writes pictures, uint8 [B, H, W, 3], as one sheet, row by row."""
    count, height, width = pictures.shape[:3]
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), _PAPER)
    for i, picture in enumerate(pictures.cpu().numpy()):
        at = ((i % columns) * (width + 2), (i // columns) * (height + 2))
        sheet.paste(Image.fromarray(picture), at)
    _write(sheet, path)


def _write(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    image.save(beside, format="PNG")
    beside.replace(path)
