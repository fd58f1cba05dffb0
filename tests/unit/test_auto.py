"""Auto-edit: what is tried, what the checks say, and which try is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning import understand
from captioning.instructions import parse_instruction
from captioning.understanding import Meaning
from edit import PromptTooLong
from p2p_real import Editor
from p2p_real.auto import AutoError, auto, checking, deciding
from p2p_real.auto.checking import Checked, Figure
from p2p_real.auto.deciding import TABLE, Choice
from p2p_real.auto.places import grown
from p2p_real.auto.report import MOST, Writer, line_of
from p2p_real.auto.results import COULD_NOT, DONE, SKIPPED, AutoResult
from p2p_real.auto.running import Inversions, pipeline
from p2p_real.auto.settings import Settings
from p2p_real.masks import MaskAsked
from p2p_real.prompts import Prompts
from p2p_real.steering import EditControl
from p2p_real.tabletop import PHOTOS

TWO = "a red ball and a blue cube on a wooden table at noon"
OPS = {
    "make the ball green": "colour",
    "make the ball striped": "attribute",
    "turn the ball into a mug": "object",
    "remove the cube": "remove",
    "add a green mug": "add",
    "at night": "scene",
    "put it on the sand": "scene",
    "make the ball more red": "amount",
    "as a watercolour": "style",
    "make the ball green and turn the cube into a cone": "several",
    "make the ball green and at night": "several",
}


def mean(text: str, caption: str = TWO) -> Meaning:
    return understand(caption, parse_instruction(text))


# --- deciding --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", OPS)
@pytest.mark.parametrize("name", ["first", "undone", "spilled"])
def test_every_try_is_an_edit(text: str, name: str) -> None:
    """What the table asks for is taken by the options of an edit, and its masks can be read."""
    meaning = mean(text)
    assert meaning.kind == OPS[text]
    asked = getattr(deciding.choices_of(meaning), name).asked(meaning)
    prompts = Prompts(meaning.source, meaning.target, weight=asked.pop("weight", {}))
    asked.pop("direction", None)
    how = EditControl(**asked)
    how.check_names()
    how.check_words(prompts)


def test_the_second_try_is_another_and_goes_by_what_failed() -> None:
    for choices in TABLE.values():
        assert len({repr(c) for c in (choices.first, choices.undone, choices.spilled)}) == 3
    meaning = mean("make the ball green")
    undone, why = deciding.second(meaning, checked(said=False))
    assert undone == TABLE["colour"].undone
    assert "the change is not there (no)" in why
    spilled, why = deciding.second(meaning, checked(kept=False))
    assert spilled == TABLE["colour"].spilled
    assert "the rest is not kept" in why
    assert deciding.second(meaning, checked(said=False, kept=False))[0] == undone


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("make the ball green", 'words:"ball"'),
        ("remove the cube", 'words:"blue cube"'),
        ("add a green mug", "diffedit"),
        ("put it on the sand", 'words:"table"'),
        ("at night", ""),
        ("as a watercolour", ""),
        ("make the ball green and at night", ""),
        ("make the ball green and turn the cube into a cone", 'words:"ball" | words:"cube"'),
        ("make it shiny and remove the cube", 'words:"ball" | words:"cube"'),
        ("remove the ball on the table and make the cube shiny", 'words:"ball" | words:"cube"'),
    ],
)
def test_where_a_change_belongs(text: str, where: str) -> None:
    meaning = mean(text)
    assert deciding.place_spec(meaning) == where
    MaskAsked(where).check(source=meaning.source)


def test_what_goes_is_blended_by_its_name_in_the_models_own_windows() -> None:
    asked = TABLE["remove"].first.asked(mean("remove the cube"))
    assert asked["local"] == ("cube",)
    assert asked["cross_replace"] is None
    assert TABLE["add"].first.asked(mean("add a green mug"))["local"] == ()


def test_weights_are_stretched_from_one() -> None:
    meaning = mean("make the ball much less red")
    first, undone = (
        c.asked(meaning)["weight"] for c in (TABLE["amount"].first, TABLE["amount"].undone)
    )
    (word,) = first
    assert undone[word] - 1 == 2 * (first[word] - 1) < 0


def test_guidance_stays_where_the_inversion_was_fitted_at_one() -> None:
    class Made:
        guidance_scale = 2.0

        def __init__(self, method: str) -> None:
            self.method = method

    choice = Choice("", guidance=1.5)
    assert [choice.scale(Made(m)) for m in ("direct", "null-text")] == [3.0, 2.0]  # type: ignore[arg-type]


# --- checking --------------------------------------------------------------------------------


def checked(
    acted: bool | None = True, kept: bool | None = True, said: bool | None = True
) -> Checked:
    figures = [Figure(ok, 1.0, 0.5, "yes" if ok else "no") for ok in (acted, kept, said)]
    return Checked(*figures, "")


def picture(colour: tuple[int, int, int] = (90, 120, 60)) -> Image.Image:
    image = Image.new("RGB", (64, 48), (200, 180, 160))
    image.paste(colour, (16, 12, 40, 36))
    return image


@pytest.fixture
def region() -> np.ndarray:
    found = np.zeros((48, 64), bool)
    found[10:38, 14:42] = True
    return found


def test_a_change_in_its_place(region: np.ndarray) -> None:
    before, after = picture(), picture((30, 30, 220))
    acted, kept = checking.acted(after, before, region), checking.kept(after, before, region)
    assert (acted.ok, kept.ok, kept.value) == (True, True, None)
    assert acted.value == pytest.approx(24 * 24 / region.sum(), abs=1e-4)
    assert checking.acted(before, before, region).ok is False


def test_a_change_beside_its_place(region: np.ndarray) -> None:
    before = picture()
    after = picture()
    after.paste((0, 0, 0), (44, 0, 64, 48))
    assert checking.acted(after, before, region).ok is False
    kept = checking.kept(after, before, region)
    assert kept.ok is False
    assert kept.value is not None
    assert kept.value < checking.KEPT_DB == kept.floor
    assert checking.kept(after, before, np.ones_like(region)).ok is None


def test_shapes_stay_under_another_light() -> None:
    photos = [Image.open(PHOTOS / f"{n}.png").convert("RGB") for n in ("red_ball", "green_mug")]
    dark = photos[0].point([round(40 + 0.3 * v) for v in range(256)] * 3)
    assert checking.shapes_alike(photos[0], photos[0]) > 0.9
    assert checking.kept(dark, photos[0], None).ok is True
    assert checking.kept(photos[1], photos[0], None).ok is False
    assert checking.shapes_alike(picture(), picture()) <= 1
    small = Image.new("RGB", (8, 8), "red")
    assert checking.shapes_alike(small, small) == 1  # nothing to see is nothing to lose


@pytest.mark.parametrize(
    ("text", "before", "after", "ok", "note"),
    [
        ("make the ball green", TWO, TWO.replace("red", "green"), True, "says it"),
        ("make the ball green", TWO, TWO, False, "does not say 'green' and still says 'red'"),
        ("make the cube red", TWO, TWO.replace("blue", "red"), True, "says it"),
        ("make the cube red", TWO, "a red ball on a wooden table", False, "does not say 'red'"),
        ("remove the cube", TWO, "a red ball on a wooden table at noon", True, "says it"),
        ("remove the cube", TWO, TWO, False, "still says"),
        ("remove the cube", TWO, "a red ball and a red ball", False, "still says 'red', 'ball'"),
        ("remove the cube", "a red ball", "a red ball", None, "did not name 'blue', 'cube'"),
        (
            "make the ball green",
            "a table",
            "a table",
            None,
            "did not name 'red' in the photo either",
        ),
        ("make the ball green", "a table", "a green ball", True, "says it"),
        ("add a mug", TWO, "a red ball and a mug", True, "says it"),
        ("make the ball much less red", TWO, TWO, None, "no word tells this change"),
    ],
)
def test_what_the_caption_says(
    text: str, before: str, after: str, ok: bool | None, note: str
) -> None:
    found = checking.said(mean(text), before, after)
    assert found.ok is ok
    assert note in found.note


def test_verdicts() -> None:
    assert checked().passed
    assert checked(said=None, kept=None).passed
    assert checked(acted=False, kept=False).failed == ("acted", "kept")
    assert checked(said=False).undone
    assert not checked(kept=False).undone
    ranks = [c.rank() for c in (checked(), checked(kept=False), checked(said=False))]
    assert ranks == sorted(ranks, reverse=True)
    nothing = checking.nothing("the mask is empty")
    assert nothing.undone
    assert nothing.rank() < checked(said=False, kept=None).rank()
    plain: dict[str, Any] = checking.plain(nothing)
    assert plain["acted"]["note"] == "the mask is empty"
    assert plain["failed"] == ["acted"]


# --- inversions ------------------------------------------------------------------------------


def test_one_photo_that_cannot_be_inverted_spoils_no_other() -> None:
    editor = Editor.load("tabletop", cache=False)
    photo = editor.open(PHOTOS / "red_ball.png")
    prompts = ("ball " * 400, "a red ball", "a mug " * 200, "a mug")
    made = Inversions(
        pipeline(editor, Settings(steps=1, method="ddim")),
        {n: (photo, prompt) for n, prompt in enumerate(prompts)},
    )
    for n, prompt in enumerate(prompts):
        if n in (0, 2):
            with pytest.raises(PromptTooLong):
                made.of(n)
        else:
            assert made.of(n).prompt == prompt


# --- files -----------------------------------------------------------------------------------


def result(label: str, end: str, image: Image.Image | None) -> AutoResult:
    report = {
        "label": label,
        "instruction": "make it blue",
        "caption": "a ball",
        "end": end,
        "why": "failed: said",
        "tries": [],
    }
    return AutoResult(label, image, image, picture(), None, None, report)


def test_what_could_not_be_done_says_so_in_its_name(tmp_path: Path) -> None:
    for end in (COULD_NOT, DONE):  # a later run that can takes the other name away
        writer = Writer(tmp_path, {"verb": "auto"})
        writer.add(result("ball", end, picture()))
        writer.add(result("cup", SKIPPED, None))
        report = writer.end()
        name = "ball.could-not.png" if end == COULD_NOT else "ball.png"
        assert {f.name for f in tmp_path.iterdir()} == {name, "sheet.png", "report.json"}
        assert report["summary"][end] == 1
        assert line_of(report["summary"]) == f"2 photos: 1 {end}, 1 skipped"
    strange = tmp_path / "cup.png"
    picture().save(strange)  # not of ours, so it stays
    Writer(tmp_path, {"verb": "auto"}).add(result("cup", SKIPPED, None))
    assert strange.exists()


def test_one_photos_pictures_are_of_one_run(tmp_path: Path) -> None:
    """The try that was not kept, of a run before, stays no longer than that run's edit."""
    two = dataclasses.replace(result("ball", DONE, picture()), other=picture())
    two.report["kept"] = 1
    for one, more in ((two, {"other.png"}), (result("ball", DONE, picture()), set())):
        Writer(tmp_path, {"verb": "auto"}, single=True).add(one)
        kept = {"edited.png", "strip.png", "reconstruction.png"}
        assert {f.name for f in tmp_path.iterdir()} == kept | more
    Writer(tmp_path, {"verb": "auto"}, single=True).add(result("ball", SKIPPED, None))
    assert not list(tmp_path.iterdir())


def test_a_result_never_takes_a_photos_place(tmp_path: Path) -> None:
    for name in ("cup.png", "edited.png"):
        picture().save(tmp_path / name)
    photos: list[Any] = [[tmp_path / "cup.png"], tmp_path, tmp_path / "edited.png"]
    for given in photos:
        with pytest.raises(AutoError, match=r"\.png would be overwritten"):
            auto(None, given, "at night", out=tmp_path)  # type: ignore[arg-type]
    assert {f.name for f in tmp_path.iterdir()} == {"cup.png", "edited.png"}


def test_a_sheet_has_an_end(tmp_path: Path) -> None:
    writer = Writer(tmp_path, {"verb": "auto"})
    for n in range(MOST + 1):
        writer.add(result(f"p{n}", SKIPPED, None))
    assert len(writer.rows) == MOST + 1
    assert writer.sheet().height < 400 * MOST


def test_masks_grow_alike_at_every_size() -> None:
    small = np.zeros((40, 60), np.float32)
    small[10:20, 10:20] = 1
    found = grown(small, 0.1)
    assert (found[6:24, 6:24] == 1).all()
    assert found.sum() == 18 * 18
    assert (grown(small, 0) == small).all()
    large = np.kron(small, np.ones((20, 20), np.float32))
    assert grown(large, 0.1).mean() == pytest.approx(found.mean(), rel=0.15)
