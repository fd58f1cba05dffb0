"""Words under pictures: measured, wrapped and drawn with the font that PIL brings along."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

TEXT = 16  # font size in pixels
LINE = 21  # from one line to the next


@lru_cache
def _font() -> Any:
    return ImageFont.load_default(size=TEXT)


def text_width(text: str) -> int:
    """The width of a line of text in pixels."""
    return int(np.ceil(_font().getlength(text)))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces and, where a word is too long, inside."""
    lines: list[str] = []
    for paragraph in str(text).splitlines():
        line = ""
        for word in paragraph.split():
            if line and text_width(f"{line} {word}") <= width:
                line = f"{line} {word}"
                continue
            if line:
                lines.append(line)
            while text_width(word) > width and len(word) > 1:
                cut = max(1, len(word) - 1)
                while cut > 1 and text_width(word[:cut]) > width:
                    cut -= 1
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return lines


def write(draw: ImageDraw.ImageDraw, lines: Sequence[str], x: int, y: int, width: int) -> None:
    """Draws lines one below the other, each centred in `width` pixels from `x` on."""
    for n, line in enumerate(lines):
        start = x + max(0, width - text_width(line)) // 2
        draw.text((start, y + n * LINE), line, fill=(30, 30, 30), font=_font())
