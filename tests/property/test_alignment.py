"""Alignment of prompts drawn at random: what holds of any two."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edit.align import align
from edit.gates import cross_gate, steps_of
from edit.published import mapper_matrix, refine_mapper
from edit.words import WordNotFound
from tests.clip_tokens import cut

WORDS = ["a", "cat", "Dog", "hippopotamus", "on", "red", "512", "café", "dog's", "mat,", "#", "🦄"]
prompts = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
fractions = st.floats(0, 1)


@settings(deadline=None, max_examples=150)
@given(source=prompts, target=prompts, mode=st.sampled_from(["auto", "refine"]))
def test_any_two_prompts(source: str, target: str, mode: str) -> None:
    ours, theirs = cut(source), cut(target)
    found = align(ours, theirs, mode)
    sums = found.matrix.sum(0)
    taken = found.taken > 0
    assert set(found.taken.tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(sums[taken], torch.ones(int(taken.sum())))
    assert not sums[~taken].any()
    assert (found.matrix >= 0).all()
    # start, end and padding of both prompts continue each other, whatever the lengths
    assert found.matrix[0, 0] == 1
    assert found.taken[theirs.count - 1 :].all()
    assert found.matrix[: ours.count - 1, theirs.count - 1 :].sum() == 0
    assert found.matrix[ours.count - 1 :, 1 : theirs.count - 1].sum() == 0
    # monotone: a later column never reaches back before an earlier one's last source
    last = -1
    for j in range(77):
        rows = found.matrix[:, j].nonzero().flatten().tolist()
        if rows:
            assert rows[-1] >= last
            last = max(last, rows[0])
    # every word of both prompts is in one line of the table
    for side, tokens in ((0, ours), (1, theirs)):
        told = "".join(p[side] for p in found.pairs).replace(" ", "")
        assert told == "".join(tokens.text.split()) or "🦄" in tokens.text


@settings(deadline=None, max_examples=60)
@given(prompt=prompts, mode=st.sampled_from(["auto", "replace", "refine"]))
def test_equal_prompts(prompt: str, mode: str) -> None:
    found = align(cut(prompt), cut(prompt), mode)
    assert torch.equal(found.matrix, torch.eye(77))
    assert found.taken.all()


@settings(deadline=None, max_examples=60)
@given(source=prompts, target=prompts)
def test_published_refine_is_monotone(source: str, target: str) -> None:
    ours, theirs = cut(source), cut(target)
    index, taken = refine_mapper(ours, theirs)
    kept = [int(i) for i in index[: theirs.count] if i >= 0]
    assert kept == sorted(set(kept))
    for j, i in enumerate(index[1 : theirs.count - 1].tolist(), 1):
        assert i < 0 or ours.ids[i - 1] == theirs.ids[j - 1]
    assert torch.equal(mapper_matrix(index, taken).sum(0), taken)


@settings(deadline=None, max_examples=100)
@given(prompt=prompts, word=st.sampled_from(WORDS))
def test_words_are_found_where_they_stand(prompt: str, word: str) -> None:
    tokens = cut(prompt)
    times = sum(w.casefold() == word.casefold() for w in prompt.split())
    try:
        places = tokens.places(word)
    except WordNotFound:
        assert times == 0
        return
    assert len(places) >= times
    assert tokens.find(word) == tuple(sorted({i for place in places for i in place}))
    for n, place in enumerate(places, 1):
        assert tokens.find(f"{word}#{n}") == place
        assert place == tuple(range(place[0], place[-1] + 1))
    with pytest.raises(WordNotFound):
        tokens.find(f"{word}#{len(places) + 1}")


@settings(deadline=None, max_examples=100)
@given(steps=st.integers(1, 60), low=fractions, high=fractions, more=fractions)
def test_windows_are_nested(steps: int, low: float, high: float, more: float) -> None:
    low, high = sorted((low, high))
    a, b = steps_of((low, high), steps)
    c, d = steps_of((min(low, more), max(high, more)), steps)
    assert 0 <= a <= b <= steps
    assert 0 <= c <= d <= steps
    # a window too short to hold a step is given one, which a longer window need not hold
    if int(low * steps + 1e-9) < int(high * steps + 1e-9):
        assert c <= a <= b <= d
    elif high > low:
        assert b - a == 1
    gate = cross_gate(steps, [cut("a cat")], (low, high), (("cat", 0.0, 1.0),))
    assert set(gate.unique().tolist()) <= {0.0, 1.0}
    assert gate[:, 0, 1].sum() == b - a
    assert gate[:, 0, 2].all()
