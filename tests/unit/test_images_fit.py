"""The way to the model's grid and back: nothing shifts, no pixel changes without need."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from p2p_real.images import Fit, fit_photo, psnr


def smooth(width: int, height: int) -> Image.Image:
    """Slow waves without symmetry: what survives any reasonable resampling unharmed."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / width, y / height
    waves = [np.sin(7 * u + 2 * v), np.cos(5 * v + u * u * 4), np.sin(6 * u * v + v)]
    return Image.fromarray(np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8))


def shift_between(a: Image.Image, b: Image.Image) -> tuple[float, float]:
    """Sub-pixel shift (dx, dy) of b against a, by least squares on the gradient."""
    first = np.asarray(a, np.float64).mean(axis=-1)
    second = np.asarray(b, np.float64).mean(axis=-1)
    gy, gx = np.gradient(first)
    inner = (slice(8, -8), slice(8, -8))
    rows = np.stack([gx[inner].ravel(), gy[inner].ravel(), np.ones(gx[inner].size)], axis=1)
    answer, *_ = np.linalg.lstsq(rows, (first - second)[inner].ravel(), rcond=None)
    return float(answer[0]), float(answer[1])


def test_the_measure_of_shift_sees_a_shift() -> None:
    image = smooth(300, 200)
    moved = Image.fromarray(np.roll(np.asarray(image), (1, 2), axis=(0, 1)))
    dx, dy = shift_between(image, moved)
    assert dx == pytest.approx(2, abs=0.1)
    assert dy == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("mode", ["resize", "pad", "crop"])
@pytest.mark.parametrize("size", [(1000, 750), (301, 517), (129, 1001), (128, 128), (90, 61)])
def test_an_unchanged_picture_comes_back_pixel_aligned(mode: str, size: tuple[int, int]) -> None:
    photo = smooth(*size)
    fitted, fit = fit_photo(photo, multiple=8, native=256, mode=mode)
    back = fit.undo(fitted, photo)
    assert back.size == photo.size
    assert psnr(back, photo) > 38
    dx, dy = shift_between(photo, back)
    assert abs(dx) < 0.05
    assert abs(dy) < 0.05


@pytest.mark.parametrize("mode", ["resize", "pad"])
@pytest.mark.parametrize("size", [(512, 512), (640, 480), (400, 600), (376, 504)])
def test_a_photo_on_the_grid_is_left_alone(mode: str, size: tuple[int, int]) -> None:
    photo = smooth(*size)
    fitted, fit = fit_photo(photo, mode=mode)
    assert not fit.resamples
    assert psnr(fitted, photo) == float("inf")
    assert psnr(fit.undo(fitted), photo) == float("inf")


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((4000, 3000), (576, 432)),
        ((3000, 4000), (432, 576)),
        ((1920, 1080), (696, 392)),
        ((100, 100), (512, 512)),
        ((513, 512), (512, 512)),
    ],
)
def test_resize_holds_aspect_and_area(size: tuple[int, int], seen: tuple[int, int]) -> None:
    fitted, fit = fit_photo(Image.new("RGB", size))
    width, height = fitted.size
    assert width % 8 == height % 8 == 0
    assert abs(np.log(width / height * size[1] / size[0])) < 0.01
    assert 0.75 < width * height / 512**2 < 1.3
    assert fit.fitted == fitted.size
    assert fitted.size == seen


def test_turning_a_photo_turns_its_fit() -> None:
    for size in [(1333, 777), (900, 100), (5000, 8)]:
        lying, standing = Image.new("RGB", size), Image.new("RGB", size[::-1])
        assert fit_photo(lying)[0].size == fit_photo(standing)[0].size[::-1]


def test_an_absurdly_long_photo_stays_near_the_native_area() -> None:
    fitted, fit = fit_photo(Image.new("RGB", (60_000, 8)))
    assert fitted.size[0] * fitted.size[1] < 1.5 * 512**2
    assert fit.undo(fitted).size == (60_000, 8)


def test_pad_reflects_to_the_right_and_below_and_gives_every_pixel_back() -> None:
    photo = smooth(250, 203)
    fitted, fit = fit_photo(photo, native=256, mode="pad")
    assert fitted.size == (256, 208)
    pixels, source = np.asarray(fitted), np.asarray(photo)
    assert np.array_equal(pixels[:203, :250], source)
    assert np.array_equal(pixels[:203, 250:], source[:, 248:242:-1])
    assert psnr(fit.undo(fitted), photo) == float("inf")


def test_crop_takes_the_middle_and_lays_the_edit_back() -> None:
    photo = smooth(700, 516)
    fitted, fit = fit_photo(photo, mode="crop")
    assert fitted.size == (512, 512)
    assert fit.box == (94, 2, 606, 514)
    edited = Image.new("RGB", (512, 512), "red")
    back = np.asarray(fit.undo(edited, photo))
    assert (back[2:514, 94:606] == (255, 0, 0)).all()
    outside = back.copy()
    outside[2:514, 94:606] = np.asarray(photo)[2:514, 94:606]
    assert np.array_equal(outside, np.asarray(photo))
    with pytest.raises(ValueError, match="original"):
        fit.undo(edited)


@pytest.mark.parametrize("mode", ["resize", "pad", "crop"])
def test_a_mask_goes_the_same_way_as_the_photo(mode: str) -> None:
    photo = Image.new("RGB", (777, 333), "white")
    photo.paste("black", (300, 100, 450, 200))
    fitted, fit = fit_photo(photo, native=256, mode=mode)
    mask = fit.apply(photo.convert("L"))
    assert mask.size == fitted.size
    agree = (np.asarray(mask) < 128) == (np.asarray(fitted)[:, :, 1] < 128)
    assert agree.mean() > 0.99
    bits = fit.apply(photo.convert("1"))
    assert bits.size == fitted.size
    heat = Image.fromarray(np.zeros(fitted.size[::-1], np.float32))
    assert fit.undo(heat, Image.new("F", photo.size)).size == photo.size


def test_a_map_does_not_overshoot() -> None:
    _, fit = fit_photo(Image.new("RGB", (900, 900)), native=64)
    step = np.zeros((64, 64), np.float32)
    step[:, 32:] = 1.0
    back = np.asarray(fit.undo(Image.fromarray(step)))
    assert back.min() >= 0.0
    assert back.max() <= 1.0


def test_json_round_trip_and_what_it_refuses() -> None:
    for mode in ("resize", "pad", "crop"):
        _, fit = fit_photo(Image.new("RGB", (333, 777)), mode=mode)
        assert Fit.from_json(json.loads(json.dumps(fit.to_json()))) == fit
    good = fit.to_json()
    bad: list[dict[str, object]] = [
        {},
        {**good, "mode": "squash"},
        {**good, "box": [0, 0, 9000, 10]},
        {**good, "scaled": [1, 2, 3]},
        {**good, "fitted": None},
    ]
    for data in bad:
        with pytest.raises(ValueError, match="fit"):
            Fit.from_json(data)


def test_wrong_arguments_and_sizes() -> None:
    photo = Image.new("RGB", (100, 100))
    with pytest.raises(ValueError, match="resize, crop, pad"):
        fit_photo(photo, mode="squash")
    with pytest.raises(ValueError, match="multiple"):
        fit_photo(photo, multiple=0)
    _, fit = fit_photo(photo)
    with pytest.raises(ValueError, match="512 x 512"):
        fit.undo(photo)
    with pytest.raises(ValueError, match="100 x 100"):
        fit.apply(Image.new("RGB", (99, 100)))
