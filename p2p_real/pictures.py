"""Pictures for people: strips, contact sheets, heat maps, and PNGs that carry their settings."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from p2p_real.files import atomic_file, plain
from p2p_real.labels import LINE, text_width, wrap, write

SETTINGS_KEY = "p2p-real"
_SEEN_AT = 256  # a smaller picture is enlarged until its height is at least this
_AT_MOST = 1024  # a taller picture is shrunk in a strip or a sheet
_MARGIN = 12
_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


class SettingsError(ValueError):
    """A picture holds no settings of ours; the message is one line."""


def strip(images: Sequence[Image.Image], labels: Sequence[str] = ()) -> Image.Image:
    """A row of equally tall pictures on white, each with its label below.

    Small pictures are enlarged by a whole factor without smoothing, so that their pixels are
    seen as they are; long labels are wrapped to the picture's width.

    Args:
        images: At least one picture, any sizes and modes (transparent places show white).
        labels: As many labels as pictures, or none.

    Raises:
        ValueError: No picture, or another number of labels.
    """
    return grid([list(images)], cell_labels=[list(labels)] if labels else None)


def grid(
    rows: Sequence[Sequence[Image.Image | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell_labels: Sequence[Sequence[str]] | None = None,
    *,
    least: int = _SEEN_AT,
) -> Image.Image:
    """A contact sheet on white: equally tall pictures in rows and columns.

    Args:
        rows: Rows of one length; None leaves a cell empty (a run that failed).
        row_labels: One a row, at the left, or none.
        column_labels: One a column, on top, or none.
        cell_labels: A text below each cell, in the shape of `rows`, or None.
        least: Smaller pictures are enlarged until they are this tall.

    Raises:
        ValueError: No picture at all, or numbers that do not match.
    """
    rows = [list(row) for row in rows]
    count = len(rows[0]) if rows else 0
    if not any(image is not None for row in rows for image in row):
        raise ValueError("a sheet needs at least one picture")
    if any(len(row) != count for row in rows):
        raise ValueError(f"the rows of a sheet are of one length, not {[len(r) for r in rows]}")
    _same_number(row_labels, len(rows), "row labels")
    _same_number(column_labels, count, "column labels")
    for texts in cell_labels or ():
        _same_number(texts, count, "labels")

    filled = [image for row in rows for image in row if image is not None]
    height = min(_AT_MOST, max(image.height * _factor(image, least) for image in filled))
    cells = [[None if i is None else _at_height(i, height) for i in row] for row in rows]
    narrowest = min(c.width for row in cells for c in row if c is not None)
    columns = zip(*cells, strict=True)
    widths = [max([c.width for c in column if c] or [narrowest]) for column in columns]
    side = max((min(text_width(text), 200) for text in row_labels), default=0)
    left = _MARGIN + (side + _MARGIN if side else 0)
    heads = [wrap(t, w) for t, w in zip(column_labels, widths, strict=False)]
    feet = [[wrap(t, w) for t, w in zip(texts, widths, strict=True)] for texts in cell_labels or ()]
    foot = [max([len(lines) for lines in row], default=0) * LINE for row in feet]
    foot += [0] * (len(rows) - len(foot))
    head = max((len(lines) for lines in heads), default=0) * LINE

    total = (
        left + sum(widths) + _MARGIN * len(widths),
        _MARGIN + head + len(rows) * (height + _MARGIN) + sum(f + 6 for f in foot if f),
    )
    sheet = Image.new("RGB", total, "white")
    draw = ImageDraw.Draw(sheet)
    lefts = [left + sum(widths[:n]) + _MARGIN * n for n in range(len(widths))]
    for lines, x, width in zip(heads, lefts, widths, strict=False):
        write(draw, lines, x, _MARGIN // 2, width)
    top = _MARGIN + head
    for n, row in enumerate(cells):
        if side:
            lines = wrap(row_labels[n], side)
            write(draw, lines, _MARGIN, top + max(0, height - len(lines) * LINE) // 2, side)
        for m, cell in enumerate(row):
            x, width = lefts[m], widths[m]
            if cell is None:
                draw.rectangle((x, top, x + width - 1, top + height - 1), fill=(236, 236, 236))
            else:
                sheet.paste(cell, (x + (width - cell.width) // 2, top))
            if feet and feet[n]:
                write(draw, feet[n][m], x, top + height + 6, width)
        top += height + _MARGIN + (foot[n] + 6 if foot[n] else 0)
    return sheet


def heatmap(
    map2d: Any,
    over: Image.Image | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    opacity: float = 0.65,
) -> Image.Image:
    """A map as colours from black over red to yellow, alone or laid over a picture.

    Args:
        map2d: Array or tensor [h, w] of finite numbers.
        over: A picture to lay it on; the map is scaled smoothly to its size.
        low: The value shown black, by default the smallest.
        high: The value shown yellow, by default the largest.
        opacity: How much the strongest place hides the picture, in [0, 1]; weak places hide less.

    Returns:
        An RGB picture of the size of `over`, or the map enlarged by a whole factor.

    Raises:
        ValueError: Not two-dimensional, empty, or not finite.
    """
    if hasattr(map2d, "detach"):
        map2d = map2d.detach().to("cpu").float()
    values = np.asarray(map2d, dtype=np.float32)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"a heat map is made of finite numbers [h, w], not {list(values.shape)}")
    bottom = float(values.min()) if low is None else low
    top = float(values.max()) if high is None else high
    part = ((values - bottom) / (top - bottom if top > bottom else 1.0)).clip(0, 1)
    if over is None:
        return _enlarged(Image.fromarray(_colour(part)))
    smooth = Image.fromarray(part).resize(over.size, Image.Resampling.BICUBIC)
    part = np.asarray(smooth).clip(0, 1)
    cover = (opacity * (0.25 + 0.75 * part))[:, :, None]
    below = np.asarray(_on_white(over), dtype=np.float32)
    mixed = below * (1 - cover) + _colour(part) * cover
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def save_png(image: Image.Image, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Writes a PNG atomically, with its settings as JSON in the text field "p2p-real".

    Args:
        image: The picture; alpha and a colour profile in its `info` are kept.
        path: Where to; the folder must be there.
        settings: What `read_settings` gives back.

    Raises:
        OutputError: It cannot be written there.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(SETTINGS_KEY, json.dumps(plain(settings), allow_nan=False))
    with atomic_file(path) as stream:
        image.save(stream, "PNG", pnginfo=text)


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings that `save_png` wrote.

    Raises:
        SettingsError: There is no such file, it is no PNG, or it carries no settings of ours.
    """
    path = Path(path)
    if path.is_dir():
        raise SettingsError(f"{path} is a folder; name the edited PNG inside it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                text = getattr(image, "text", {}).get(SETTINGS_KEY)
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}; check the name and the folder") from None
    except PermissionError:
        raise SettingsError(f"{path} may not be read; check its permissions") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise SettingsError(f"{path} is no readable PNG; settings travel in PNGs only") from None
    if text is None:
        raise SettingsError(
            f"{path} carries no p2p-real settings: it was not made here, or another program "
            "saved it again without them"
        )
    try:
        settings = json.loads(text)
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict):
        raise SettingsError(f"the p2p-real settings in {path} are damaged")
    return settings


# --- drawing -------------------------------------------------------------------------------


def _same_number(texts: Sequence[str], count: int, what: str) -> None:
    if texts and len(texts) != count:
        raise ValueError(f"{len(texts)} {what} for {count} places")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _factor(image: Image.Image, least: int = _SEEN_AT) -> int:
    return max(1, -(-least // image.height))


def _enlarged(image: Image.Image) -> Image.Image:
    factor = _factor(image)
    size = image.width * factor, image.height * factor
    return image.resize(size, Image.Resampling.NEAREST) if factor > 1 else image


def _at_height(image: Image.Image, height: int) -> Image.Image:
    """The picture at this height: by a whole factor where one fits, else smoothly."""
    image = _on_white(image)
    if image.height == height:
        return image
    size = max(1, round(image.width * height / image.height)), height
    whole = height % image.height == 0
    return image.resize(size, Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS)


def _colour(part: np.ndarray) -> np.ndarray:
    """Values [h, w] in [0, 1] as uint8 [h, w, 3], linear between five colours."""
    stops = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(part, stops, [c[n] for c in _COLOURS]) for n in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
