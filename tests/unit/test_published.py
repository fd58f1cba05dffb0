"""The published word search, windows and mappers, quirks and all: tables worked out by hand.

The numbers are those of the design notes (algorithms.md 4.3, 4.5 and 4.6), which were made by
running the published code.
"""

from __future__ import annotations

import pytest
import torch

from edit import published
from tests.clip_tokens import cut


@pytest.mark.parametrize(
    ("prompt", "word", "positions"),
    [
        ("a cat, and a dog", "cat", []),  # punctuation sticks to the word
        ("a cat, and a dog", "cat,", [2, 3]),
        ("A Cat and a cat", "cat", [5]),  # letter by letter
        ("a cat next to a dog", "next to", []),  # a phrase is no word
        ("a hippopotamus", "hippopotamus", [2, 3, 4]),
        ("a 512 photo", "512", [2, 3, 4]),
        ("a dog's house", "dog's", [2, 3]),
        ("a cat and a cat", "cat", [2, 5]),
        ("a cat and a cat", 4, [5]),  # by number
        ("a cat", "dog", []),
    ],
)
def test_word_positions(prompt: str, word: str | int, positions: list[int]) -> None:
    assert published.word_positions(cut(prompt), word) == positions


@pytest.mark.parametrize(
    ("steps", "fraction", "cross", "own"),
    [
        (50, 0.2, 10, 10), (50, 0.4, 20, 20), (50, 0.5, 25, 25), (50, 0.6, 30, 30),
        (50, 0.8, 40, 40), (50, 1.0, 51, 50),
        (28, 0.4, 11, 11), (28, 0.6, 17, 16), (28, 0.8, 23, 22), (28, 1.0, 29, 28),
        (4, 0.2, 1, 0), (4, 0.4, 2, 1), (4, 0.8, 4, 3),
    ],
)  # fmt: skip
def test_windows(steps: int, fraction: float, cross: int, own: int) -> None:
    gate = published.cross_window(steps, [cut("a cat")], fraction)
    assert gate.shape == (steps + 1, 1, 77)
    assert gate[:, 0, 0].sum() == cross
    assert torch.equal(
        gate, (torch.arange(steps + 1) < cross).float()[:, None, None].expand_as(gate)
    )
    assert published.self_window(steps, fraction) == (0, own)


def test_word_windows() -> None:
    targets = [cut("a cat and a dog"), cut("a bird")]
    windows = {"default_": (0.2, 0.8), "dog": 0.4, "a": (0.5, 0.6), "zebra": 0.1}
    gate = published.cross_window(50, targets, windows)
    rows = {0: (10, 40), 5: (0, 20), 1: (25, 30), 4: (25, 30), 2: (10, 40)}
    for column, (low, high) in rows.items():
        where = gate[:, 0, column].nonzero().flatten()
        assert (int(where[0]), int(where[-1]) + 1, len(where)) == (low, high, high - low)
    assert gate[:, 1, 1].sum() == 5  # every target that has the word
    assert gate[:, 1, 2].sum() == 30
    assert windows == {"default_": (0.2, 0.8), "dog": 0.4, "a": (0.5, 0.6), "zebra": 0.1}
    assert published.cross_window(4, targets, {"dog": 0.4})[:, 0, 1].sum() == 5  # default: all


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (
            "a cat sitting next to a mirror",
            "a silver cat sculpture sitting next to a mirror",
            [0, 1, -1, 2, -1, 3, 4, 5, 6, 7, 8, 11, 12, 13],
        ),
        (
            "a cat sitting next to a mirror",
            "a tiger sitting next to a mirror",
            [0, 1, -1, 3, 4, 5, 6, 7, 8, 9, 10],
        ),
        (
            "photo of a cat riding on a bicycle",
            "photo of a hippopotamus riding on a motorcycle",
            [0, 1, 2, 3, -1, -1, -1, 5, 6, 7, -1, 9, 12, 13],
        ),
        (  # padding is paired by position, so the deleted words come back through it
            "a photo of a house on a mountain at winter",
            "a photo of a house",
            [0, 1, 2, 3, 4, 5, 11, 7, 8, 9, 10, 11, 12],
        ),
    ],
)
def test_refine(source: str, target: str, expected: list[int]) -> None:
    index, taken = published.refine_mapper(cut(source), cut(target))
    assert index[: len(expected)].tolist() == expected
    assert index[len(expected) :].tolist() == list(range(len(expected), 77))
    assert torch.equal(taken, (index >= 0).float())
    matrix = published.mapper_matrix(index, taken)
    assert torch.equal(matrix.sum(0), taken)
    for j, i in enumerate(expected):
        assert matrix[:, j].nonzero().flatten().tolist() == ([i] if i >= 0 else [])


def test_replace_of_equal_counts_is_the_identity() -> None:
    mapper = published.replace_mapper(cut("a cat on a mat"), cut("a dog on a mat"))
    assert torch.equal(mapper, torch.eye(77))


def test_replace_of_more_tokens() -> None:
    """One source token to three: a third each; behind it positions pair as if nothing moved."""
    source = cut("a lion eating an apple on the grass")
    target = cut("a hippopotamus eating an apple on the grass")
    mapper = published.replace_mapper(source, target)
    assert mapper[:, 1].nonzero().flatten().tolist() == [1]
    torch.testing.assert_close(mapper[2, 2:5], torch.full((3,), 1 / 3))
    torch.testing.assert_close(mapper[2].sum(), torch.tensor(1.0))
    assert mapper[5, 5] == 1  # "eating" takes the map of "apple"
    assert source.text.split()[4] == "apple"
    assert not mapper[3:5].any()  # the maps of "eating" and "an" go nowhere
    assert torch.equal(mapper[5:, 5:], torch.eye(72))


def test_replace_of_fewer_tokens() -> None:
    mapper = published.replace_mapper(cut("a hippopotamus on a mat"), cut("a cat on a mat"))
    assert mapper[:, 2].tolist()[:6] == [0, 0, 1, 1, 1, 0]  # all three maps, summed
    assert mapper[3, 3] == mapper[4, 4] == 1
    assert mapper[:, 2].sum() == 3


def test_replace_while_words_remain() -> None:
    """Between two changed words the shift is kept."""
    mapper = published.replace_mapper(
        cut("a cat on a red mat"), cut("a hippopotamus on a blue mat")
    )
    assert mapper[3, 5] == mapper[4, 6] == 1  # on, a
    assert mapper[5, 7] == 1  # red -> blue
    assert mapper[8, 8] == 1  # behind the last changed word: by position again


def test_replace_refuses_other_word_counts() -> None:
    with pytest.raises(ValueError, match="equally many words, got 2 and 3"):
        published.replace_mapper(cut("a cat"), cut("a big cat"))


def test_equalizer_and_selector() -> None:
    tokens = cut("a fluffy hippopotamus and a cat")
    factors = published.equalizer(tokens, {"hippopotamus": -2.0, "cat": 0.0, "zebra": 9.0})
    expected = torch.ones(77)
    expected[[3, 4, 5]], expected[8] = -2.0, 0.0
    assert torch.equal(factors, expected)
    chosen = published.blend_selector(tokens, ["cat", "fluffy", "zebra"])
    assert chosen.nonzero().flatten().tolist() == [2, 8]
    assert not published.blend_selector(tokens, "zebra").any()
