"""What the user wants to say, made into two prompts."""

from __future__ import annotations

import pytest

from captioning import WordNotInPrompt
from p2p_real.prompts import EditWords, PromptError, Prompts

SOURCE = "a cat and a cat on a mat"


def test_swap_add_remove_style_in_one() -> None:
    words = EditWords(
        swap={"cat#2": "dog"}, add=["in the snow"], remove=["mat"], style="anime style"
    )
    prompts = words.apply("a cat and a cat on a mat near a tree")
    assert prompts.source == "a cat and a cat on a mat near a tree"
    assert "a cat and a dog" in prompts.target
    assert "in the snow" in prompts.target
    assert "mat" not in prompts.target
    assert prompts.target.endswith("anime style")
    assert ("cat#2", "dog") in prompts.changed


def test_a_target_of_its_own_keeps_the_weights() -> None:
    prompts = EditWords(target="  a dog on a mat ", weight={"dog": 2.0}).apply(SOURCE)
    assert prompts == Prompts(SOURCE, "a dog on a mat", (), {"dog": 2.0})


def test_weights_alone_are_an_edit() -> None:
    prompts = EditWords(weight={"cat": 0.0}).apply(SOURCE)
    assert prompts.target == SOURCE
    assert EditWords(weight={"cat": 0.0}).any()


@pytest.mark.parametrize(
    "target", [SOURCE, f" {SOURCE} ", SOURCE.upper(), "a cat  and a cat on a mat"]
)
def test_equal_prompts_are_no_edit(target: str) -> None:
    with pytest.raises(PromptError, match="equals the source prompt"):
        EditWords(target=target).apply(SOURCE)
    with pytest.raises(PromptError, match="equals the source prompt"):
        EditWords(target=target, weight={"cat": 1.0}).apply(SOURCE)
    assert EditWords(target=target, weight={"cat": 1.5}).apply(SOURCE).weight == {"cat": 1.5}


def test_what_makes_no_sense_is_said_before_any_photo() -> None:
    with pytest.raises(PromptError, match="no edit asked for"):
        EditWords().check()
    assert not EditWords().any()
    with pytest.raises(PromptError, match="target prompt is empty"):
        EditWords(target=" \n").check()
    for more in ({"swap": {"a": "b"}}, {"add": ["x"]}, {"remove": ["x"]}, {"style": "x"}):
        with pytest.raises(PromptError, match="cannot be combined"):
            EditWords(target="a dog", **more).check()  # type: ignore[arg-type]


def test_the_source_matters() -> None:
    with pytest.raises(PromptError, match="source prompt is empty"):
        EditWords(target="a dog").apply(" ")
    with pytest.raises(WordNotInPrompt, match="no word 'hat'"):
        EditWords(swap={"hat": "cap"}).apply(SOURCE)
