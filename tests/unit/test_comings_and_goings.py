"""Words that only one of two prompts has: where a local blend looks, and how long maps are held."""

import numpy as np
import pytest
import torch

from edit import BlendWords, Tokens, WordNotFound
from edit.align import align
from edit.kinds import changes_light, changes_phrases
from edit.method import EditContext
from p2p_real import Editor
from p2p_real.tabletop import PHOTOS

TWO = "a red cube and a yellow mug on the grass at noon"
ONE = "a red cube on the grass at noon"


WINDOWS = ("cross_replace", "self_replace")


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.load("tabletop", cache=False)


def selectors(editor: Editor, words: str, source: str, *targets: str) -> torch.Tensor:
    tokens: list[Tokens] = [editor.backbone.tokens(p) for p in (source, *targets)]
    context = EditContext(tokens[0], tokens[1:], 4, (16, 16))
    return BlendWords(((words,),)).control(context).words


def test_a_word_that_goes_is_looked_for_in_the_photo_alone(editor: Editor) -> None:
    rows = selectors(editor, "mug", TWO, ONE)
    assert rows[0].nonzero().flatten().tolist() == list(editor.backbone.tokens(TWO).find("mug"))
    assert not rows[1].any()


def test_a_word_that_comes_is_looked_for_in_the_new_picture_alone(editor: Editor) -> None:
    rows = selectors(editor, "mug", ONE, TWO)
    assert not rows[0].any()
    assert rows[1].sum() == 1


def test_a_word_that_no_prompt_has_is_refused(editor: Editor) -> None:
    with pytest.raises(WordNotFound, match="donut"):
        selectors(editor, "donut", TWO, ONE)


def test_each_target_needs_a_place_to_look_at(editor: Editor) -> None:
    with pytest.raises(WordNotFound, match="mug"):
        selectors(editor, "mug", ONE, TWO, ONE)


def test_a_removed_thing_keeps_the_rest(editor: Editor) -> None:
    made = editor.edit(
        PHOTOS / "red_cube_and_yellow_mug.png",
        source=TWO,
        remove="yellow mug",
        local="mug",
        paste_back=True,
        steps=6,
    )
    assert 0 < made.report["mask_coverage"] < 0.7
    before, after = np.asarray(made.source), np.asarray(made.image)
    changed = (before != after).any(-1)
    assert changed.any()
    assert not changed[np.asarray(made.mask.resize(made.image.size)) == 0].any()


def test_the_embedded_model_blends_by_the_thing_that_changes(editor: Editor) -> None:
    inversion = editor.invert(PHOTOS / "red_cube_and_yellow_mug.png", TWO, steps=6, verify=False)
    kept, free = (editor.edit(inversion, remove="yellow mug", local=how) for how in (None, ()))
    named = editor.edit(inversion, remove="yellow mug", local="mug")
    assert kept.report["mask_coverage"] == named.report["mask_coverage"]
    assert np.array_equal(np.asarray(kept.image), np.asarray(named.image))
    assert free.mask is None
    assert not np.array_equal(np.asarray(kept.image), np.asarray(free.image))


@pytest.mark.parametrize(
    ("source", "target", "light", "phrase"),
    [
        (TWO, ONE, False, True),
        (ONE, TWO, False, True),
        (ONE, ONE.replace("red", "red striped"), False, False),
        (ONE, ONE.replace("cube", "mug"), False, False),
        (ONE, ONE.replace("noon", "night"), True, False),
        ("a cat", "a cat wearing a hat", False, True),
        (ONE, ONE, False, False),
    ],
)
def test_kinds_of_changes(
    editor: Editor, source: str, target: str, light: bool, phrase: bool
) -> None:
    pairs = align(editor.backbone.tokens(source), editor.backbone.tokens(target)).pairs
    assert (changes_light(pairs), changes_phrases(pairs)) == (light, phrase)


def test_windows_follow_the_kind(editor: Editor) -> None:
    photo = PHOTOS / "red_cube_and_yellow_mug.png"
    inversion = editor.invert(photo, prompt=TWO, steps=5, method="direct", verify=False)
    for change, cross, padding in (
        ({"remove": "yellow mug"}, 0.7, 0.1),
        ({"add": "and a white ball"}, 0.2, 1),  # of five steps a tenth is none, so one
        ({"swap": {"noon": "night"}}, 0.2, 1),
        ({"swap": {"red": "blue"}}, 0.7, 1),
        ({"remove": "yellow mug", "cross_replace": 0.6}, 0.6, 1),
    ):
        found = editor.edit(inversion, **change).report["edit_settings"]["p2p"]
        assert (found["cross_replace"], found["padding_replace"]) == (cross, padding)


def test_edits_of_light_take_a_share_of_the_correction(editor: Editor) -> None:
    photo = PHOTOS / "red_cube_and_yellow_mug.png"
    inversion = editor.invert(photo, prompt=TWO, steps=5, method="direct", verify=False)
    asked = editor.invert(photo, prompt=TWO, steps=5, method="direct", verify=False, share=0.2)
    night = {"swap": {"noon": "night"}}
    own = editor.edit(inversion, **night)
    assert own.report["source_share"] == 0.2
    assert editor.edit(inversion, swap={"red": "blue"}).report["source_share"] == 0
    windows = {name: own.report["edit_settings"]["p2p"][name] for name in WINDOWS}
    free, told = (editor.edit(one, **night, **windows) for one in (inversion, asked))
    assert free.report["source_share"] == 0
    assert np.array_equal(np.asarray(own.image), np.asarray(told.image))
    assert not np.array_equal(np.asarray(own.image), np.asarray(free.image))
    other = editor.invert(photo, prompt=TWO, steps=5, method="negative-prompt", verify=False)
    assert editor.edit(other, **night).report["source_share"] is None
    less = editor.invert(photo, prompt=TWO, steps=5, method="direct", verify=False, share=0.1)
    assert editor.edit(less, **night).report["source_share"] == 0.1


@pytest.mark.parametrize(
    ("method", "settings"),
    [("edict", {"skip": 0.3}), ("edit-friendly", {"skip": 0.3}), ("eta", {})],
)
def test_light_on_other_inversions(editor: Editor, method: str, settings: dict[str, float]) -> None:
    """Short windows reach into a walk that begins late; EDICT's ``share`` is no setting."""
    photo = PHOTOS / "red_cube_and_yellow_mug.png"
    inversion = editor.invert(photo, TWO, steps=10, method=method, verify=False, **settings)
    for strength in (1.0, 0.5):
        made = editor.edit(inversion, swap={"noon": "night"}, strength=strength)
        held = made.report["edit_settings"]["p2p"]["cross_replace"]
        assert held == pytest.approx(settings.get("skip", 0) + 0.1)
