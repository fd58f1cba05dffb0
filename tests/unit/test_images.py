"""Opening photos: every mode and format, every way a file can be wrong, and the way back."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from p2p_real.images import PhotoError, open_photo, psnr, to_image, to_tensor


def picture(width: int = 40, height: int = 24, seed: int = 0) -> Image.Image:
    """A smooth colour ramp with one loud corner, so that turns and shifts are seen."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y + seed) % 256], axis=-1)
    pixels[:4, :4] = (255, 0, 0)
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


# --- the plain way -------------------------------------------------------------------------


def test_a_png_keeps_every_pixel_and_its_name(tmp_path: Path) -> None:
    photo = open_photo(saved(picture(), tmp_path / "red cup.png"))
    assert photo.name == "red cup"
    assert photo.image.mode == "RGB"
    assert psnr(photo.image, picture()) == float("inf")
    assert photo.alpha is None
    assert photo.notices == ()


def test_the_hash_is_of_the_pixels_not_of_the_file(tmp_path: Path) -> None:
    png = open_photo(saved(picture(), tmp_path / "a.png"))
    bmp = open_photo(str(saved(picture(), tmp_path / "b.bmp")))
    array = open_photo(np.asarray(picture()))
    assert png.sha256 == bmp.sha256 == array.sha256 == open_photo(picture()).sha256
    other = picture()
    other.putpixel((7, 7), (1, 2, 3))
    assert open_photo(other).sha256 != png.sha256
    flat = Image.new("RGB", (8, 18), "red"), Image.new("RGB", (18, 8), "red")
    assert open_photo(flat[0]).sha256 != open_photo(flat[1]).sha256


def test_the_given_picture_is_not_changed_and_not_shared() -> None:
    given = picture()
    photo = open_photo(given)
    given.paste("black", (0, 0, 40, 24))
    assert psnr(photo.image, picture()) == float("inf")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(picture(), tmp_path / "phone.png", exif=exif)
    upright = open_photo(path).image
    assert upright.size == ((40, 24) if orientation <= 4 else (24, 40))
    corner = {1: (0, 0), 2: (39, 0), 3: (39, 23), 4: (0, 23)}
    corner |= {5: (0, 0), 6: (23, 0), 7: (23, 39), 8: (0, 39)}
    assert upright.getpixel(corner[orientation]) == (255, 0, 0)


def test_broken_exif_does_not_stop_a_photo(tmp_path: Path) -> None:
    path = saved(picture(), tmp_path / "odd.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = open_photo(path)
    assert photo.image.size == (40, 24)


def test_exif_that_cannot_be_applied_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageOps, "exif_transpose", _no_exif)
    photo = open_photo(picture())
    assert "EXIF data is broken" in photo.notices[0]
    assert psnr(photo.image, picture()) == float("inf")


def _no_exif(image: Image.Image) -> Image.Image:
    raise struct.error("unpack requires a buffer of 2 bytes")


# --- modes ---------------------------------------------------------------------------------


def ramp(dtype: type, top: float) -> np.ndarray:
    return np.linspace(0, top, 40 * 24).reshape(24, 40).astype(dtype)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    path = saved(Image.fromarray(ramp(np.uint16, 65535)), tmp_path / name)
    got = np.asarray(open_photo(path).image)[:, :, 0]
    assert np.array_equal(got, np.rint(ramp(np.uint16, 65535) / 257.0))
    assert got.min() == 0
    assert got.max() == 255
    assert len(np.unique(got)) > 250


def test_a_dark_sixteen_bit_png_stays_dark(tmp_path: Path) -> None:
    path = saved(Image.fromarray(ramp(np.uint16, 200)), tmp_path / "dark.png")
    assert np.asarray(open_photo(path).image).max() == 1


def test_a_turned_sixteen_bit_png_is_scaled_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(ramp(np.uint16, 65535)), tmp_path / "t.png", exif=exif)
    image = open_photo(path).image
    assert image.size == (24, 40)
    assert np.asarray(image).max() == 255


@pytest.mark.parametrize(
    ("dtype", "top", "notice"),
    [
        (np.int32, 255, "0 to 255"),
        (np.int32, 65535, "0 to 65535"),
        (np.int32, 1_000_000, "stretched"),
        (np.float32, 1.0, "0 to 1"),
        (np.float32, 255.0, "0 to 255"),
        (np.float32, -3.0, "stretched"),
    ],
)
def test_whole_and_floating_tiffs(tmp_path: Path, dtype: type, top: float, notice: str) -> None:
    photo = open_photo(saved(Image.fromarray(ramp(dtype, top)), tmp_path / "f.tif"))
    got = np.asarray(photo.image)
    assert (got.min(), got.max()) == (0, 255)
    assert notice in photo.notices[0]


def test_values_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    bad = ramp(np.float32, 1.0)
    bad[3, 3] = np.nan
    with pytest.raises(PhotoError, match="not numbers"):
        open_photo(saved(Image.fromarray(bad), tmp_path / "nan.tif"))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_modes_without_alpha(mode: str) -> None:
    photo = open_photo(picture().convert(mode))
    assert photo.image.mode == "RGB"
    assert photo.alpha is None
    assert photo.finish(photo.image).mode == "RGB"
    if mode in ("CMYK", "YCbCr"):
        assert psnr(photo.image, picture()) > 40


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (32, 32), (200, 40, 30)).convert("CMYK"), tmp_path / "c.jpg")
    red, green, blue = np.asarray(open_photo(path).image)[16, 16].astype(int)
    assert abs(red - 200) < 12
    assert abs(green - 40) < 12
    assert abs(blue - 30) < 12


def test_a_mode_that_pil_cannot_convert_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("LAB", (16, 16))  # newer versions of PIL convert it, older ones refuse
    monkeypatch.setattr(Image.Image, "convert", _no_conversion)
    with pytest.raises(PhotoError, match="LAB"):
        open_photo(image)


def _no_conversion(self: Image.Image, mode: str) -> Image.Image:
    raise ValueError(f"conversion from {self.mode} to {mode} not supported")


def half_transparent() -> Image.Image:
    image = picture().convert("RGBA")
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, :10] = 0
    alpha[:, 10:20] = 128
    image.putalpha(Image.fromarray(alpha))
    return image


def test_alpha_is_seen_on_white_and_put_back(tmp_path: Path) -> None:
    source = half_transparent()
    photo = open_photo(saved(source, tmp_path / "sticker.png"))
    seen = np.asarray(photo.image)
    assert (seen[:, :10] == 255).all()
    assert np.array_equal(seen[:, 20:], np.asarray(source)[:, 20:, :3])
    finished = photo.finish(photo.image)
    assert finished.mode == "RGBA"
    assert np.array_equal(np.asarray(finished)[..., 3], np.asarray(source)[..., 3])
    assert np.array_equal(np.asarray(finished)[:, 20:], np.asarray(source)[:, 20:])
    again = open_photo(finished)  # laid on white it is the same picture, not whitened twice
    difference = np.asarray(again.image).astype(int) - seen.astype(int)
    assert abs(difference).max() <= 1


def test_finish_refuses_another_size() -> None:
    with pytest.raises(PhotoError, match="undo the fit"):
        open_photo(half_transparent()).finish(Image.new("RGB", (41, 24)))


def test_every_sort_of_transparency_is_found(tmp_path: Path) -> None:
    grey = picture().convert("LA")
    grey.putalpha(128)
    palette = picture().convert("P")
    paths = [
        saved(grey, tmp_path / "grey.png"),
        saved(palette, tmp_path / "palette.png", transparency=palette.getpixel((20, 12))),
        saved(palette, tmp_path / "palette.gif", transparency=palette.getpixel((20, 12))),
        saved(picture(), tmp_path / "keyed.png", transparency=picture().getpixel((20, 12))),
        saved(half_transparent(), tmp_path / "alpha.webp", lossless=True),
    ]
    for path in paths:
        photo = open_photo(path)
        assert photo.alpha is not None, path.name
        assert np.asarray(photo.alpha).min() < 255, path.name
        assert photo.finish(photo.image).mode == "RGBA"


def test_the_colour_profile_goes_back_on(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = open_photo(saved(picture(), tmp_path / "p.png", icc_profile=profile))
    out = tmp_path / "out.png"
    photo.finish(photo.image).save(out)
    with Image.open(out) as again:
        assert again.info["icc_profile"] == profile


def test_a_grey_profile_is_not_put_on_rgb(tmp_path: Path) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    path = tmp_path / "g.png"
    picture().convert("L").save(path, icc_profile=bytes(profile))
    photo = open_photo(path)
    assert photo.icc_profile is None
    assert "icc_profile" not in photo.finish(photo.image).info


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_frame_and_a_notice(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"moving.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    with caplog.at_level(logging.WARNING):
        photo = open_photo(path)
    assert photo.image.getpixel((5, 5)) == (255, 0, 0)
    assert "animation of 3 frames" in photo.notices[0]
    assert "animation of 3 frames" in caplog.text


def test_arrays_of_every_sort() -> None:
    rgb = np.asarray(picture())
    assert np.array_equal(np.asarray(open_photo(rgb / 255.0).image), rgb)
    deep = open_photo(rgb[:, :, 0].astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(deep.image)[:, :, 1], rgb[:, :, 0])
    assert open_photo(np.asarray(half_transparent())).alpha is not None
    assert open_photo(rgb[:, :, :1] > 100).image.getextrema()[0] == (0, 255)
    for wrong, line in [
        (rgb[None], "H, W"),
        (rgb / 127.5 - 1, "from 0 to 1"),
        (rgb.astype(np.int64), "int64"),
        (rgb[:4], "at least 8"),
    ]:
        with pytest.raises(PhotoError, match=line):
            open_photo(wrong)
    with pytest.raises(TypeError, match="path"):
        open_photo(7)  # type: ignore[arg-type]


# --- what can be wrong ---------------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[PhotoError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    for word in words:
        assert word in text


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path / "nothing.png")
    one_line(error, "nothing.png", "no file")
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path)
    one_line(error, "folder")
    (tmp_path / "zero.jpg").write_bytes(b"")
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path / "zero.jpg")
    one_line(error, "zero.jpg", "empty")
    with pytest.raises(PhotoError) as error:
        open_photo("a\0b.png")
    one_line(error, "cannot be read")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(picture(), tmp_path / "secret.png")
    path.chmod(0)
    try:
        path.read_bytes()
        readable = True  # root reads everything: let the system's answer be played
    except PermissionError:
        readable = False
    if readable:
        monkeypatch.setattr(Path, "read_bytes", lambda self: _refuse())
    with pytest.raises(PhotoError) as error:
        open_photo(path)
    one_line(error, "secret.png", "permissions")


def _refuse() -> bytes:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_file_cut_short_is_an_error_not_a_grey_half(
    tmp_path: Path, kind: str, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(data[: max(12, int(len(data) * part))])
    for lenient in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
        with pytest.raises(PhotoError) as error:
            open_photo(path)
        one_line(error, path.name)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_truncated_picture_handed_over_by_pil(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path.write_bytes(encoded(Image.fromarray(noise), "PNG")[:6000])
    with Image.open(path) as lazy, pytest.raises(PhotoError, match=r"half\.png"):
        open_photo(lazy)


def test_damaged_bytes_in_the_middle(tmp_path: Path) -> None:
    data = bytearray(encoded(picture(200, 200), "PNG"))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "broken.png").write_bytes(data)
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path / "broken.png")
    one_line(error, "broken.png")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"shopping list: milk, eggs", "text"),
        (b"<!doctype html><html><body>404</body></html>", "web page"),
        (b"<?xml version='1.0'?><svg xmlns='x'></svg>", "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04" + bytes(40), "archive"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (bytes(range(256)) * 4, "not a picture"),
        ("caf\u00e9 ".encode() * 200, "text"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "photo.png").write_bytes(data)
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path / "photo.png")
    one_line(error, "photo.png", words)


@pytest.mark.parametrize("size", [(7, 300), (300, 7), (1, 1)])
def test_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(PhotoError, match=f"{size[0]} x {size[1]}.*at least 8"):
        open_photo(saved(Image.new("RGB", size), tmp_path / "dot.png"))
    assert open_photo(Image.new("RGB", (8, 8))).image.size == (8, 8)


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that promises width x height and holds almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("size", "said"),
    [((7072, 7072), "50.0"), ((10_000, 9_000), "90.0"), ((60_000, 60_000), "3600.0")],
)
def test_too_many_pixels_are_refused_by_the_header(
    tmp_path: Path, size: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", _must_not_decode)
    (tmp_path / "bomb.png").write_bytes(header_only_png(*size))
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path / "bomb.png")
    one_line(error, "bomb.png", said, "megapixels", "shrink")


def _must_not_decode(self: ImageFile.ImageFile) -> None:
    raise AssertionError("a pixel was decoded")


def test_an_interpreter_is_never_started(tmp_path: Path) -> None:
    path = tmp_path / "drawing.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    with pytest.raises(PhotoError, match="PostScript"):
        open_photo(path)


# --- tensors and PSNR ----------------------------------------------------------------------


def test_every_value_survives_the_tensor() -> None:
    values = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3) % 256
    image = Image.fromarray(values.astype(np.uint8))
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 16, 16)
    assert str(tensor.dtype) == "torch.float32"
    assert float(tensor.min()) == -1.0
    assert float(tensor.max()) == 1.0
    assert np.array_equal(np.asarray(to_image(tensor)), values)
    assert np.array_equal(np.asarray(to_image(tensor[0])), values)


def test_the_axes_are_height_then_width() -> None:
    tensor = to_tensor(picture())
    assert tensor.shape == (1, 3, 24, 40)
    assert tensor[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]


def test_to_image_rounds_clamps_and_refuses() -> None:
    import torch

    tensor = torch.zeros(3, 8, 8)
    tensor[0], tensor[1] = 4.0, -4.0
    assert to_image(tensor).getpixel((0, 0)) == (255, 0, 128)
    with pytest.raises(ValueError, match="NaN"):
        to_image(torch.full((3, 8, 8), float("nan")))
    for shape in [(2, 3, 8, 8), (4, 8, 8), (8, 8)]:
        with pytest.raises(ValueError, match="3, H, W"):
            to_image(torch.zeros(shape))
    assert to_image(torch.zeros(3, 8, 8, dtype=torch.float16, requires_grad=True)).size == (8, 8)


def test_psnr_is_the_textbook_number() -> None:
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 10, np.uint8)
    assert psnr(black, grey) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr(Image.fromarray(grey), grey) == float("inf")
    with pytest.raises(ValueError, match="one size"):
        psnr(black, black[:4])
    with pytest.raises(ValueError, match="uint8"):
        psnr(black, black / 255)
