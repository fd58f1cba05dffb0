"""The word maps in motion: an animated GIF over the sampling steps."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw

from ..labels import write
from ..pictures import grid
from .canvas import MARGIN
from .gather import Attention
from .pictures import SMALL, a_row, canvases, moments

MOST = 25  # pictures of a film
SHOWN_MS, LAST_MS = 160, 1600
COLOURS = 96


def film(found: Attention) -> list[Image.Image]:
    """A picture for each of at most 25 moments: all words side by side, and how far the walk is."""
    frames, by_time = found.seen.frames, found.seen.by_time().numpy()
    most = np.abs(by_time).max((0, 3, 4))
    shown = canvases(found, SMALL)
    total = frames[-1].first + frames[-1].count
    made = []
    for i in moments(len(frames), MOST):
        rows: list[list[Image.Image | None]] = []
        labels: list[list[str]] = []
        words = list(enumerate(found.words))
        across = a_row(len(words))
        for first in range(0, len(words), across):
            part = words[first : first + across]
            space = across - len(part)
            blank = [Image.new("RGB", shown[0].size, "white")] * space
            for b, canvas in enumerate(shown):
                cells = [
                    None if w.names[b] is None else canvas.heat(by_time[i, b, n], most[b, n])
                    for n, w in part
                ]
                rows.append([*cells, *blank])
                labels.append([w.names[b] or "-" for _, w in part] + [""] * space)
        sides = [("photo", "edit")[b] for b in range(len(shown))] * (len(rows) // len(shown))
        body = grid(rows, sides if found.edited else (), cell_labels=labels, least=shown[0].size[1])
        made.append(_with_clock(body, frames[i].first + 1, total))
    return made


def _with_clock(body: Image.Image, step: int, total: int) -> Image.Image:
    """The body under a bar that fills up from noise to picture."""
    sheet = Image.new("RGB", (max(body.width, 200), body.height + 34), "white")
    sheet.paste(body, (0, 34))
    draw = ImageDraw.Draw(sheet)
    write(draw, [f"step {step} of {total}"], MARGIN, 8, 0)
    left = MARGIN + 150
    right = max(left + 20, sheet.width - MARGIN)
    draw.rectangle((left, 12, right, 24), outline=(120, 120, 120))
    draw.rectangle((left, 12, left + (right - left) * step // total, 24), fill=(90, 90, 90))
    return sheet


def save_gif(pictures: list[Image.Image], stream: BinaryIO) -> None:
    """Pictures of one size as an endless film that rests on its last one; one palette for all."""
    width, height = pictures[0].size
    some = [pictures[i] for i in moments(len(pictures), 4)]
    sample = Image.new("RGB", (width, height * len(some)))
    for n, picture in enumerate(some):
        sample.paste(picture, (0, n * height))
    palette = sample.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    frames = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    frames[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[SHOWN_MS] * (len(frames) - 1) + [LAST_MS],
        loop=0,
        optimize=True,
    )
