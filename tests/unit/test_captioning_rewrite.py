"""Captions to prompts: what people type, and the sentence they expect."""

from __future__ import annotations

import pytest

from captioning.grammar import article_for
from captioning.rewrite import (
    RewriteError,
    WordNotInPrompt,
    add,
    compose,
    find_word,
    parse_swap,
    parse_weight,
    remove,
    style,
    swap,
    tidy,
)


@pytest.mark.parametrize(
    ("prompt", "words", "target", "changed"),
    [
        ("a cat on a mat", {"cat": "dog"}, "a dog on a mat", [("cat", "dog")]),
        ("a cat on a mat", {"cat": "elephant"}, "an elephant on a mat", [("cat", "elephant")]),
        ("An orange cup.", {"orange": "red"}, "A red cup.", [("orange", "red")]),
        ("Cat, on mat!", {"cat": "dog"}, "Dog, on mat!", [("Cat", "Dog")]),
        ("A CAT", {"cat": "owl"}, "AN OWL", [("CAT", "OWL")]),
        ("a [cat] sits", {"cat": "[owl]"}, "an [[owl]] sits", [("cat", "[owl]")]),
        ("a [cat] sits", {"cat": "owl"}, "an [owl] sits", [("cat", "owl")]),
        ("a cat", {"cat": "two dogs"}, "two dogs", [("cat", "two dogs")]),
        ("A cat sits", {"cat": "two dogs"}, "Two dogs sits", [("cat", "Two dogs")]),
        ("the cat", {"cat": "a dog"}, "a dog", [("cat", "a dog")]),
        ("the cat", {"cat": "elephant"}, "the elephant", [("cat", "elephant")]),
        ("a  red   ball", {"red ball": "blue cube"}, "a blue cube", [("red ball", "blue cube")]),
        ("the cat's tail", {"cat": "dog"}, "the dog's tail", [("cat", "dog")]),
        ("a cat", {"cat": "fluffy cat"}, "a fluffy cat", [("cat", "fluffy cat")]),
        ("a café", {"CAFÉ": "bar"}, "a bar", [("café", "bar")]),
        ("a dog and a cat", {"dog": "cat", "cat": "dog"}, "a cat and a dog",
         [("dog", "cat"), ("cat", "dog")]),
        ("a cat and a cat", {"cat": "dog"}, "a dog and a dog",
         [("cat#1", "dog#1"), ("cat#2", "dog#2")]),
        ("a cat and a cat", {"cat#2": "dog"}, "a cat and a dog", [("cat#2", "dog")]),
        ("a cat and a cat", {"cat": "dog", "cat#2": "ape"}, "a dog and an ape",
         [("cat#1", "dog"), ("cat#2", "ape")]),
        ("a dog and a cat", {"cat": "dog"}, "a dog and a dog", [("cat", "dog#2")]),
        ("a red ball and a ball", {"ball": "egg", "red ball": "cube"}, "a cube and an egg",
         [("red ball", "cube"), ("ball#2", "egg")]),
        ("an apple", {"an": "the", "apple": "pear"}, "the pear",
         [("an", "the"), ("apple", "pear")]),
    ],
)  # fmt: skip
def test_swap(
    prompt: str, words: dict[str, str], target: str, changed: list[tuple[str, str]]
) -> None:
    result = swap(prompt, words)
    assert result.target == target
    assert result.changed == tuple(changed)
    assert result.source == prompt
    for old, new in changed:  # every name leads to exactly one place
        assert len(find_word(prompt, old)) == 1
        if "[" not in new:
            assert len(find_word(target, new)) == 1


@pytest.mark.parametrize("inside", ["cats", "concat", "cat_2", "bobcat"])
def test_only_whole_words_match(inside: str) -> None:
    with pytest.raises(WordNotInPrompt):
        swap(f"a {inside} on a mat", {"cat": "dog"})


def test_the_error_names_the_nearest_and_lists_the_words() -> None:
    with pytest.raises(WordNotInPrompt) as error:
        swap("a cat\non a mat", {"cats": "dog"})
    assert isinstance(error.value, ValueError)
    text = str(error.value)
    assert "'cats'" in text
    assert "did you mean 'cat'?" in text
    assert "1 a, 2 cat, 3 on, 4 a, 5 mat" in text
    assert "\n" not in text
    assert error.value.word == "cats"
    with pytest.raises(WordNotInPrompt, match=r"stands only 2 times"):
        find_word("a cat and a cat", "cat#3")
    with pytest.raises(WordNotInPrompt, match="another swap"):
        swap("a red ball", {"red ball": "cube", "ball": "egg"})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({}, "no words"),
        ({"cat": ""}, "remove it"),
        ({"cat": "cat"}, "changes nothing"),
        ({"": "dog"}, "not a word"),
        ({"cat#0": "dog"}, "counts from 1"),
    ],
)
def test_swaps_without_sense(words: dict[str, str], line: str) -> None:
    with pytest.raises(RewriteError, match=line):
        swap("a cat", words)


def test_find_word_gives_character_spans() -> None:
    assert find_word("a cat and a Cat", "cat") == ((2, 5), (12, 15))
    assert find_word("a cat and a Cat", "cat#2") == ((12, 15),)
    assert find_word("a red\n ball", "red ball") == ((2, 11),)


@pytest.mark.parametrize(
    ("prompt", "word", "target"),
    [
        ("a cat and a dog", "dog", "a cat"),
        ("a cat and a dog", "cat", "a dog"),
        ("a cat and a dog on a mat", "dog", "a cat on a mat"),
        ("a cat, a dog and a bird", "dog", "a cat and a bird"),
        ("a cat, a dog and a bird", "bird", "a cat, a dog"),
        ("a cat, a dog and a bird", "cat", "a dog and a bird"),
        ("a red cup", "red", "a cup"),
        ("a red apple", "red", "an apple"),
        ("An orange cup", "orange", "A cup"),
        ("a red and blue ball", "red", "a blue ball"),
        ("a red and blue ball", "blue", "a red ball"),
        ("a red, shiny cup", "red", "a shiny cup"),
        ("a cat and fluffy dog", "fluffy", "a cat and dog"),
        ("a fluffy wedding dress", "fluffy", "a wedding dress"),
        ("a cat with a hat", "hat", "a cat"),
        ("a cat with a hat", "with a hat", "a cat"),
        ("a man holding a cup", "cup", "a man"),
        ("a man holding a cup and a plate", "cup", "a man holding a plate"),
        ("a man holding a cup and a plate", "plate", "a man holding a cup"),
        ("a cat on a mat in a room", "mat", "a cat in a room"),
        ("a cat sitting on a mat", "mat", "a cat sitting"),
        ("a cat on top of a house", "house", "a cat"),
        ("a photo of a red ball on sand", "ball", "a photo on sand"),
        ("a cat on a mat, watercolor", "mat", "a cat, watercolor"),
        ("a cat on a mat, watercolor", "watercolor", "a cat on a mat"),
        ("a car parked on a street", "parked", "a car on a street"),
        ("a dog asleep", "asleep", "a dog"),
        ("A [cat] sits on a [bench].", "bench", "A [cat]."),
        ("a cat's tail", "cat", "a tail"),
        ("a cat and a cat", "cat#2", "a cat"),
        ("very  very big cat", "very", "big cat"),
        ("A man riding a horse", "man", "A horse"),
        ("a blue metal cube on sand", "blue metal", "a cube on sand"),
    ],
)
def test_remove(prompt: str, word: str, target: str) -> None:
    result = remove(prompt, word)
    assert result.target == target
    assert all(new == "" and find_word(prompt, old) for old, new in result.changed)


def test_remove_refuses() -> None:
    with pytest.raises(WordNotInPrompt, match="did you mean 'dog'"):
        remove("a dog", "dogs")
    for prompt, word in [("a cat", "cat"), ("the cat and a cat", "cat"), ("cat", "cat")]:
        with pytest.raises(RewriteError, match="nothing is left"):
            remove(prompt, word)


@pytest.mark.parametrize(
    ("prompt", "phrase", "target"),
    [
        ("a cat", "with a hat", "a cat with a hat"),
        ("a cat.", "wearing a hat", "a cat wearing a hat."),
        ("a cat", " highly  detailed, ", "a cat, highly detailed"),
        ("a cat, ", "at night", "a cat at night"),
        ("", "a dog", "a dog"),
    ],
)
def test_add(prompt: str, phrase: str, target: str) -> None:
    result = add(prompt, phrase)
    assert result.target == target
    assert result.changed[0][0] == ""
    assert find_word(target, result.changed[0][1])


@pytest.mark.parametrize(
    ("prompt", "phrase", "target", "changed"),
    [
        ("a cat", "a watercolor painting", "a watercolor painting of a cat",
         ("", "watercolor painting")),
        ("A cat.", "oil painting", "An oil painting of a cat.", ("", "oil painting")),
        ("a cat", "pencil sketch of", "a pencil sketch of a cat", ("", "pencil sketch")),
        ("A photo of a cat", "oil painting", "An oil painting of a cat", ("photo", "oil painting")),
        ("a black and white photo of a cat", "sketch", "a sketch of a cat",
         ("black and white photo", "sketch")),
        ("a cat", "anime style", "a cat, anime style", ("", "anime style")),
        ("a cat", "in the style of van Gogh", "a cat in the style of van Gogh",
         ("", "in the style of van Gogh")),
    ],
)  # fmt: skip
def test_style(prompt: str, phrase: str, target: str, changed: tuple[str, str]) -> None:
    result = style(prompt, phrase)
    assert result.target == target
    assert result.changed == (changed,)


def test_styles_without_sense() -> None:
    for phrase, line in [("", "no style"), ("of", "no style"), ("photo", "already")]:
        with pytest.raises(RewriteError, match=line):
            style("a photo of a cat", phrase)


def test_compose_names_places_of_the_first_and_the_last_prompt() -> None:
    result = compose(
        "A photo of a red cat and a dog",
        swaps={"red": "orange"},
        removals=["dog"],
        additions=["with a hat"],
        styles=["sketch"],
    )
    assert result.source == "A photo of a red cat and a dog"
    assert result.target == "A sketch of an orange cat with a hat"
    assert result.changed == (
        ("red", "orange"), ("dog", ""), ("", "with a hat"), ("photo", "sketch"),
    )  # fmt: skip
    assert compose("a cat").target == "a cat"
    gone = compose("a cat and a dog", swaps={"cat": "ape"}, removals=["ape"])
    assert gone.target == "a dog"
    assert all(word != "ape" for pair in gone.changed for word in pair)


@pytest.mark.parametrize(
    ("phrase", "article"),
    [
        ("cat", "a"), ("elephant", "an"), ("hour", "an"), ("honest man", "an"), ("horse", "a"),
        ("unicorn", "a"), ("uniform", "a"), ("unimportant man", "an"), ("unidentified car", "an"),
        ("umbrella", "an"), ("used car", "a"), ("European", "a"), ("one-eyed cat", "a"),
        ("onion", "an"), ("SUV", "an"), ("UFO", "a"), ("OWL", "an"), ("8 ball", "an"),
        ("80s car", "an"),
        ("7 ball", "a"), ("11th cup", "an"), ("[apple]", "an"), ("", "a"), ("étude", "an"),
        ("X-ray", "an"),
    ],
)  # fmt: skip
def test_a_or_an(phrase: str, article: str) -> None:
    assert article_for(phrase) == article


@pytest.mark.parametrize(
    ("caption", "tidied"),
    [
        ("  a cat  on a mat . ", "a cat on a mat"),
        ("[DEC] a cat [SEP] [PAD]", "a cat"),
        ("arafed dog on an arafed couch", "dog on a couch"),
        ("a a cat cat cat", "a cat"),
        ("a cup on a table on a table on a table on the", "a cup on a table"),
        ("a cat and a cat and a dog", "a cat and a cat and a dog"),
        ("a very very big cat", "a very very big cat"),
        ("an red cube, and Paris", "a red cube, and Paris"),
        ("", ""),
    ],
)
def test_tidy(caption: str, tidied: str) -> None:
    assert tidy(caption) == tidied


def test_parse_swap() -> None:
    assert parse_swap("cat=dog") == ("cat", "dog")
    assert parse_swap(" red  ball = blue cube ") == ("red ball", "blue cube")
    assert parse_swap("cat#2=dog") == ("cat#2", "dog")
    for wrong, line in [
        ("cat", "OLD=NEW"),
        ("=dog", "OLD=NEW"),
        ("a=b=c", "OLD=NEW"),
        ("cat=", "remove it"),
        ("#=b", "not a word"),
    ]:
        with pytest.raises(RewriteError, match=line):
            parse_swap(wrong)


def test_parse_weight() -> None:
    assert parse_weight("fluffy=2.0") == ("fluffy", 2.0)
    assert parse_weight("red ball#2 = -1e-1") == ("red ball#2", -0.1)
    for wrong in ["fluffy", "fluffy=", "=2", "fluffy=very", "fluffy=nan", "fluffy=inf", "a=b=2"]:
        with pytest.raises(RewriteError, match="WORD=NUMBER"):
            parse_weight(wrong)
