"""Where a map lies on a picture, its colours, and the page around it all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..fitting import Fit
from ..labels import LINE, text_width, wrap, write
from ..pictures import heatmap

MARGIN = 12
BAR = (180, 18)
_TITLE = 21  # font size
_NARROWEST = 96


class Canvas:
    """A picture at the size at which it is shown, and the place of the model's maps on it.

    Args:
        picture: of the photo's size, or of the size that the model sees.
        fit: how the photo was put on the model's grid.
        height: in pixels; less for a very wide picture, more for a very narrow one.
    """

    def __init__(self, picture: Image.Image, fit: Fit, height: int = 256) -> None:
        aspect = picture.width / picture.height
        height = round(min(max(height, _NARROWEST / aspect), 4 * height / max(1, aspect)))
        self.size = (max(1, round(height * aspect)), max(1, height))
        rgb = picture.convert("RGB")
        self.picture = rgb.resize(self.size, Image.Resampling.LANCZOS)
        grey = np.asarray(self.picture.convert("L"), dtype=np.float32)
        dim = np.rint(25 + 0.45 * grey).astype(np.uint8)
        self.dimmed = Image.fromarray(dim).convert("RGB")
        self.share = tuple(s / f for s, f in zip(fit.scaled, fit.fitted, strict=True))
        self.box = (0, 0, *self.size)
        if picture.size == fit.original:
            by = [s / o for s, o in zip(self.size, fit.original, strict=True)]
            left, top, right, bottom = (round(v * by[n % 2]) for n, v in enumerate(fit.box))
            self.box = (left, top, max(left + 1, right), max(top + 1, bottom))
        else:  # the picture as the model sees it, border and all
            self.share = (1.0, 1.0)

    @property
    def covered(self) -> bool:
        """Whether the maps cover all of the picture."""
        return self.box == (0, 0, *self.size)

    def lay(self, part: np.ndarray) -> np.ndarray:
        """A map [h, w] of the model's grid on this picture, [H, W]; 0 where the model saw nothing.

        It is scaled smoothly and never falls below its own smallest value.
        """
        image = Image.fromarray(np.ascontiguousarray(part, dtype=np.float32))
        used = (0.0, 0.0, self.share[0] * image.width, self.share[1] * image.height)
        left, top, right, bottom = self.box
        smooth = image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=used)
        whole = np.zeros(self.size[::-1], dtype=np.float32)
        whole[top:bottom, left:right] = np.asarray(smooth).clip(part.min(), part.max())
        return whole

    def heat(self, part: np.ndarray, high: float) -> Image.Image:
        """The dimmed picture with a map [h, w] glowing on it; ``high`` is the brightest value.

        Of a map that a negative weight made negative, the size glows.
        """
        return glow(self.lay(np.abs(part)), self.dimmed, high)


def glow(values: np.ndarray, over: Image.Image, high: float, low: float = 0.0) -> Image.Image:
    """Values [H, W] as light on a picture of that size."""
    top = high if high > low else low + 1.0
    return heatmap(values, over, low=low, high=top, opacity=0.92)


def bar(ends: tuple[str, str]) -> Image.Image:
    """The colours from the lowest to the highest value, with what stands at the ends."""
    lines = [wrap(text, 400) for text in ends]
    width, height = BAR
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    colours = glow(ramp, Image.new("RGB", BAR, (95, 95, 95)), 1.0)
    widths = [max(text_width(line) for line in text) for text in lines]
    tall = max(height, *(len(text) * LINE for text in lines))
    image = Image.new("RGB", (widths[0] + width + widths[1] + 2 * MARGIN, tall), "white")
    draw = ImageDraw.Draw(image)
    write(draw, lines[0], 0, 0, widths[0])
    image.paste(colours, (widths[0] + MARGIN, 1))
    write(draw, lines[1], widths[0] + width + 2 * MARGIN, 0, widths[1])
    return image


def page(
    title: str, body: Image.Image, notes: Sequence[str] = (), legend: Image.Image | None = None
) -> Image.Image:
    """A body under its title, with a legend and lines of explanation below."""
    width = max(body.width, 480, 0 if legend is None else legend.width + 2 * MARGIN)
    font = ImageFont.load_default(size=_TITLE)
    head = _wrapped(title, width - 2 * MARGIN, font)
    lines = [line for note in notes for line in wrap(note, width - 2 * MARGIN)]
    above = MARGIN + len(head) * (_TITLE + 7)
    below = (legend.height + MARGIN if legend else 0) + len(lines) * LINE
    sheet = Image.new("RGB", (width, above + body.height + below + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(head):
        draw.text((MARGIN, MARGIN + n * (_TITLE + 7)), line, fill=(30, 30, 30), font=font)
    sheet.paste(body, (0, above))
    top = above + body.height
    if legend is not None:
        sheet.paste(legend, (MARGIN, top))
        top += legend.height + MARGIN // 2
    write(draw, lines, MARGIN, top, 0)
    return sheet


def percent(value: float) -> str:
    """A share for people: two digits that count."""
    number = 100 * value
    return f"{number:.{0 if abs(number) >= 9.95 else 1 if abs(number) >= 0.995 else 2}f} %"


def outline(mask: np.ndarray) -> np.ndarray:
    """[H, W] in {0, 1, 2}: 2 on the border inside a mask, 1 beside that, 0 elsewhere."""
    inside = mask > 0.5
    rim = inside & ~_shrunk(inside)
    return np.where(rim, 2, np.where(_grown(rim), 1, 0))


def _shrunk(inside: np.ndarray) -> np.ndarray:
    """Without the places that touch the outside (the picture's own edge does not count)."""
    return ~_grown(~inside)


def _grown(inside: np.ndarray) -> np.ndarray:
    padded = np.pad(inside, 1)
    h, w = inside.shape
    near = [padded[y : y + h, x : x + w] for y in range(3) for x in range(3)]
    return np.logical_or.reduce(near)


def _wrapped(text: str, width: int, font: object) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:  # type: ignore[attr-defined]
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
