"""Captions of the embedded captioner: words they lack are refused with a hint at who said them."""

import pytest

from captioning.matching import WordNotInPrompt
from captioning.rewrite import swap
from p2p_real.captions import SMALL_WORLD, on_caption


@pytest.mark.parametrize(
    ("model", "captioned", "hint"),
    [("tabletop", True, True), ("tabletop", False, False), ("sd1.5", True, False)],
)
def test_a_missing_word_names_the_small_world(model: str, captioned: bool, hint: bool) -> None:
    with pytest.raises(WordNotInPrompt) as error, on_caption(model, captioned):
        swap("a black mug on a cloth at night", {"cat": "dog"})
    assert str(error.value).endswith(SMALL_WORLD) is hint
    assert "did you mean" not in str(error.value)  # no preposition is offered for a thing
