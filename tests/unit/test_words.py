"""Words in prompts: where they stand, and what is said when they do not."""

from __future__ import annotations

import pytest

from edit.words import PromptTooLong, WordNotFound, split_occurrence, word_spans
from tests.clip_tokens import cut


@pytest.mark.parametrize(
    ("prompt", "word", "positions"),
    [
        ("a cat on a mat", "cat", (2,)),
        ("a cat on a mat", "CAT", (2,)),
        ("A Cat on a mat", "cat", (2,)),
        ("a cat, and a dog", "cat", (2,)),
        ("a cat, and a dog", "cat,", (2, 3)),
        ('(cat) and "dog"!', "dog", None),
        ("a cat.", "cat", (2,)),
        ("a hippopotamus", "hippopotamus", (2, 3, 4)),
        ("the hippopotamus and a cat", "cat", (7,)),
        ("a 512 photo", "512", (2, 3, 4)),
        ("a cat next to a dog", "next to", (3, 4)),
        ("a cat next  to a dog", "next to", (3, 4)),
        ("a cat next to a dog", " next   to ", (3, 4)),
        ("a dog's house", "dog's", (2, 3)),
        ("a dog's house", "dog", (2,)),
        ("a cat and a cat", "cat", (2, 5)),
        ("a cat and a cat", "a", (1, 4)),
        ("a cat and a cat", "cat#1", (2,)),
        ("a cat and a cat", "cat#2", (5,)),
        ("a cat and a cat", "cat #2", (5,)),
        ("a red cat and a red dog", "a red#2", (5, 6)),
        ("a # sign", "#", (2,)),
        ("track #2 of c#", "c#", None),
        ("a café in paris", "café", (2,)),
        ("a CAFÉ in paris", "café", (2,)),
        ("un gâteau brûlé", "brûlé", None),
        ("a black-and-white photo", "black-and-white", (2, 3, 4, 5, 6)),
        ("a black-and-white photo", "white", (6,)),
        ("concatenate the cat", "cat", None),
        ("  two   spaces  here ", "here", (3,)),
    ],
)  # fmt: skip
def test_find(prompt: str, word: str, positions: tuple[int, ...] | None) -> None:
    tokens = cut(prompt)
    found = tokens.find(word)
    if positions is not None:
        assert found == positions
    # whatever the vocabulary does, the tokens found spell the word and nothing else
    spans = sorted({tokens.spans[i - 1] for i in found})  # tokens of one character share a span
    spelled = "".join(tokens.text[a:b] for a, b in spans)
    name = split_occurrence(word)[0]
    times = len(word_spans(prompt, word))
    assert spelled.casefold().replace(" ", "") == name.casefold().replace(" ", "") * times


def test_whole_words_only() -> None:
    tokens = cut("a caterpillar on a catwalk")
    with pytest.raises(WordNotFound):
        tokens.find("cat")


def test_a_character_of_several_tokens() -> None:
    tokens = cut("a 🦄 in the snow")
    found = tokens.find("🦄")
    assert len(found) >= 1
    assert found[0] == 2
    assert {tokens.spans[i - 1] for i in found} == {(2, 3)}
    assert tokens.find("snow") == (tokens.count - 2,)


def test_places_keep_occurrences_apart() -> None:
    tokens = cut("a hippopotamus and a hippopotamus")
    assert tokens.places("hippopotamus") == [(2, 3, 4), (7, 8, 9)]
    assert tokens.find("hippopotamus#2") == (7, 8, 9)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("cats", ["no word 'cats'", "2 cat", "3 on", "did you mean 'cat'"]),
        ("zebra", ["no word 'zebra'", "its tokens: 1 a, 2 cat, 3 on, 4 a, 5 mat"]),
        ("cat#3", ["'cat' stands 1 times", "there is no 'cat#3'"]),
        ("", ["no word ''"]),
        ("cat mat", ["no word 'cat mat'"]),
        ("mat cat", ["no word 'mat cat'"]),
    ],
)
def test_missing_words_are_named(word: str, parts: list[str]) -> None:
    with pytest.raises(WordNotFound) as refused:
        cut("a cat on a mat").find(word)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_word_is_both_a_lookup_and_a_value_error() -> None:
    for kind in (LookupError, ValueError):
        with pytest.raises(kind):
            cut("a cat").find("dog")


def test_empty_prompt() -> None:
    tokens = cut("")
    assert tokens.count == 2
    assert tokens.listing() == "none"
    with pytest.raises(WordNotFound, match="its tokens: none"):
        tokens.find("cat")


def test_length() -> None:
    cut(" ".join(["cat"] * 75)).check_length()
    long = cut(" ".join(["cat"] * 75) + " dogs and horses")
    with pytest.raises(PromptTooLong) as refused:
        long.check_length()
    for part in ("78 tokens", "reads 75", "from 'dogs' on"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("word", "parts"),
    [("cat#2", ("cat", 2)), ("cat", ("cat", 0)), ("#2", ("#2", 0)), ("cat#0", ("cat#0", 0)),
     ("c##3", ("c#", 3)), (" two words #1 ", ("two words", 1))],
)  # fmt: skip
def test_occurrences(word: str, parts: tuple[str, int]) -> None:
    assert split_occurrence(word) == parts
