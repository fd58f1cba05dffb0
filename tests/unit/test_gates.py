"""Windows: fractions of the walk made into steps."""

from __future__ import annotations

import pytest
import torch

from edit.gates import cross_gate, steps_of
from edit.words import WordNotFound
from tests.clip_tokens import cut


@pytest.mark.parametrize(
    ("window", "steps", "expected"),
    [
        ((0.0, 1.0), 50, (0, 50)),
        ((0.0, 0.8), 50, (0, 40)),
        ((0.0, 0.6), 5, (0, 3)),  # 0.6 * 5 is 2.999... in floating point or not: three
        ((0.0, 0.7), 10, (0, 7)),
        ((0.1, 0.3), 10, (1, 3)),
        ((0.0, 0.29), 100, (0, 29)),
        ((0.0, 0.0), 50, (0, 0)),
        ((0.2, 0.2), 50, (10, 10)),
        ((0.0, 0.1), 5, (0, 1)),  # no window that was asked for is empty
        ((0.9, 0.95), 2, (1, 2)),
        ((0, 1), 3, (0, 3)),
    ],
)
def test_steps_of(window: tuple[float, float], steps: int, expected: tuple[int, int]) -> None:
    assert steps_of(window, steps) == expected


def test_every_fraction_of_a_hundred_is_exact() -> None:
    for n in range(101):
        assert steps_of((0.0, n / 100), 100) == (0, n)
        assert steps_of((n / 100, 1.0), 100) == (n, 100)


def test_words_have_their_own_windows_in_every_target() -> None:
    targets = [cut("a cat and a hippopotamus"), cut("a dog")]
    gate = cross_gate(10, targets, (0.0, 0.5), (("hippopotamus", 0.2, 0.4), ("a", 0.5, 1.0)))
    assert gate.shape == (10, 2, 77)
    for column in (5, 6, 7):
        assert gate[:, 0, column].nonzero().flatten().tolist() == [2, 3]
    assert gate[:, 0, 1].nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    assert gate[:, 1, 1].nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    assert gate[:, 0, 2].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert gate[:, 1, 5].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_a_word_of_no_target_is_refused() -> None:
    with pytest.raises(WordNotFound, match="no word 'zebra'"):
        cross_gate(10, [cut("a cat"), cut("a dog")], (0.0, 1.0), (("zebra", 0.0, 0.5),))
    with pytest.raises(WordNotFound, match="did you mean 'cat'"):
        cross_gate(10, [cut("a cat")], (0.0, 1.0), (("cats", 0.0, 0.5),))


def test_the_last_window_of_a_word_wins() -> None:
    gate = cross_gate(10, [cut("a cat")], (0, 1), (("cat", 0.0, 0.2), ("a cat", 0.5, 0.6)))
    assert gate[:, 0, 2].nonzero().flatten().tolist() == [5]


def test_tokens_of_no_word_may_be_let_go_earlier() -> None:
    target = cut("a cat on a mat")
    gate = cross_gate(10, [target], (0, 0.7), [("cat", 0, 1)], 0.2)[:, 0]
    words = torch.zeros(target.length, dtype=torch.bool)
    words[1 : target.count - 1] = True
    assert gate[:2].all()
    assert not gate[2:, ~words].any()
    assert gate[2:7, words].all()
    assert gate[7:].sum() == 3  # the cat's own window
