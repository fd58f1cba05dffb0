"""How an edit acts: options made into methods and controls, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning import WordNotInPrompt
from edit import EditContext, NothingActed, Tokens
from inversion.registry import SettingError, UnknownMethod
from p2p_real.fitting import fit_photo
from p2p_real.images import PhotoError
from p2p_real.numbers import OptionError
from p2p_real.prompts import Prompts
from p2p_real.steering import EditControl, latent_mask, read_mask

BALL, CUBE = "a red ball on a table", "a blue cube on a table"


def tokens(text: str) -> Tokens:
    """One token a word, without any tokenizer."""
    spans, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    ids = tuple(hash(text[a:b]) % 1000 for a, b in spans)
    return Tokens(text, ids, tuple(spans), tuple(text.split()))


def plan(
    how: EditControl, source: str = BALL, target: str = CUBE, steps: int = 10, **weight: float
) -> Any:
    context = EditContext(tokens(source), (tokens(target),), steps, (16, 16))
    return how.plan(context, Prompts(source, target, (), weight), preset={})


def labels(how: EditControl, **rest: Any) -> list[str]:
    return [c.label for c in plan(how, **rest).controls]


def test_the_plan_of_p2p() -> None:
    assert labels(EditControl()) == ["cross-attention", "self-attention"]
    assert labels(EditControl(self_replace=0)) == ["cross-attention"]
    assert labels(EditControl(cross_replace=0)) == ["self-attention"]
    assert labels(EditControl(edit="plain")) == []
    assert labels(EditControl(local="ball"))[-1] == "local blend"
    assert labels(EditControl(strength=0)) == []


def test_nothing_left_to_act_is_an_error() -> None:
    with pytest.raises(NothingActed, match="leave nothing of p2p"):
        plan(EditControl(cross_replace=0, self_replace=0))
    with pytest.raises(NothingActed, match="--weight acts while --cross-replace does"):
        plan(EditControl(cross_replace=0), cube=2.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_a_window_that_is_open_is_open_for_a_step(steps: int) -> None:
    def gate(how: EditControl) -> Any:
        return plan(how, steps=steps).controls[0].gate

    assert gate(EditControl(cross_replace=0.01))[0].all()
    assert int(gate(EditControl(cross_replace=0.8)).any(-1).any(-1).sum()) == max(
        1, int(0.8 * steps)
    )


def test_word_windows() -> None:
    found = plan(EditControl(cross_replace={"cube": 0.4, "default_": 0.9})).controls[0].gate
    cube = tokens(CUBE).find("cube")[0]
    assert found[:, 0, cube].sum() == 4
    assert found[:, 0, cube + 1].sum() == 9


def test_resolved_settings_are_what_acts() -> None:
    context = EditContext(tokens(BALL), (tokens(CUBE),), 10, (16, 16))
    how = EditControl(self_replace=0.3, edit_options={"self-scale": "4"})
    preset = {"p2p": {"cross_replace": 0.6}}
    found = how.resolved(context, Prompts(BALL, CUBE, (), {"cube": 2.0}), preset=preset)["p2p"]
    assert found["cross_replace"] == 0.6
    assert found["self_replace"] == 0.3
    assert found["self_scale"] == 4
    assert found["weights"] == (("cube", 2.0),)


@pytest.mark.parametrize(
    ("name", "before", "after", "usual"),
    [
        ("light_windows", "a ball at noon", "a ball at night", (0.2, 0.2)),
        ("phrase_windows", "a ball and a cube", "a ball", (0.4, 0.2)),
    ],
)
def test_a_preset_may_name_windows(
    name: str, before: str, after: str, usual: tuple[float, float]
) -> None:
    context = EditContext(tokens(before), (tokens(after),), 50, (16, 16))
    prompts = Prompts(before, after, (), {})
    for preset, how, windows in (
        ({}, EditControl(), usual),
        ({name: [0.1, 0]}, EditControl(), (0.1, 0)),
        ({name: [0.1, 0]}, EditControl(cross_replace=0.5), (0.5, 0.4)),
    ):
        found = how.resolved(context, prompts, preset=preset)["p2p"]
        assert (found["cross_replace"], found["self_replace"]) == windows


def test_what_only_goes_may_have_windows_of_its_own() -> None:
    one, two = "a ball on a mat", "a ball and a cube on a mat"
    preset = {"phrase_windows": [0.1, 0], "dropped_windows": [0.7, 0.2, 0.1]}
    for before, after, windows in (
        (two, one, (0.7, 0.2, 0.1)),
        (one, two, (0.1, 0, 1)),
        (two, "a ball with a hat on a mat", (0.8, 0.4, 1)),
    ):
        context = EditContext(tokens(before), (tokens(after),), 50, (16, 16))
        how = EditControl()
        found = how.resolved(context, Prompts(before, after, (), {}), preset=preset)["p2p"]
        names = ("cross_replace", "self_replace", "padding_replace")
        assert tuple(found[name] for name in names) == windows


@pytest.mark.parametrize(
    ("how", "after", "share"),
    [
        (EditControl(), "a ball at night", 0.2),
        (EditControl(), "a cube at noon", 0.0),
        (EditControl(), "a cube at night", 0.0),
        (EditControl(), "a ball at noon", 0.0),
        (EditControl(strength=0.9), "a ball at night", 0.2),
        (EditControl(strength=0.9), "a cube at noon", 0.1),
        (EditControl(strength=0), "a ball at night", 1.0),
        (EditControl(self_replace=0.4), "a ball at night", 0.0),
        (EditControl(edit="plain"), "a ball at night", 0.0),
    ],
)
def test_light_alone_may_share_the_correction(how: EditControl, after: str, share: float) -> None:
    context = EditContext(tokens("a ball at noon"), (tokens(after),), 50, (16, 16))
    assert how.source_share(context, {"light_share": 0.2}) == pytest.approx(share)
    assert how.source_share(context, {}) == pytest.approx(1 - how.strength)


def test_a_preset_may_blend_by_itself() -> None:
    context = EditContext(tokens(BALL), (tokens(CUBE),), 10, (16, 16))

    def blends(how: EditControl, preset: dict[str, Any]) -> bool:
        found = how.plan(context, Prompts(BALL, CUBE, (), {}), preset=preset)
        return any(c.label == "local blend" for c in found.controls)

    own = {"local_blend": True}
    assert blends(EditControl(), own)
    assert not blends(EditControl(), {})
    for how in (
        EditControl(local=()),
        EditControl(edit="plain"),
        EditControl(strength=0),
        EditControl(mask=np.full((128, 128), 255, np.uint8)),
    ):
        assert not blends(how, own)


def test_strength_weakens_weights() -> None:
    context = EditContext(tokens(BALL), (tokens(CUBE),), 10, (16, 16))
    found = EditControl(strength=0.5).resolved(
        context, Prompts(BALL, CUBE, (), {"cube": 3.0}), preset={}
    )
    assert found["p2p"]["weights"] == (("cube", 2.0),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strength": -0.1}, "--strength -0.1: give a number from 0 to 1"),
        ({"strength": float("nan")}, "--strength nan"),
        ({"local": "ball", "local_start": 2}, "--local-start 2"),
        ({"local_threshold": 0.4}, "--local-threshold belongs to a local blend"),
        ({"subtract": "ball"}, "--subtract belongs to a local blend"),
        ({"paste_back": True}, "--paste-back needs a mask"),
    ],
)
def test_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        EditControl(**options)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"edit": ("p2p", "magic")}, UnknownMethod, "there are: "),
        ({"edit": ("p2p", "p2p")}, OptionError, "given twice"),
        ({"edit": ("plain", "p2p")}, OptionError, "give it alone"),
        ({"edit": "plain", "cross_replace": 0.4}, OptionError, "belongs to p2p"),
        ({"edit_options": {"nope": 1}}, OptionError, "has no such setting; there are: "),
        ({"cross_replace": 2}, SettingError, "cross_replace=2.0 is out of range"),
        ({"cross_replace": {"a": (0.5, 0.2)}}, SettingError, "0 <= start <= stop <= 1"),
        ({"edit_options": {"self_scale": "big"}}, SettingError, "not of type int"),
        (
            {"self_replace": 0.4, "edit_options": {"self-replace": 0.5}},
            OptionError,
            "say the same",
        ),
    ],
)
def test_refused_before_loading(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        EditControl(**options).check_names()


def test_words_are_looked_up_without_a_tokenizer() -> None:
    prompts = Prompts(BALL, CUBE, (), {"cube": 2.0})
    EditControl(local="ball", subtract="table", cross_replace={"blue": 0.3}).check_words(prompts)
    EditControl(local={"ball": "cube"}).check_words(prompts)
    for how in (
        EditControl(local="hat"),
        EditControl(local={"ball": "hat"}),
        EditControl(local="ball", subtract="hat"),
        EditControl(cross_replace={"hat": 0.3}),
        EditControl(cross_replace={"red": 0.3}),
    ):
        with pytest.raises(WordNotInPrompt, match=r"no word '(hat|red)' in the prompt"):
            how.check_words(prompts)
    with pytest.raises(WordNotInPrompt, match="no word 'ball'"):
        EditControl().check_words(Prompts(BALL, CUBE, (), {"ball": 2.0}))


def test_weight_belongs_to_p2p() -> None:
    with pytest.raises(OptionError, match="--weight belongs to p2p"):
        plan(EditControl(edit="plain"), cube=2.0)


def test_masks_follow_the_photo_onto_the_grid(tmp_path: Path) -> None:
    photo = Image.new("RGB", (200, 100))
    fit = fit_photo(photo, multiple=8, native=64)[1]
    half = Image.new("L", (200, 100))
    half.paste(255, (0, 0, 100, 100))
    h, w = fit.fitted[1] // 8, fit.fitted[0] // 8
    found = latent_mask(half, (h, w), fit)[0, 0]
    assert found.shape == (h, w)
    assert found[:, : w // 2].all()
    assert not found[:, w // 2 + 1 :].any()
    one = Image.new("L", (200, 100))
    one.putpixel((0, 0), 255)
    exact = fit_photo(Image.new("RGB", (64, 64)), multiple=8, native=64)[1]
    dot = Image.new("L", (64, 64))
    dot.putpixel((9, 0), 255)
    assert latent_mask(dot, (8, 8), exact)[0, 0].nonzero().tolist() == [[0, 1]]
    with pytest.raises(OptionError, match="--mask is 50 x 50, the photo 200 x 100"):
        latent_mask(Image.new("L", (50, 50), 255), (h, w), fit)
    with pytest.raises(OptionError, match="nothing white"):
        read_mask(Image.new("L", (200, 100), 127), (200, 100))
    with pytest.raises(PhotoError, match="there is no file"):
        read_mask(tmp_path / "none.png")


def test_a_mask_alone_or_beside_an_edit() -> None:
    mask = Image.fromarray(np.full((128, 128), 255, np.uint8))
    assert labels(EditControl(mask=mask))[-1] == "mask"
    assert EditControl(mask=mask).settings()["mask"] == "given image"
    assert EditControl(mask="m.png").settings()["mask"] == "m.png"
