"""Every option that is taken has an effect: on the picture, on the file, or on what is said."""

from __future__ import annotations

import filecmp
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inversion import Inversion

from .commands import FEW, RED_BALL, SOURCE, Run, call, files_in, pixels

SWAP = ("--source", SOURCE, "--swap", "red=blue")


def edited(*argv: object, out: str = "out") -> np.ndarray:
    run = call("edit", *argv, "--quiet", "--out", out)
    assert run.code == 0, run.err
    return pixels(f"{out}/edited.png")


@pytest.fixture
def plain(saved: Path, cwd: Path) -> np.ndarray:
    """The edit that nothing else is said of."""
    return edited(saved, "--swap", "red=blue")


@pytest.mark.parametrize(
    "argv",
    [
        ("--guidance", 4),
        ("--cross-replace", 0.4),
        ("--cross-replace", "blue=0.4"),
        ("--cross-replace", 0, "--self-replace", 1),
        ("--self-replace", 0),
        ("--edit-option", "self_scale=1", "--self-replace", 1),
        ("--edit-option", "mode=refine"),
        ("--weight", "blue=3"),
        ("--strength", 0.5),
        ("--no-local",),
        ("--edit", "plain"),
        ("--add", "in the snow"),
        ("--style", "a watercolor painting"),
    ],
    ids=lambda argv: " ".join(map(str, argv)),
)
def test_edit_options_change_the_picture(
    argv: tuple[object, ...], plain: np.ndarray, saved: Path
) -> None:
    assert (edited(saved, "--swap", "red=blue", *argv) != plain).any()


def test_local_options_change_the_mask(saved: Path, cwd: Path) -> None:
    local = ("--swap", "red=blue", "--local", "ball")
    more = (
        (),
        ("--local-threshold", 0.7),
        ("--local-start", 0.9),
        ("--subtract", "table", "--local-threshold", 0.6),
    )
    found = [edited(saved, *local, *argv) for argv in more]
    for one, other in itertools.combinations(found, 2):
        assert (one != other).any()


def test_local_takes_old_and_new(saved: Path, cwd: Path) -> None:
    swap = ("--swap", "ball=cube")
    both = edited(saved, *swap, "--local", "ball=cube")
    assert (both == edited(saved, *swap, "--local", "ball")).all()
    assert (both == edited(saved, *swap, "--local", "cube")).all()


def test_explicit_maps_give_the_same_picture(saved: Path, cwd: Path) -> None:
    argv = ("--swap", "red ball=blue cube", "--local", "cube", "--weight", "blue=2")
    apart = edited(saved, *argv) - edited(saved, *argv, "--explicit")
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize("method", ["direct", "ddim", "null-text", "negative-prompt"])
def test_strength_0_is_the_reconstruction(method: str, cwd: Path) -> None:
    argv = (*SWAP[:2], "--swap", "red ball=big blue cube", "--strength", 0, "--method", method)
    apart = edited(RED_BALL, *argv, *FEW[:2]) - pixels("out/reconstruction.png")
    assert np.abs(apart).max() <= 1  # a value may round to either side


def test_strength_grows_the_change(saved: Path, cwd: Path) -> None:
    changes = []
    for strength in (0, 0.3, 1):
        after = edited(saved, "--swap", "red=blue", "--strength", strength)
        changes.append(np.abs(after - pixels("out/reconstruction.png")).mean())
    assert changes[0] < 1e-3 < changes[1] < changes[2]  # a value may round to either side


def test_one_step_works(cwd: Path) -> None:
    run = call("edit", RED_BALL, *SWAP, "--steps", 1, "--local", "ball", "--json", "--quiet")
    assert run.code == 0, run.err
    assert run.json["steps"] == 1
    assert run.json["steps_injected"]["cross-attention"] == [0]
    assert (pixels("out/edited.png") != pixels("out/reconstruction.png")).any()
    for method in ("null-text", "negative-prompt", "ddim"):
        assert call("invert", RED_BALL, *SWAP[:0], "--prompt", SOURCE, "--steps", 1, "--method",
                    method, "--out", f"{method}.inv.safetensors", "--quiet").code == 0  # fmt: skip


def invert(*argv: object) -> Inversion:
    run = call("invert", *argv, "--quiet", "--out", "x.inv.safetensors")
    assert run.code == 0, run.err
    return Inversion.load("x.inv.safetensors")


def test_invert_options_change_the_file(photos: Path, cwd: Path) -> None:
    base = (photos / "odd.png", "--prompt", SOURCE, "--steps", 3)
    ways = {
        "base": (),
        "prompt": ("--prompt", "a cube"),
        "steps": ("--steps", 4),
        "option": ("--method-option", "inversion_guidance=3", "--method", "ddim"),
        "crop": ("--fit", "crop"),
        "pad": ("--fit", "pad"),
        "bfloat16": ("--dtype", "bfloat16"),
    }
    found = {name: invert(*base, *argv).trajectory for name, argv in ways.items()}
    for one, other in itertools.combinations(found, 2):
        a, b = found[one], found[other]
        assert a.shape != b.shape or not torch.equal(a, b), (one, other)


def test_what_is_kept_for_the_way_back(cwd: Path) -> None:
    base = (RED_BALL, "--prompt", SOURCE, "--steps", 3)
    assert invert(*base, "--guidance", 4).guidance_scale == 4
    assert invert(*base, "--negative-prompt", "dull").extra["negative_prompt"] == "dull"
    assert invert(*base, "--seed", 9).extra["seed"] == 9
    first = edited("x.inv.safetensors", "--swap", "red=blue")
    invert(*base, "--negative-prompt", "blue")
    assert (edited("x.inv.safetensors", "--swap", "red=blue") != first).any()


def test_generate_options(cwd: Path) -> None:
    def drawn(*argv: object) -> np.ndarray:
        run = call("generate", SOURCE, *FEW, *argv)
        assert run.code == 0, run.err
        return pixels("out/edited.png")

    base = drawn()
    assert (drawn() == base).all()
    for argv in (("--seed", 1), ("--guidance", 1), ("--negative-prompt", "red"), ("--steps", 4)):
        assert (drawn(*argv) != base).any()
    assert drawn("--size", "72x40").shape == (40, 72, 3)
    Image.new("L", (96, 96), 255).save("large.png")
    run = call("generate", SOURCE, *FEW, "--swap", "red=blue", "--mask", "large.png")
    side = base.shape[0]
    assert f"--mask is 96 x 96, the photo {side} x {side}" in run.line()


def test_caption_options(cwd: Path) -> None:
    assert call("caption", RED_BALL, "--prefix", "there is").out.startswith("there is")
    draws = {call("caption", RED_BALL, "--sample", "--seed", n).out for n in range(12)}
    assert draws
    one = [call("caption", RED_BALL, "--sample", "--seed", 3).out for _ in range(2)]
    assert one[0] == one[1]


def test_json_and_quiet(saved: Path, cwd: Path) -> None:
    loud = call("edit", saved, "--swap", "red=blue", "--json")
    assert "note: " in loud.err
    assert "editing: " in loud.err, "no progress bar"
    quiet = call("edit", saved, "--swap", "red=blue", "--json", "--quiet")
    assert quiet.err == ""
    assert loud.json.keys() == quiet.json.keys()


# --again ----------------------------------------------------------------------------------------


def same(one: str, other: str) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def test_again_is_bit_for_bit_and_options_win(cwd: Path) -> None:
    first = call("edit", RED_BALL, *SWAP, *FEW, "--local", "ball", "--seed", 4, "--out", "one")
    assert first.code == 0
    for picture in ("edited.png", "strip.png", "mask.png", "reconstruction.png"):
        assert call("edit", "--again", f"one/{picture}", "--quiet", "--out", "two").code == 0
        assert same("one/edited.png", "two/edited.png")
    run = call("edit", "--again", "one/edited.png", "--strength", 0.5, "--json", "--quiet")
    assert run.json["settings"]["strength"] == 0.5
    assert run.json["seed"] == 4
    assert run.json["target"] == SOURCE.replace("red", "blue")
    assert not same("one/edited.png", "out/edited.png")


def test_again_with_other_words(cwd: Path) -> None:
    assert call("edit", RED_BALL, *SWAP, *FEW, "--out", "one").code == 0
    again = ("edit", "--again", "one/edited.png", "--json", "--quiet")
    assert call(*again, "--swap", "red=green").json["target"] == SOURCE.replace("red", "green")
    assert call(*again, "--target", "a blue mug").json["target"] == "a blue mug"
    added = call(*again, "--add", "in the snow").json["target"]
    assert added == f"{SOURCE.replace('red', 'blue')} in the snow"
    assert call(*again, "--steps", 5).json["steps"] == 5


def test_again_notices_another_photo(cwd: Path) -> None:
    photo = Path("photo.png")
    photo.write_bytes(RED_BALL.read_bytes())
    assert call("edit", photo, *SWAP, *FEW, "--out", "one").code == 0
    Image.open(RED_BALL).rotate(90).save(photo)
    run: Run = call("edit", "--again", "one/edited.png", "--quiet")
    assert run.code == 0
    assert run.err == "warning: photo.png is not the photo that the first edit was made of\n"
    photo.unlink()
    assert (
        "name it, p2p-real edit PHOTO --again" in call("edit", "--again", "one/edited.png").line()
    )
    assert call("edit", RED_BALL, "--again", "one/edited.png", "--quiet", "--out", "two").code == 0
    assert (
        same("one/edited.png", "two/edited.png")
        or (pixels("one/edited.png") == pixels("two/edited.png")).all()
    )


# The cache --------------------------------------------------------------------------------------


def test_cache_hits_and_misses(photos: Path, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cwd / "c"))
    kept = cwd / "c/p2p-real/inversions"
    base = ("invert", RED_BALL, "--prompt", SOURCE, *FEW, "--json", "--out", "x.inv.safetensors")
    first = call(*base).json
    second = call(*base).json
    assert (first["from_cache"], second["from_cache"]) == (False, True)
    assert second["reconstruction_psnr"] == first["reconstruction_psnr"]
    Path("same.png").write_bytes(RED_BALL.read_bytes())
    assert call(base[0], "same.png", *base[2:]).json["from_cache"]
    for argv in (
        ("--prompt", "a ball"),
        ("--steps", 4),
        ("--guidance", 4),
        ("--method", "ddim"),
        ("--method", "direct", "--method-option", "share=0.5"),
        ("--negative-prompt", "dull"),
        ("--seed", 1),
        ("--dtype", "bfloat16"),
    ):
        assert not call(*base, *argv).json["from_cache"], argv
    changed = Image.open(RED_BALL).convert("RGB")
    changed.putpixel((5, 5), (1, 2, 3))
    changed.save("changed.png")
    assert not call(base[0], "changed.png", *base[2:]).json["from_cache"]
    assert not call(base[0], photos / "odd.png", *base[2:], "--fit", "pad").json["from_cache"]
    assert not call(base[0], photos / "odd.png", *base[2:], "--fit", "crop").json["from_cache"]
    assert call(*base).json["from_cache"]
    before = files_in(kept)
    assert len(before) == 12
    assert not call(*base, "--no-cache").json["from_cache"]
    assert not call(*base, "--no-cache", "--steps", 5).json["from_cache"]
    assert files_in(kept) == before
    run = call("edit", RED_BALL, *SWAP, *FEW, "--json")
    assert run.json["inversion_from_cache"]


def test_a_damaged_cache_file_is_named_and_made_again(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cwd / "c"))
    base = ("invert", RED_BALL, "--prompt", SOURCE, *FEW, "--json", "--out", "x.inv.safetensors")
    call(*base)
    (file,) = (cwd / "c/p2p-real/inversions").iterdir()
    before = Inversion.load(file)
    file.write_bytes(file.read_bytes()[:-1000])
    run = call(*base)
    assert run.code == 0
    assert not run.json["from_cache"]
    assert run.err.startswith("warning: cached inversion is damaged and is made again: ")
    assert str(file) in run.err
    assert run.err.count("\n") == 1
    assert torch.equal(Inversion.load(file).trajectory, before.trajectory)
    assert call(*base).json["from_cache"]
