"""A picture file, whatever its format and mode, becomes 8-bit RGB and alpha, or one clear line."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

SMALLEST_SIDE = 8
MOST_PIXELS = 50_000_000

# Formats with an interpreter behind them (EPS, PDF, WMF) are left out on purpose.
_FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JPEG2000",
    "PPM", "TGA", "ICO", "PCX", "SGI", "QOI",
)  # fmt: skip
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError)
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")


class PhotoError(ValueError):
    """A photo that cannot be used; the message is one line that says why and what to do."""


@contextlib.contextmanager
def _strict_decoding() -> Iterator[None]:
    """Missing data is an error here, even if some library told PIL to paint it grey."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    if lenient:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters becomes an error or a notice of ours
            yield
    finally:
        if lenient:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def check_size(size: tuple[int, int], what: str) -> None:
    """Raises PhotoError when a side is below 8 pixels or the area above 50 megapixels."""
    width, height = size
    if min(width, height) < SMALLEST_SIDE:
        raise PhotoError(
            f"{what} is only {width} x {height} pixels; each side must be at least "
            f"{SMALLEST_SIDE}: use a larger picture"
        )
    if width * height > MOST_PIXELS:
        raise _too_large(what, f"{width} x {height} pixels, ", width * height)


def _too_large(what: str, sides: str, pixels: int) -> PhotoError:
    return PhotoError(
        f"{what} has {sides}{pixels / 1e6:.1f} megapixels; the most is "
        f"{MOST_PIXELS // 1_000_000}: shrink it first"
    )


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, or PhotoError that tells a missing file from a folder and so on."""
    try:
        if path.is_dir():
            raise PhotoError(f"{path} is a folder; name the picture inside it")
        data = path.read_bytes()
    except FileNotFoundError:
        raise PhotoError(f"there is no file {path}; check the name and the folder") from None
    except PermissionError:
        raise PhotoError(f"{path} may not be read; check its permissions (chmod +r)") from None
    except (OSError, ValueError) as error:
        raise PhotoError(f"{path} cannot be read: {_one_line(error)}") from None
    if not data:
        raise PhotoError(f"{path} is empty (0 bytes); copy or download it again")
    return data


def decode(data: bytes, what: str) -> Image.Image:
    """Opens and fully decodes a picture; its size is checked before any pixel is decoded.

    Raises:
        PhotoError: not a picture, of a kind that is not read, too small, too large, cut short
            or corrupt.
    """
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with _strict_decoding():
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except Image.DecompressionBombError as error:
            number = re.search(r"\((\d+) pixels\)", str(error))
            raise _too_large(what, "", int(number[1]) if number else 2 * MOST_PIXELS) from None
        except UnidentifiedImageError:
            raise PhotoError(f"{what} {_what_it_is(data)}") from None
        except _DECODE_ERRORS as error:
            raise _corrupt(what, error) from None
        check_size(image.size, what)
        load(image, what)
    return image


def load(image: Image.Image, what: str) -> None:
    """Decodes the pixels of an opened picture; PhotoError when data is missing or broken."""
    with _strict_decoding():
        try:
            image.load()
        except Image.DecompressionBombError:
            raise PhotoError(f"{what} unpacks to far more pixels than its header says") from None
        except _DECODE_ERRORS as error:
            raise _corrupt(what, error) from None


def _corrupt(what: str, error: BaseException) -> PhotoError:
    text = _one_line(error)
    if any(word in text.lower() for word in ("truncated", "premature", "end of", "not enough")):
        return PhotoError(f"{what} is cut short ({text}); copy or download it again")
    return PhotoError(f"{what} is damaged ({text}); copy or download it again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _what_it_is(data: bytes) -> str:
    """Says what a file is that no picture format recognises."""
    head = data[:512]
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "is a HEIC picture, which is not read; save it as JPEG or PNG"
    if head.startswith((b"%PDF", b"%!PS")):
        return "is a PDF or PostScript page, which is not read; export it as PNG"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")):
        return "is an archive, not a picture; unpack it first"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")):
        return "is damaged or cut short (its header cannot be read); copy or download it again"
    try:
        text = head.decode("utf-8", errors="ignore" if len(data) > len(head) else "strict")
    except UnicodeDecodeError:
        text = "\0"
    lowered = text.lower()
    if "\0" in text:
        return "is not a picture in a format that is read; save it as PNG or JPEG"
    if "<svg" in lowered:
        return "is an SVG drawing, which is not read; export it as PNG"
    if "<html" in lowered or "<!doctype" in lowered:
        return "is a web page, not a picture; download the picture itself"
    if lowered.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not a picture; run 'git lfs pull'"
    return f"is text, not a picture (it begins {' '.join(text.split())[:40]!r})"


def upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Turns the picture as its EXIF orientation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about EXIF that it then reads as empty
        try:
            return ImageOps.exif_transpose(image), []
        except Exception as error:  # broken EXIF comes as anything from struct.error to KeyError
            return image, [f"its EXIF data is broken and was ignored ({_one_line(error)})"]


def frames_notice(image: Image.Image) -> list[str]:
    """One notice when only the first of several frames or pages is used."""
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format in _ANIMATED:
        return [f"it is an animation of {count} frames; the first one is used"]
    if count > 1 and image.format == "TIFF":
        return [f"it has {count} pages; the first one is used"]
    return []


def to_rgb(image: Image.Image, what: str) -> tuple[Image.Image, Image.Image | None, list[str]]:
    """Any mode to 8-bit RGB on white, with the alpha channel kept aside.

    Returns:
        The RGB picture, its alpha (mode L) or None, and notices.
    """
    notices: list[str] = []
    if image.mode.startswith("I") or image.mode == "F":
        image, notices = _to_eight_bit(image, what)
    if has_alpha(image):
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba.convert("RGB"), mask=alpha)
        return rgb, alpha, notices
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        rgb_or_none = _by_profile(image)
        if rgb_or_none is not None:
            return rgb_or_none, None, notices
    try:
        converted = image.convert("RGB")
    except ValueError:
        raise PhotoError(
            f"{what} has the colour mode {image.mode}, which is not read; save it as RGB"
        ) from None
    plain = Image.new("RGB", converted.size)
    plain.paste(converted)  # a copy without the file's metadata
    return plain, None, notices


def has_alpha(image: Image.Image) -> bool:
    """Whether the picture has an alpha channel or a transparent colour."""
    keyed = "transparency" in image.info and image.mode in ("P", "RGB", "L", "1")
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or keyed


def _by_profile(image: Image.Image) -> Image.Image | None:
    """CMYK to sRGB by the picture's own profile, or None where the profile is unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _to_eight_bit(image: Image.Image, what: str) -> tuple[Image.Image, list[str]]:
    """Grey of 16 or 32 bits, whole or floating, to 8 bits."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PhotoError(f"{what} holds values that are not numbers (NaN or infinity)")
    sixteen = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if image.mode != "F" and sixteen:
        return Image.fromarray(np.rint(values / 257).clip(0, 255).astype(np.uint8)), []
    low, high = float(values.min()), float(values.max())
    tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    for top in tops:
        if low >= 0 and high <= top:
            notice = f"its {image.mode} values were read as 0 to {top:g}"
            return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8)), [notice]
    scaled = np.rint((values - low) * (255 / (high - low))) if high > low else values * 0
    notice = f"its values, {low:g} to {high:g}, were stretched to black and white"
    return Image.fromarray(scaled.astype(np.uint8)), [notice]
