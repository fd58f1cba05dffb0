"""Photos in and out: open a photo upright and in RGB, hand it over as a tensor, give it back."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from p2p_real import reading
from p2p_real.fitting import Fit, fit_photo
from p2p_real.reading import MOST_PIXELS, SMALLEST_SIDE, PhotoError

if TYPE_CHECKING:
    import torch

__all__ = [
    "MOST_PIXELS",
    "SMALLEST_SIDE",
    "Fit",
    "Photo",
    "PhotoError",
    "fit_photo",
    "open_photo",
    "psnr",
    "to_image",
    "to_tensor",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """A photo, upright and in 8-bit RGB, and what is needed to give it back as it came.

    Attributes:
        image: The pixels, mode RGB; transparent places are seen on white.
        name: The file's name without folder and ending, or "photo".
        sha256: Hash of the size and the RGB pixels; equal pictures have equal hashes,
            whatever their files.
        alpha: The alpha channel (mode L, same size), or None.
        icc_profile: The embedded RGB colour profile, or None.
        notices: What was decided on the way in, one sentence each.
    """

    image: Image.Image
    name: str
    sha256: str
    alpha: Image.Image | None = None
    icc_profile: bytes | None = None
    notices: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    def finish(self, image: Image.Image) -> Image.Image:
        """Puts the photo's alpha channel and colour profile on an edited picture.

        The colours of half transparent places are freed of the white they were seen on, so the
        result laid on white is the edited picture again.

        Args:
            image: An edited picture of the photo's size.

        Returns:
            A new picture, RGBA where the photo had alpha, else RGB.

        Raises:
            PhotoError: The picture has another size than the photo.
        """
        if image.size != self.size:
            raise PhotoError(
                f"the edited picture is {image.size[0]} x {image.size[1]}, the photo "
                f"{self.name} {self.size[0]} x {self.size[1]}; undo the fit first"
            )
        finished = image.convert("RGB")
        if self.alpha is not None:
            finished = _off_white(finished, self.alpha)
            finished.putalpha(self.alpha)
        finished.info = {"icc_profile": self.icc_profile} if self.icc_profile else {}
        return finished


def open_photo(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> Photo:
    """Opens a photo from a file, a PIL picture or an array.

    EXIF rotation is applied; alpha goes aside and the picture on white; palettes, CMYK, grey,
    1-bit and 16-bit become 8-bit RGB; of an animation the first frame is taken, with a notice.

    Args:
        source: A path, a PIL picture of any mode, or an array [H, W] or [H, W, 1 to 4] of
            uint8 in [0, 255], uint16 in [0, 65535], bool, or floats in [0, 1].

    Returns:
        The photo. Each notice is logged as well.

    Raises:
        PhotoError: There is no such file, it is no readable picture, a side is below 8 pixels,
            or it has more than 50 megapixels (read from the header, before decoding).
    """
    name, what = "photo", "the picture"
    if isinstance(source, np.ndarray):
        image = _from_array(source)
    elif isinstance(source, Image.Image):
        image = source
        file = getattr(source, "filename", "")
        if isinstance(file, str | os.PathLike) and os.fspath(file):
            name, what = Path(file).stem, os.fspath(file)
        reading.check_size(image.size, what)
        reading.load(image, what)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        name, what = path.stem or "photo", str(path)
        image = reading.decode(reading.read_bytes(path), what)
    else:
        raise TypeError(f"a photo is a path, a PIL picture or an array, not {type(source)}")

    notices = reading.frames_notice(image)
    profile = image.info.get("icc_profile")
    fmt = image.format
    image, more = reading.upright(image)
    image.format = fmt  # a turned picture forgets where it came from; 16-bit reading asks
    rgb, alpha, extra = reading.to_rgb(image, what)
    for notice in (*notices, *more, *extra):
        logger.warning("%s: %s", what, notice)
    return Photo(
        image=rgb,
        name=name,
        sha256=_fingerprint(rgb),
        alpha=alpha,
        icc_profile=profile if _is_rgb_profile(profile) else None,
        notices=(*notices, *more, *extra),
    )


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A picture as float32 [1, 3, H, W] in [-1, 1]; `to_image` gives the same pixels back."""
    import torch

    pixels = torch.from_numpy(np.array(image.convert("RGB")))  # [H, W, 3], a writable copy
    return (pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0).contiguous()


def to_image(tensor: torch.Tensor) -> Image.Image:
    """A tensor [3, H, W] or [1, 3, H, W] in [-1, 1] as an RGB picture, rounded and clamped.

    Raises:
        ValueError: Another shape, or values that are not numbers.
    """
    import torch

    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(
            f"a picture is a tensor [3, H, W] or [1, 3, H, W], not {list(tensor.shape)}"
        )
    values = tensor.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            "the decoded picture holds NaN or infinity; use float32 for the VAE or the model"
        )
    pixels = ((values + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def psnr(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two equally large 8-bit pictures; inf when equal.

    Raises:
        ValueError: The shapes differ or an array is not uint8.
    """
    first, second = _pixels(a), _pixels(b)
    if first.shape != second.shape:
        raise ValueError(f"PSNR needs pictures of one size, not {first.shape} and {second.shape}")
    one, two, squares = first.reshape(-1), second.reshape(-1), 0
    for start in range(0, one.size, 1 << 22):  # in parts: 50 megapixels fit into memory
        band = slice(start, start + (1 << 22))
        difference = one[band].astype(np.int64) - two[band]
        squares += int(np.dot(difference, difference))
    return float("inf") if squares == 0 else 10 * math.log10(255**2 * one.size / squares)


def _pixels(picture: Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    if picture.dtype != np.uint8:
        raise ValueError(f"PSNR is taken on uint8 pixels, not {picture.dtype}")
    return picture


def _from_array(array: np.ndarray) -> Image.Image:
    """An array [H, W] or [H, W, 1 to 4] as a PIL picture."""
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 2, 3, 4)):
        raise PhotoError(f"a picture is an array [H, W] or [H, W, 1 to 4], not {list(shape)}")
    reading.check_size((shape[1], shape[0]), "the array")
    kind: Any = array.dtype
    if kind == np.bool_:
        array = array * np.uint8(255)
    elif kind == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)
    elif np.issubdtype(kind, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise PhotoError("a picture of floats has values from 0 to 1; rescale the array")
        array = np.rint(array * 255.0).astype(np.uint8)
    elif kind != np.uint8:
        raise PhotoError(f"a picture is of uint8, uint16, bool or float values, not {kind}")
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(array))


def _off_white(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """The colours that, laid on white with this alpha, look like `image`; clamped to 0..255."""
    seen, part = np.arange(256.0), np.arange(256.0)[:, None] / 255
    colour = 255 - (255 - seen) / np.maximum(part, 1 / 255)
    colour[0] = seen  # what is not seen at all keeps any colour
    table = np.rint(colour.clip(0, 255)).astype(np.uint8)  # [alpha, seen]
    pixels, parts = np.array(image), np.asarray(alpha)  # [H, W, 3], [H, W]
    for top in range(0, len(pixels), 256):
        band = slice(top, top + 256)
        pixels[band] = table[parts[band, :, None], pixels[band]]
    return Image.fromarray(pixels)


def _is_rgb_profile(profile: object) -> bool:
    """Whether an ICC profile describes RGB; a grey or CMYK one no longer fits the picture."""
    return isinstance(profile, bytes) and profile[16:20] == b"RGB "


def _fingerprint(image: Image.Image) -> str:
    digest = hashlib.sha256(f"RGB {image.size[0]}x{image.size[1]}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
