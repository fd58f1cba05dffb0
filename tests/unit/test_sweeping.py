"""Several targets in one walk, and one edit over a range of a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from inversion import Inversion, InversionError
from p2p_real.editor import Editor
from p2p_real.numbers import OptionError
from p2p_real.prompts import EditWords, PromptError
from p2p_real.sweeping import Range
from p2p_real.tabletop import PHOTOS

BALL, CUBE = PHOTOS / "red_ball.png", PHOTOS / "blue_cube.png"
SAID = "a red ball on a wooden table at noon"
BLUE, GREEN = (SAID.replace("red", color) for color in ("blue", "green"))
STEPS = 4


@pytest.fixture(scope="module")
def editor() -> Editor:
    torch.set_num_threads(1)
    return Editor.load("tabletop", device="cpu", cache=False)


@pytest.fixture(scope="module")
def ball(editor: Editor) -> Inversion:
    found: Inversion = editor.invert(BALL, SAID, steps=STEPS)
    return found


def off(one: Image.Image, other: Image.Image) -> int:
    return int(abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


@pytest.mark.parametrize("how", [{}, {"local": "ball"}, {"weight": {"ball": 2.0}}])
def test_targets_of_one_walk_are_the_edits_made_alone(
    how: dict[str, object], editor: Editor, ball: Inversion
) -> None:
    both = editor.edit(ball, BLUE, also=[GREEN], **how)
    alone = [editor.edit(ball, text, **how) for text in (BLUE, GREEN)]
    assert [r.report["target"] for r in (both, *both.others)] == [BLUE, GREEN]
    for one, other in zip((both, *both.others), alone, strict=True):
        assert off(one.image, other.image) <= 1  # another batch size: a value may round
        assert one.report["mask_coverage"] == other.report["mask_coverage"]
        assert one.report["token_alignment"] == other.report["token_alignment"]
    # the photo's row is walked once for both
    rows = [r.report["unet_rows"] for r in alone]
    assert both.report["unet_rows"] < sum(rows)


def test_a_strip_shows_all_targets(editor: Editor, ball: Inversion) -> None:
    one, both = (editor.edit(ball, BLUE, also=also, local=()) for also in ((), GREEN))
    width = one.strip().width
    assert both.strip().width > width * 1.25


@pytest.mark.parametrize("also", ["", "a red ball on a wooden table at noon", BLUE.upper()])
def test_targets_that_make_no_other_picture(also: str) -> None:
    with pytest.raises(PromptError, match="--also"):
        EditWords(target=BLUE, also=(also,)).apply(SAID)
    with pytest.raises(PromptError, match="--also"):
        EditWords(also=(GREEN,)).apply(SAID)


def test_a_sweep_is_its_single_edits(editor: Editor, ball: Inversion) -> None:
    swept = editor.sweep(ball, "strength=0:1:3", BLUE)
    assert swept.over.values == (0, 0.5, 1)
    for value, result in zip(swept.over.values, swept.results, strict=True):
        assert result is not None
        assert off(result.image, editor.edit(ball, BLUE, strength=value).image) == 0
    first = swept.results[0]
    assert first is not None
    assert off(first.image, first.reconstruction) <= 1
    assert swept.sheet().width > 4 * first.image.width


def test_strength_moves_ever_farther_from_the_photo(editor: Editor, ball: Inversion) -> None:
    swept = editor.sweep(ball, "strength=0:1:5", BLUE)
    made = [r.latents for r in swept.results if r is not None and r.latents is not None]
    far = [float((x[1] - x[0]).square().mean()) for x in made]
    assert far == sorted(far)
    assert far[-1] > far[0]


def test_what_does_not_act_is_a_gap_with_its_reason(editor: Editor, ball: Inversion) -> None:
    swept = editor.sweep(ball, "cross_replace=0,1", BLUE, self_replace=0.0)
    assert swept.results[0] is None
    assert "nothing of p2p" in swept.reasons[0]
    assert swept.results[1] is not None
    swept.sheet()


def test_a_photo_is_inverted_once(editor: Editor) -> None:
    seen: list[str] = []
    swept = editor.sweep(
        BALL, "guidance=1.5,3,5", BLUE, source=SAID, steps=STEPS,
        progress=lambda stage, done, total, note="": seen.append(stage),
    )  # fmt: skip
    assert seen.count("ddim inversion") == STEPS
    assert [r.report["guidance_scale"] for r in swept.results if r] == [1.5, 3, 5]


def test_a_photo_beside_its_inversion(editor: Editor, ball: Inversion) -> None:
    made = editor.edit(ball, BLUE, photo=BALL, local="ball", paste_back=True)
    outside = np.asarray(made.mask) == 0
    assert outside.any()
    assert (np.asarray(made.image)[outside] == np.asarray(Image.open(BALL))[outside]).all()
    with pytest.raises(InversionError, match="not the photo"):
        editor.edit(ball, BLUE, photo=CUBE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strength", "FROM:TO:COUNT"),
        ("strength=0:1", "FROM:TO:COUNT"),
        ("strength=a,b", "FROM:TO:COUNT"),
        ("strength=1", "2 to 100 values"),
        ("strength=0:1:1000", "2 to 100 values"),
        ("strength=1,1", "each once"),
        ("strenght=0:1:3", "did you mean 'strength'"),
        ("self_scale=1,1.5", "not a whole number"),
        ("strength=0:2:3", "from 0 to 1"),
    ],
)
def test_what_cannot_be_swept(text: str, message: str, editor: Editor, ball: Inversion) -> None:
    with pytest.raises(OptionError, match=message):
        editor.sweep(ball, text, BLUE)


def test_ranges_are_read_as_people_write_them() -> None:
    assert Range.read("strength=0:1:6").values == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert Range.read("self-scale = 1, 2,4").values == (1, 2, 4)
    assert Range.read("guidance=5:1:3").values == (5, 3, 1)
    assert Range.read("cross-replace=0.5,1").label(0.5) == "cross replace 0.5"
