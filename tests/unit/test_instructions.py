"""What instructions in plain words say, in every stated form and around it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.instructions import FORMS, Instruction, NotUnderstood, parse_instruction


def read(text: str) -> list[tuple[str, str, str]]:
    return [(one.op, one.target, one.value) for one in parse_instruction(text)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("make the ball blue", ("attribute", "ball", "blue")),
        ("make it blue", ("attribute", "it", "blue")),
        ("make the red ball dark blue", ("attribute", "red ball", "dark blue")),
        ("turn the ball red and shiny", ("attribute", "ball", "red and shiny")),
        ("make the ball black and white", ("attribute", "ball", "black and white")),
        ("paint the ball blue", ("attribute", "ball", "blue")),
        ("colour the ball green", ("attribute", "ball", "green")),
        ("color the ball green", ("attribute", "ball", "green")),
        ("change the colour of the ball to blue", ("attribute", "ball", "blue")),
        ("change the ball's color from red to blue", ("attribute", "ball", "blue")),
        ("change the red ball to a blue one", ("attribute", "red ball", "blue")),
        ("make the ball out of glass", ("attribute", "ball", "glass")),
        ("change the ball to glass", ("attribute", "ball", "glass")),
        ("make the ball not striped", ("attribute", "ball", "not striped")),
        ("remove the stripes from the ball", ("attribute", "ball", "not striped")),
        ("give the ball stripes", ("attribute", "ball", "striped")),
        ("give the ball a shiny finish", ("attribute", "ball", "shiny")),
        ("make the ball a lighter red", ("attribute", "ball", "light red")),
        ("make the cat sleep", ("attribute", "cat", "sleeping")),
        ("make the woman wear a hat", ("attribute", "woman", "wearing a hat")),
        ("make the ball blue instead of red", ("attribute", "ball", "blue")),
        ("I want the ball to be blue", ("attribute", "ball", "blue")),
        ("the ball should be blue", ("attribute", "ball", "blue")),
        ("turn the cube into a cylinder", ("swap", "cube", "cylinder")),
        ("change the cube to a cylinder", ("swap", "cube", "cylinder")),
        ("change the shape to a cone", ("swap", "it", "cone")),
        ("replace the red ball with a blue cube", ("swap", "red ball", "blue cube")),
        ("swap the cube for a mug", ("swap", "cube", "mug")),
        ("I'd like a cat instead of the dog", ("swap", "dog", "cat")),
        ("make the cat look like a tiger", ("swap", "cat", "tiger")),
        ("cat -> dog", ("swap", "cat", "dog")),
        ("red → blue", ("swap", "red", "blue")),
        ("change blue to green", ("swap", "blue", "green")),
        ("remove the mug", ("remove", "mug", "")),
        ("take the red mug off the table", ("remove", "red mug", "")),
        ("get rid of the second cone", ("remove", "second cone", "")),
        ("no mug", ("remove", "mug", "")),
        ("with a hat", ("add", "", "a hat")),
        ("add a cat and a dog", ("add", "", "a cat and a dog")),
        ("at night", ("scene", "", "night")),
        ("make it night", ("scene", "", "night")),
        ("make it night time", ("scene", "", "night time")),
        ("in the evening", ("scene", "", "evening")),
        ("in autumn", ("scene", "", "autumn")),
        ("in the snow", ("scene", "", "snow")),
        ("make it snowy", ("scene", "", "snowy")),
        ("let it snow", ("scene", "", "snow")),
        ("change the weather to rain", ("scene", "", "rain")),
        ("turn day into night", ("scene", "", "night")),
        ("on the snow", ("scene", "", "on the snow")),
        ("put it on grass", ("scene", "", "on grass")),
        ("change the background to a beach", ("scene", "", "a beach")),
        ("in Paris", ("scene", "", "in Paris")),
        ("as a watercolour", ("style", "", "watercolour")),
        ("turn the photo into an oil painting", ("style", "", "oil painting")),
        ("in the style of van Gogh", ("style", "", "in the style of van Gogh")),
        ("as if painted by Picasso", ("style", "", "in the style of Picasso")),
        ("turn into a sketch", ("style", "", "sketch")),
        ("late at night", ("scene", "", "late at night")),
        ("make it rain heavily", ("scene", "", "rain")),
        ("replace the background with a forest", ("scene", "", "a forest")),
        ("there should be a cat", ("add", "", "a cat")),
        ("make it black and white", ("style", "", "black and white")),
    ],
)
def test_one_clause(text: str, said: tuple[str, str, str]) -> None:
    assert read(text) == [said]


@pytest.mark.parametrize(
    ("text", "target", "value", "amount"),
    [
        ("more striped", "", "striped", 1),
        ("less shiny", "", "shiny", -1),
        ("slightly less shiny", "", "shiny", -0.5),
        ("make the ball much more striped", "ball", "striped", 2),
        ("make the ball slightly shinier", "ball", "shiny", 0.5),
        ("make the picture brighter", "", "bright", 1),
        ("more flowers", "", "flowers", 1),
    ],
)
def test_amounts(text: str, target: str, value: str, amount: float) -> None:
    (one,) = parse_instruction(text)
    assert (one.op, one.target, one.value, one.amount) == ("amount", target, value, amount)


@pytest.mark.parametrize(
    ("text", "value", "place"),
    [
        ("add a cat on the table", "a cat", "on the table"),
        ("put a small cat next to the ball", "a small cat", "next to the ball"),
        ("place a cup to the left of the red ball", "a cup", "to the left of the red ball"),
        ("paint a cat on the wall", "a cat", "on the wall"),
        ("give the man a hat", "a hat", "on the man"),
        ("add a cat", "a cat", ""),
    ],
)
def test_places_of_what_is_added(text: str, value: str, place: str) -> None:
    assert parse_instruction(text) == (Instruction("add", "", value, place, text=text),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("make the ball blue and remove the mug",
         [("attribute", "ball", "blue"), ("remove", "mug", "")]),
        ("Make the ball blue. Remove the mug; then add a cat, at night",
         [("attribute", "ball", "blue"), ("remove", "mug", ""), ("add", "", "a cat"),
          ("scene", "", "night")]),
        ("make the ball red and the cube green",
         [("attribute", "ball", "red"), ("attribute", "cube", "green")]),
        ("make the ball and the cube green",
         [("attribute", "ball", "green"), ("attribute", "cube", "green")]),
        ("remove the mug and the ball", [("remove", "mug", ""), ("remove", "ball", "")]),
        ("replace the cat with a dog and the ball with a cube",
         [("swap", "cat", "dog"), ("swap", "ball", "cube")]),
        ("make the ball blue at night", [("attribute", "ball", "blue"), ("scene", "", "night")]),
        ("turn the cube into a cylinder and make it striped",
         [("swap", "cube", "cylinder"), ("attribute", "cylinder", "striped")]),
        ("make the ball redder and shinier",
         [("amount", "ball", "red"), ("amount", "ball", "shiny")]),
        ("make the ball blue and less shiny",
         [("attribute", "ball", "blue"), ("amount", "ball", "shiny")]),
        ("on a beach at sunset", [("scene", "", "on a beach"), ("scene", "", "sunset")]),
    ],
)  # fmt: skip
def test_several_clauses(text: str, said: list[tuple[str, str, str]]) -> None:
    assert read(text) == said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is empty"),
        ("...", "is empty"),
        ("blargh", "cannot read 'blargh'"),
        ("blue ball", "for example 'turn the ball blue'"),
        ("delete", "for example 'remove the mug'"),
        ("keep the ball", "cannot read 'keep the ball'"),
        ("don't remove the ball", "cannot read"),
        ("what is this?", "cannot read"),
        ("make the ball blue and frobnicate it", "cannot read"),
        ("make the cat bigger", "--resize 'cat=1.3'"),
        ("make the red ball small", "--resize 'red ball=0.7'"),
        ("make the ball bigger and bluer", "--resize 'ball=1.3'"),
        ("move the ball to the left", "--move 'ball=-0.3,0'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text: str, line: str) -> None:
    with pytest.raises(NotUnderstood) as error:
        parse_instruction(text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[1])
@pytest.mark.parametrize(
    "said", ["{}", "{}.", "Please {}!", "Could you {}, please?", "  {}  ", "i want you to {}"]
)
def test_forms_are_stable_under_politeness_and_punctuation(
    form: tuple[str, str], said: str
) -> None:
    plain = read(form[1])
    assert read(said.format(form[1])) == plain
    assert read(said.format(form[1]).upper()) == [
        (op, target.lower(), value.lower()) for op, target, value in plain
    ]


WORDS = st.sampled_from(
    re.findall(
        r"\S+",
        "make it the a ball cube red and , ; -> = with without at night on table in snow more less"
        " turn into to replace of not remove add put change colour background striped bigger as"
        " style one second should be . ! ' #2 é it's I don't wear sleep from much instead",
    )
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.lists(WORDS, max_size=9).map(" ".join), st.text(max_size=30)))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        said = parse_instruction(text)
    except NotUnderstood as error:
        said, line = (), str(error)
    else:
        assert said
        line = ""
    assert "\n" not in line
    for one in said:
        assert one.op in ("attribute", "swap", "remove", "add", "scene", "amount", "style")
        assert one.value or one.op == "remove"
        assert one.text


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("make the ball bigger", "--resize 'ball=1.3'"),
        ("make the ball smaller", "--resize 'ball=0.7'"),
        ("shrink the ball", "--resize 'ball=0.7'"),
        ("move the ball to the right", "--move 'ball=0.3,0'"),
        ("move the ball to the left", "--move 'ball=-0.3,0'"),
        ("shift the ball up", "--move 'ball=0,-0.3'"),
    ],
)
def test_other_verbs_are_named_as_they_would_do_it(text: str, option: str) -> None:
    with pytest.raises(NotUnderstood, match=re.escape(option)):
        parse_instruction(text)


@pytest.mark.parametrize("text", ["improve the photo", "fix my old picture", "enhance this image"])
def test_work_on_the_picture_is_no_style(text: str) -> None:
    with pytest.raises(NotUnderstood, match="cannot read"):
        parse_instruction(text)
