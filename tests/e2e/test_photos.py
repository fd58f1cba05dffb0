"""Photos of every size and kind through ``edit``: what comes back is the photo's own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from .commands import FEW, RED_BALL, SOURCE, call, files_in, finish, pixels, start

SWAP = ("--source", SOURCE, "--swap", "red=blue", *FEW)
KINDS = {
    "odd.png": (101, 67),
    "least.png": (8, 8),
    "alpha.png": (300, 120),
    "rotated.jpg": (60, 90),
    "grey.png": (64, 64),
    "cmyk.jpg": (64, 64),
    "sixteen.png": (64, 64),
    "large.jpg": (4000, 3000),
}


@pytest.mark.parametrize("name", KINDS)
def test_edited_has_the_photos_size(name: str, photos: Path, cwd: Path) -> None:
    run = call("edit", photos / name, *SWAP, "--json")
    assert run.code == 0, run.err
    for file in ("edited.png", "reconstruction.png"):
        assert Image.open(f"out/{file}").size == KINDS[name]
    mode = "RGBA" if name == "alpha.png" else "RGB"
    assert Image.open("out/edited.png").mode == mode
    # the reconstruction is the photo: neither turned, shifted nor of other colours
    photo = ImageOps.exif_transpose(Image.open(photos / name))
    if name == "sixteen.png":
        photo = Image.fromarray((np.asarray(photo) // 257).astype(np.uint8))
    if name == "alpha.png":
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    small = [
        np.asarray(p.convert("RGB").resize((8, 8), Image.Resampling.BOX)).astype(int)
        for p in (photo, Image.open("out/reconstruction.png"))
    ]
    assert np.abs(small[0] - small[1]).mean() < 20


def test_alpha_is_kept(photos: Path, cwd: Path) -> None:
    assert call("edit", photos / "alpha.png", *SWAP).code == 0
    alphas = [Image.open(p).getchannel("A") for p in (photos / "alpha.png", "out/edited.png")]
    assert alphas[0].tobytes() == alphas[1].tobytes()


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
@pytest.mark.parametrize("name", ["red_ball", "odd.png"])
def test_paste_back_keeps_the_photos_pixels(fit: str, name: str, photos: Path, cwd: Path) -> None:
    photo = RED_BALL if name == "red_ball" else photos / name
    local = ("--local", "ball", "--local-start", "0", "--fit", fit)
    assert call("edit", photo, *SWAP, *local, "--paste-back").code == 0
    mask = pixels("out/mask.png")[..., 0] > 127
    before, after = pixels(photo), pixels("out/edited.png")
    assert mask.shape == before.shape[:2]
    assert 0 < mask.mean() < 1
    assert (after[~mask] == before[~mask]).all()
    assert (after[mask] != before[mask]).any()


def test_paste_back_of_an_inversion_needs_its_pixels(photos: Path, cwd: Path) -> None:
    edit = ("--swap", "red=blue", "--local", "ball", "--paste-back", "--quiet")
    for photo, whole in ((RED_BALL, True), (photos / "large.jpg", False)):
        made = call("invert", photo, "--prompt", SOURCE, *FEW, "--out", "x.inv.safetensors")
        assert made.code == 0
        run = call("edit", "x.inv.safetensors", *edit)
        if whole:
            mask = pixels("out/mask.png")[..., 0] > 127
            assert (pixels("out/edited.png")[~mask] == pixels(photo)[~mask]).all()
        else:
            assert "give the photo instead" in run.line()


def test_mask(cwd: Path) -> None:
    size = Image.open(RED_BALL).size
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save("left.png")
    run = call("edit", RED_BALL, *SWAP, "--mask", "left.png", "--paste-back", "--json")
    assert run.code == 0, run.err
    assert run.json["mask_coverage"] == 0.5
    assert run.json["settings"]["mask"] == "left.png"
    before, after = pixels(RED_BALL), pixels("out/edited.png")
    half = size[0] // 2
    assert (after[:, half:] == before[:, half:]).all()
    assert (after[:, :half] != before[:, :half]).any()
    free = call("edit", RED_BALL, *SWAP, "--out", "free")
    assert free.code == 0
    assert (pixels("free/edited.png")[:, half:] != before[:, half:]).any()


def test_names_of_every_kind_and_words_with_signs(cwd: Path) -> None:
    name = "my photo's – ñ 照片 🎈.png"
    Path(name).write_bytes(RED_BALL.read_bytes())
    source = 'it\'s a "red" ball #1, 50% off 🎈'
    run = call("edit", name, "--source", source, "--swap", "red=blue", *FEW, "--out", "über ort")
    assert run.code == 0, run.err
    assert {"über ort/edited.png", "über ort/report.json"} <= files_in(cwd)
    again = call("edit", "--again", "über ort/edited.png", "--json", "--quiet")
    assert again.json["source"] == source
    assert again.json["target"] == source.replace("red", "blue")
    assert again.json["command"]["options"]["photo"] == name
    assert (pixels("out/edited.png") == pixels("über ort/edited.png")).all()


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = b"\xff\xfe.png"
    (tmp_path / "ok.png").write_bytes(RED_BALL.read_bytes())
    try:
        (tmp_path / "ok.png").rename(tmp_path / name.decode("utf-8", "surrogateescape"))
    except OSError:
        pytest.skip("this file system takes no such names")
    argv: list[Any] = ["caption", name.decode("utf-8", "surrogateescape"), "--json", "--quiet"]
    run = finish(start(argv, tmp_path))
    assert run.code == 0, run.err
    assert run.json["captions"][0]["caption"] == SOURCE


@pytest.mark.parametrize(
    ("argv", "target"),
    [
        (("--swap", "red ball=light green cube"), "a light green cube on a wooden table at noon"),
        (("--swap", "a#1=the"), "the red ball on a wooden table at noon"),
        (("--add", "in the snow"), f"{SOURCE} in the snow"),
        (("--remove", "red"), "a ball on a wooden table at noon"),
        (("--style", "a watercolor painting"), f"a watercolor painting of {SOURCE}"),
        (("--weight", "red=-2"), SOURCE),
        (("--target", "a blue mug"), "a blue mug"),
    ],
)
def test_ways_to_say_it(argv: tuple[str, ...], target: str, saved: Path, cwd: Path) -> None:
    run = call("edit", saved, *argv, "--quiet", "--json")
    assert run.code == 0, run.err
    assert run.json["target"] == target
    assert (pixels("out/edited.png") != pixels("out/reconstruction.png")).any()
