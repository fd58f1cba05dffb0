"""What a change of words is about, where nobody names a word for a local blend."""

from __future__ import annotations

import pytest

from edit import BlendWords
from edit.align import align
from edit.changed import changed_rows, changed_things
from edit.method import EditContext
from tests.clip_tokens import cut

TWO = "a green metal cube and a purple striped cube on the snow"
ONE = "a green metal cube on the snow"


@pytest.mark.parametrize(
    ("source", "target", "here", "there"),
    [
        ("a red ball on a mat", "a blue ball on a mat", "ball", "ball"),
        ("a red ball on a mat", "a red cone on a mat", "ball", "cone"),
        ("a red ball on a mat", "a red striped ball on a mat", "ball", "ball"),
        ("a red ball on a mat", "a red ball on the snow", "mat", "snow"),
        ("a red ball on a mat", "a blue cone on the snow", "ball mat", "cone snow"),
        (ONE, TWO, "", "cube"),
        (TWO, ONE, "cube", ""),
        ("a cat sitting on a chair", "a dog sitting on a chair", "cat", "dog"),
        ("a building on a hill", "a castle on a hill", "building", "castle"),
        ("a cat", "a cat wearing a red hat", "", "hat"),
        ("a man riding a bike, in a park", "a man riding a horse, in a park", "bike", "horse"),
    ],
)
def test_things_that_change(source: str, target: str, here: str, there: str) -> None:
    gone, come = changed_things(align(cut(source), cut(target)).pairs)
    ours, theirs = (text.replace(",", " ,").split() for text in (source, target))
    assert [ours[i] for i in gone] == here.split()
    assert [theirs[i] for i in come] == there.split()


def context(source: str, *targets: str) -> EditContext:
    return EditContext(cut(source), tuple(cut(t) for t in targets), 10, (16, 16))


def test_only_the_thing_that_goes_is_looked_for() -> None:
    rows = changed_rows(context(TWO, ONE))
    assert rows is not None
    assert rows[0].nonzero().flatten().tolist() == [cut(TWO).find("cube#2")[0]]
    assert not rows[1].any()


def test_each_target_has_its_own_things() -> None:
    rows = changed_rows(context("a cat on a mat", "a dog on a mat", "a cat on a hippopotamus"))
    assert rows is not None
    assert rows.sum(1).tolist() == [2, 1, 3]  # the last word has three tokens


@pytest.mark.parametrize(
    "target",
    [
        "a cat on a mat at night",
        "an oil painting of a cat on a mat",
        "a cat on a mat",
        "a cat near a mat",
        "a dog on a chair",
    ],
)
def test_where_no_one_thing_changes_nothing_is_blended(target: str) -> None:
    asked = context("a cat on a mat", target)
    assert changed_rows(asked) is None
    assert BlendWords(None).control(asked) is None
