"""A box: `box:x0,y0,x1,y1`."""

from __future__ import annotations

import numpy as np

from ..grammar import MaskError
from ..source import MaskSource, Subject, mask_sources


@mask_sources.register("box")
class Box(MaskSource):
    """A box from its left top to its right bottom corner.

    Where all four numbers are from 0 to 1 they are fractions of the photo's width and height, else
    whole pixels of the photo; x1 and y1 are the first column and row outside.
    """

    paper = "four numbers"
    about = "x0,y0,x1,y1: fractions of the photo (all from 0 to 1), or whole pixels"

    def check(
        self, text: str, *, sizes: tuple[tuple[int, int], ...] = (), source: str | None = None
    ) -> None:
        corners(text, sizes[0] if sizes else None)

    def read(self, text: str, subject: Subject) -> np.ndarray:
        width, height = subject.size
        x0, y0, x1, y1 = corners(text, (width, height))
        values = np.zeros((height, width), np.float32)
        values[y0:y1, x0:x1] = 1
        return values


def corners(text: str, size: tuple[int, int] | None) -> tuple[int, int, int, int]:
    """The box in pixels (of a picture of 1 x 1 where the size is not known).

    Raises:
        MaskError: not four numbers, not in order, or outside the photo.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise MaskError(
            f"--mask-box {text!r}: give four numbers x0,y0,x1,y1, such as 0.1,0.2,0.5,0.6"
        ) from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise MaskError(
            f"--mask-box {text!r}: the left top corner comes first, 0 <= x0 < x1 and 0 <= y0 < y1"
        )
    if max(x1, y1) <= 1:
        width, height = size or (1, 1)
        left, top = int(x0 * width), int(y0 * height)  # every pixel that it touches
        right, bottom = -int(-x1 * width // 1), -int(-y1 * height // 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)
    if any(v != int(v) for v in (x0, y0, x1, y1)):
        raise MaskError(
            f"--mask-box {text!r}: give whole pixels, or fractions that are all from 0 to 1"
        )
    if size is not None and (x1 > size[0] or y1 > size[1]):
        raise MaskError(
            f"--mask-box {text!r} reaches beyond the photo, which has {size[0]} x {size[1]} pixels"
        )
    return int(x0), int(y0), int(x1), int(y1)
