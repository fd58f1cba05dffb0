"""How a photo is put on the model's grid, and the exact way back to its own size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

MODES = ("resize", "crop", "pad")
_NO_RESAMPLING = (0.5, 1.5)  # areas, as parts of native^2, that a model takes as they are


@dataclass(frozen=True)
class Fit:
    """A photo's way to the model: take `box`, scale it to `scaled`, then pad to `fitted`.

    Attributes:
        mode: "resize", "crop" or "pad".
        original: Width and height of the photo.
        box: Left, top, right, bottom of the part that is used, in photo pixels.
        scaled: Width and height that the part is scaled to.
        fitted: Width and height that the model sees; what exceeds `scaled` is reflected
            at the right and bottom.
    """

    mode: str
    original: tuple[int, int]
    box: tuple[int, int, int, int]
    scaled: tuple[int, int]
    fitted: tuple[int, int]

    def __post_init__(self) -> None:
        """Checks that the numbers can belong together."""
        left, top, right, bottom = self.box
        inside = 0 <= left < right <= self.original[0] and 0 <= top < bottom <= self.original[1]
        grown = all(0 < s <= f for s, f in zip(self.scaled, self.fitted, strict=True))
        if self.mode not in MODES or not inside or not grown:
            raise ValueError(f"this is no way to fit a photo: {asdict(self)}")

    @property
    def part(self) -> tuple[int, int]:
        """Width and height of the box."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    @property
    def is_whole(self) -> bool:
        """Whether the whole photo is used."""
        return self.part == self.original

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated; without it `undo` gives every pixel back exactly."""
        return self.scaled != self.part

    def apply(self, image: Image.Image) -> Image.Image:
        """Puts a picture or mask of the photo's size on the model's grid.

        Raises:
            ValueError: The picture has another size than the photo.
        """
        _check(image, self.original, "photo")
        if not self.is_whole:
            image = image.crop(self.box)
        image = _scale(image, self.scaled)
        if self.fitted == self.scaled:
            return image.copy()
        right, bottom = (f - s for f, s in zip(self.fitted, self.scaled, strict=True))
        pixels = np.asarray(image)
        widths = ((0, bottom), (0, right), (0, 0))[: pixels.ndim]
        return Image.fromarray(np.pad(pixels, widths, mode="reflect"))

    def undo(self, image: Image.Image, original: Image.Image | None = None) -> Image.Image:
        """Brings a picture from the model's grid back to the photo's size, pixel-aligned.

        Args:
            image: A picture (or a map, mode L or F) of size `fitted`.
            original: The photo, needed where only a part was used (`crop`): the part is laid
                back into a copy of it. For a map, a black picture will do.

        Returns:
            A new picture of size `original`. Without resampling its pixels are those of `image`.

        Raises:
            ValueError: A size does not fit, or `original` is missing.
        """
        _check(image, self.fitted, "fitted picture")
        if image.size != self.scaled:
            image = image.crop((0, 0, *self.scaled))
        image = _scale(image, self.part)
        if self.is_whole:
            return image.copy()
        if original is None:
            raise ValueError("the fit is a crop: undo needs the original photo to lay it into")
        _check(original, self.original, "photo")
        whole = original.convert(image.mode) if original.mode != image.mode else original.copy()
        whole.paste(image, self.box[:2])
        return whole

    def to_json(self) -> dict[str, Any]:
        """The fit as plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fit:
        """The fit that `to_json` wrote; ValueError when a field is missing or senseless."""
        try:
            sizes = {
                key: tuple(int(v) for v in data[key])
                for key in ("original", "box", "scaled", "fitted")
            }
            if [len(v) for v in sizes.values()] != [2, 4, 2, 2]:
                raise ValueError("a field has the wrong length")
            return cls(mode=str(data["mode"]), **sizes)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is not the record of a fit ({error!r}): {data!r}") from None


def fit_photo(
    image: Image.Image, *, multiple: int = 8, native: int = 512, mode: str = "resize"
) -> tuple[Image.Image, Fit]:
    """Puts a photo on the model's grid.

    Every mode leaves the pixels alone where the area is within 0.5 to 1.5 of native^2 and the
    grid allows it; else the picture is scaled to about that area.

    Args:
        image: The photo, any size.
        multiple: Both sides of the result are multiples of this (the VAE's scale).
        native: The side, in pixels, of the square that the model was trained on.
        mode: "resize" keeps the whole photo and stretches it by the few pixels that the grid
            asks for; "pad" keeps the aspect to the pixel and reflects the border outward to the
            grid; "crop" takes the central square.

    Returns:
        The fitted picture and the Fit that brings edits back.

    Raises:
        ValueError: An unknown mode, or numbers out of range.
    """
    if mode not in MODES:
        raise ValueError(f"no way to fit called {mode!r}; there are {', '.join(MODES)}")
    if multiple < 1 or native < multiple:
        raise ValueError(
            f"the grid's multiple ({multiple}) is at least 1 and at most the native side ({native})"
        )
    width, height = image.size
    box = (0, 0, width, height)
    if mode == "crop":
        scaled, box = _central_square(width, height, multiple, native)
        fitted = scaled
    elif mode == "pad":
        scaled = _same_aspect(width, height, native)
        fitted = (_up(scaled[0], multiple), _up(scaled[1], multiple))
    else:
        scaled = fitted = _nearest_on_grid(width, height, multiple, native)
    fit = Fit(mode=mode, original=(width, height), box=box, scaled=scaled, fitted=fitted)
    return fit.apply(image), fit


def _area_is_fine(width: int, height: int, native: int) -> bool:
    low, high = _NO_RESAMPLING
    return low <= width * height / native**2 <= high


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _same_aspect(width: int, height: int, native: int) -> tuple[int, int]:
    """The size with the photo's aspect and about native^2 pixels, or its own where that will do."""
    if _area_is_fine(width, height, native):
        return width, height
    scale = native / math.sqrt(width * height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _nearest_on_grid(width: int, height: int, multiple: int, native: int) -> tuple[int, int]:
    """Sides on the grid, of about native^2 pixels, that bend the aspect least."""
    on_grid = width % multiple == 0 and height % multiple == 0
    if on_grid and _area_is_fine(width, height, native):
        return width, height
    aspect = width / height
    short = min(native / math.sqrt(aspect), native * math.sqrt(aspect))  # the ideal short side
    long_by_short = max(aspect, 1 / aspect)
    best: tuple[float, tuple[int, int]] | None = None
    first = max(1, math.floor(short * 0.88 / multiple))
    last = max(first, math.ceil(short * 1.12 / multiple))
    for count in range(first, last + 1):
        side = count * multiple
        other = max(1, round(side * long_by_short / multiple)) * multiple
        if count == 1:  # a very long photo: hold the area, the grid cannot hold the aspect
            other = min(other, max(1, round(native**2 / side / multiple)) * multiple)
        bend = abs(math.log(other / side / long_by_short))
        drift = abs(math.log(side * other / native**2))
        if best is None or bend + 0.05 * drift < best[0]:
            best = (bend + 0.05 * drift, (other, side) if width >= height else (side, other))
    assert best is not None
    return best[1]


def _central_square(
    width: int, height: int, multiple: int, native: int
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """The size that the model sees, and the box of the photo's central square."""
    side = min(width, height)
    if side >= multiple and _area_is_fine(side, side, native):
        side = seen = side // multiple * multiple
    else:
        seen = max(1, round(native / multiple)) * multiple
    left, top = (width - side) // 2, (height - side) // 2
    return (seen, seen), (left, top, left + side, top + side)


def _scale(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resampling about pixel centres, so nothing shifts; maps never overshoot their range."""
    if image.size == size:
        return image
    if image.mode == "1":
        image = image.convert("L")
    maps = image.mode in ("L", "F")
    return image.resize(size, Image.Resampling.BILINEAR if maps else Image.Resampling.LANCZOS)


def _check(image: Image.Image, size: tuple[int, int], what: str) -> None:
    if image.size != size:
        raise ValueError(
            f"the {what} has {size[0]} x {size[1]} pixels, this picture "
            f"{image.size[0]} x {image.size[1]}"
        )
