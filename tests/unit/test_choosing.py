"""`auto`: the cheapest method that reaches, the path walked once, and a true account of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inversion import Inversion
from inversion.registry import SettingError, UnknownMethod
from p2p_real.cache import InversionCache
from p2p_real.choosing import Auto, inversions
from p2p_real.editor import Editor
from p2p_real.numbers import OptionError
from p2p_real.tabletop import PHOTOS

BALL, CUBE = PHOTOS / "red_ball.png", PHOTOS / "blue_cube.png"
SAID = "a red ball on a wooden table at noon"
STEPS = 4


@pytest.fixture(scope="module")
def editor() -> Editor:
    torch.set_num_threads(1)
    return Editor.load("tabletop", device="cpu", cache=False)


def test_the_cheapest_is_the_default_and_needs_no_more_rows(editor: Editor) -> None:
    auto = editor.invert(BALL, SAID, steps=STEPS)
    plain = editor.invert(BALL, SAID, steps=STEPS, method="direct")
    assert auto.method == "direct"
    assert torch.equal(auto.trajectory, plain.trajectory)
    assert auto.extra["unet_forwards"] == plain.extra["unet_forwards"] == STEPS
    story = auto.extra["auto"]
    assert [row["method"] for row in story["tried"]] == ["direct"]
    assert story["tried"][0]["reached"]
    assert "direct" in story["why"]
    assert "auto" not in plain.extra


def test_one_path_serves_all_tries(editor: Editor) -> None:
    options = {"methods": "ddim+negative-prompt+null-text", "target": 0.0}
    found = editor.invert(BALL, SAID, steps=STEPS, method="auto", guidance_scale=5, **options)
    tried = found.extra["auto"]["tried"]
    assert [row["method"] for row in tried] == ["ddim", "negative-prompt", "null-text"]
    assert [row["unet_forwards"] for row in tried[:2]] == [STEPS, 0]
    alone = editor.invert(BALL, SAID, steps=STEPS, method="null-text", guidance_scale=5)
    assert tried[2]["unet_forwards"] == alone.extra["unet_forwards"] - STEPS
    assert found.extra["unet_forwards"] == sum(row["unet_forwards"] for row in tried)
    # none reaches the ceiling itself, so the nearest is taken, and it is what it is alone
    best = max(tried, key=lambda row: row["psnr"])
    assert found.method == best["method"]
    assert "none came within" in found.extra["auto"]["why"]
    assert found.extra["reconstruction_psnr"] == best["psnr"]
    same = editor.invert(BALL, SAID, steps=STEPS, method=found.method, guidance_scale=5)
    assert torch.equal(found.trajectory, same.trajectory)
    assert all(torch.equal(found.tape[k], same.tape[k]) for k in same.tape)


def test_it_stops_where_the_target_is_reached(editor: Editor) -> None:
    options = {"methods": "ddim+null-text", "target": 60.0}
    found = editor.invert(BALL, SAID, steps=STEPS, method="auto", **options)
    assert found.method == "ddim"
    assert len(found.extra["auto"]["tried"]) == 1


def test_the_edited_row_may_be_judged(editor: Editor) -> None:
    found = editor.invert(
        BALL, SAID, steps=STEPS, judge="edited", methods="direct+edict", guidance_scale=5, target=1
    )
    direct, edict = found.extra["auto"]["tried"]
    # direct pins the photo's row and leaves the edited one free; EDICT brings both back
    assert direct["below_ceiling"] > 1 >= edict["below_ceiling"]
    assert found.method == "edict"


def test_each_photo_stops_on_its_own(editor: Editor) -> None:
    options = {"methods": "ddim+direct", "guidance_scale": 4.0, "steps": STEPS}
    photos, texts = [BALL, CUBE], [SAID, "a blue cube on a table"]
    alone = [editor.invert(p, t, method="ddim", guidance_scale=4, steps=STEPS)
             for p, t in zip(photos, texts, strict=True)]  # fmt: skip
    below = [i.extra["ceiling_psnr"] - i.extra["reconstruction_psnr"] for i in alone]
    between = sum(below) / 2
    found = editor.invert(photos, texts, method="auto", target=between, **options)
    wanted = ["ddim" if b <= between else "direct" for b in below]
    assert [i.method for i in found] == wanted
    assert len(set(wanted)) == 2


def test_tries_are_kept_in_the_cache(tmp_path: Path) -> None:
    editor = Editor.load("tabletop", device="cpu", cache=tmp_path)
    first = editor.invert(BALL, SAID, steps=STEPS)
    again = editor.invert(BALL, SAID, steps=STEPS)
    assert again.extra["auto"]["tried"][0]["from_cache"]
    assert torch.equal(first.trajectory, again.trajectory)
    assert editor.invert(BALL, SAID, steps=STEPS, method="direct").extra["from_cache"]
    assert isinstance(editor.cache, InversionCache)


def test_what_cannot_be_used_is_left_out_and_said(editor: Editor) -> None:
    options = {"methods": "negative-prompt+direct", "negative_prompt": "rain"}
    found = editor.invert(BALL, SAID, steps=STEPS, method="auto", **options)
    skipped, used = found.extra["auto"]["tried"]
    assert "--negative-prompt" in skipped["why"]
    assert not skipped["reached"]
    assert used["method"] == found.method == "direct"
    with pytest.raises(OptionError, match="unconditional text"):
        editor.invert(
            BALL, SAID, steps=STEPS, method="auto", methods="null-text", negative_prompt="rain"
        )


def test_the_account_is_saved_with_the_inversion(editor: Editor, tmp_path: Path) -> None:
    made = editor.invert(BALL, SAID, steps=STEPS)
    loaded = Inversion.load(made.save(tmp_path / "a.inv.safetensors"))
    assert loaded.extra["auto"] == made.extra["auto"]
    assert loaded.method == "direct"
    assert editor.edit(loaded, swap={"red": "blue"}).report["auto"] == made.extra["auto"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ""}, "each method once"),
        ({"methods": "ddim+ddim"}, "each method once"),
        ({"methods": "auto"}, "cannot try itself"),
        ({"target": -1}, "out of range"),
        ({"judge": "nobody"}, "not one of"),
    ],
)
def test_settings_that_make_no_choice(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        inversions.create("auto", **settings)


def test_unknown_methods_name_the_known_ones() -> None:
    with pytest.raises(UnknownMethod, match="did you mean 'ddim'"):
        inversions.create("auto", methods="ddin")
    with pytest.raises(UnknownMethod, match="there are: auto"):
        inversions.create("nothing-like-it")
    assert isinstance(inversions.create("auto"), Auto)
    assert "auto" in list(inversions)
