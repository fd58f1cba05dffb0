"""Strips, sheets and heat maps are looked at by their pixels; PNG settings come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from p2p_real.files import OutputError
from p2p_real.pictures import SettingsError, grid, heatmap, read_settings, save_png, strip

WHITE = np.array([255, 255, 255])


def checks(side: int) -> Image.Image:
    """A chessboard of single pixels: any smoothing would make grey of it."""
    y, x = np.mgrid[0:side, 0:side]
    return Image.fromarray(((x + y) % 2 * 255).astype(np.uint8)).convert("RGB")


def colour_boxes(sheet: Image.Image, colour: str) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of all pixels of one colour."""
    wanted = np.array(Image.new("RGB", (1, 1), colour))[0, 0]
    ys, xs = np.nonzero((np.asarray(sheet) == wanted).all(axis=-1))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_small_pictures_are_enlarged_by_a_whole_factor_without_smoothing() -> None:
    sheet = np.asarray(strip([checks(100)]))
    inner = sheet[12:312, 12:312]
    assert set(np.unique(inner)) == {0, 255}
    assert (inner[:3, :3] == inner[0, 0]).all()
    assert (inner[:3, 3:6] != inner[0, 0]).all()
    assert (sheet[:12] == WHITE).all()
    assert (sheet[312:] == WHITE).all()
    assert sheet.shape == (324, 324, 3)


@pytest.mark.parametrize(("side", "seen"), [(128, 256), (127, 381), (256, 256), (512, 512)])
def test_the_size_at_which_a_picture_is_seen(side: int, seen: int) -> None:
    box = colour_boxes(strip([Image.new("RGB", (side, side), "red")]), "red")
    assert (box[2] - box[0], box[3] - box[1]) == (seen, seen)


def test_all_pictures_of_a_strip_are_equally_tall_and_in_order() -> None:
    sheet = strip(
        [
            Image.new("RGB", (64, 64), "red"),
            Image.new("L", (600, 300), 0),
            Image.new("RGB", (100, 200), "blue"),
        ],
        ["a", "b", "c"],
    )
    red, black, blue = (colour_boxes(sheet, c) for c in ("red", "black", "blue"))
    assert red[2] < black[0] < black[2] < blue[0]
    assert {box[3] - box[1] for box in (red, black, blue)} == {400}
    assert black[2] - black[0] == 800
    assert blue[2] - blue[0] == 200


def test_a_huge_picture_does_not_make_a_huge_strip() -> None:
    assert strip([Image.new("RGB", (3000, 6000), "red")] * 2).height <= 1024 + 24


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    return int((np.asarray(sheet.crop(box)) < 128).all(axis=-1).sum())


def test_labels_are_drawn_below_and_long_ones_are_wrapped_inside() -> None:
    red = Image.new("RGB", (256, 256), "red")
    short = strip([red, red], ["photo", ""])
    box = (12, 268, 268, short.height)
    assert ink(short, box) > 50
    assert ink(short, (280, 268, 536, short.height)) == 0
    tall = strip([red], ["a very long label about null-text inversion and what it did " * 2])
    assert tall.height > short.height + 40
    unbroken = strip([red], ["x" * 200])
    for sheet in (tall, unbroken):
        assert ink(sheet, (0, 0, 12, sheet.height)) == 0
        assert ink(sheet, (268, 0, 280, sheet.height)) == 0
        assert ink(sheet, (12, sheet.height - 12, 268, sheet.height)) == 0
    assert unbroken.height > short.height + 40


def test_transparent_places_are_white_in_a_strip() -> None:
    sheet = strip([Image.new("RGBA", (256, 256), (255, 0, 0, 0))])
    assert (np.asarray(sheet) == 255).all()


def test_a_strip_refuses_what_does_not_match() -> None:
    with pytest.raises(ValueError, match="at least one"):
        strip([])
    with pytest.raises(ValueError, match="1 labels for 2"):
        strip([checks(8)] * 2, ["one"])
    with pytest.raises(ValueError, match="one length"):
        grid([[checks(8)], [checks(8)] * 2])
    with pytest.raises(ValueError, match="row labels"):
        grid([[checks(8)]], row_labels=["a", "b"])


def test_a_sheet_has_its_cells_and_labels_in_place() -> None:
    red, lime = Image.new("RGB", (256, 256), "red"), Image.new("RGB", (256, 256), "lime")
    sheet = grid([[red, None], [None, lime]], ["first row", "second"], ["left", "right"])
    at_red, at_lime = colour_boxes(sheet, "red"), colour_boxes(sheet, "lime")
    assert at_red[2] < at_lime[0]
    assert at_red[3] < at_lime[1]
    assert sheet.getpixel((at_lime[0] + 5, at_red[1] + 5)) == (236, 236, 236)
    assert ink(sheet, (0, at_red[1], at_red[0], at_red[3])) > 50
    assert ink(sheet, (at_red[0], 0, at_red[2], at_red[1])) > 20
    assert ink(sheet, (at_lime[0], 0, at_lime[2], at_red[1])) > 20


def test_a_heat_map_is_bright_where_the_map_is_high() -> None:
    values = np.zeros((16, 16))
    values[4:8, 10:14] = 1.0
    alone = np.asarray(heatmap(values)).astype(int).sum(axis=-1)
    assert alone.shape == (256, 256)
    assert alone[64:128, 160:224].min() > alone[130:, :150].max()
    photo = Image.new("RGB", (320, 160), (90, 90, 90))
    over = np.asarray(heatmap(values, photo)).astype(int)
    assert over.shape == (160, 320, 3)
    assert over[60, 240].sum() > over[140, 20].sum() + 100
    assert over[140, 20].sum() > 150  # the photo is still seen where the map is low


def test_a_heat_map_takes_tensors_and_constants_and_fixed_limits() -> None:
    import torch

    photo = checks(32)
    assert heatmap(torch.ones(4, 4, requires_grad=True), photo).size == (32, 32)
    half = heatmap(np.full((4, 4), 0.5), low=0.0, high=1.0)
    assert half.getpixel((0, 0)) == (188, 55, 84)
    for bad in (np.zeros(4), np.full((2, 2), np.nan), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="heat map"):
            heatmap(bad)


SETTINGS: dict[str, Any] = {
    "prompt": "a „café“ \u732b",
    "steps": 50,
    "swap": {"cat": "dog"},
    "local": ["cat", None, True, 0.25],
}


def test_settings_come_back_and_the_pixels_too(tmp_path: Path) -> None:
    path = tmp_path / "edited.png"
    save_png(checks(16), path, SETTINGS)
    assert read_settings(path) == SETTINGS
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(checks(16)))
    assert [p.name for p in tmp_path.iterdir()] == ["edited.png"]


def test_alpha_and_profile_survive_the_png(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (1, 2, 3, 4))
    image.info["icc_profile"] = b"profile bytes"
    save_png(image, tmp_path / "a.png", {})
    with Image.open(tmp_path / "a.png") as again:
        assert again.getpixel((0, 0)) == (1, 2, 3, 4)
        assert again.info["icc_profile"] == b"profile bytes"


def test_a_failed_save_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edited.png"
    save_png(checks(8), path, {"run": 1})

    def half(self: Image.Image, stream: Any, *args: Any, **options: Any) -> None:
        stream.write(b"\x89PNG half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OutputError, match=r"edited\.png.*disk is full"):
        save_png(checks(8), path, {"run": 2})
    monkeypatch.undo()
    assert read_settings(path) == {"run": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["edited.png"]


def test_what_is_not_ours_is_said_in_one_line(tmp_path: Path) -> None:
    checks(8).save(tmp_path / "plain.png")
    checks(8).save(tmp_path / "photo.jpg")
    (tmp_path / "text.png").write_text("hello")
    for name, content in [("broken.png", "{half"), ("list.png", "[1]")]:
        info = PngImagePlugin.PngInfo()
        info.add_text("p2p-real", content)
        checks(8).save(tmp_path / name, pnginfo=info)
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    for name, words in [
        ("plain.png", "carries no p2p-real settings"),
        ("photo.jpg", "no readable PNG"),
        ("text.png", "no readable PNG"),
        ("cut.png", "cut.png"),
        ("broken.png", "damaged"),
        ("list.png", "damaged"),
        ("nothing.png", "no file"),
        (".", "folder"),
    ]:
        with pytest.raises(SettingsError) as error:
            read_settings(tmp_path / name)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
