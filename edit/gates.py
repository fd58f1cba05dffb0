"""When an edit acts, and on which words: fractions of the walk made into tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .words import Tokens, WordNotFound

WordWindow = tuple[str, float, float]


def steps_of(window: tuple[float, float], steps: int) -> tuple[int, int]:
    """First and last-plus-one step of a window given in fractions of the walk, half open.

    A window that is not empty holds at least one step, however few there are.
    """
    low, high = window
    first, last = int(low * steps + 1e-9), int(high * steps + 1e-9)
    if high > low and last == first:
        return min(first, steps - 1), min(first, steps - 1) + 1
    return first, last


def cross_gate(
    steps: int,
    targets: Sequence[Tokens],
    window: tuple[float, float],
    word_windows: Sequence[WordWindow] = (),
    padding_stop: float = 1.0,
) -> Tensor:
    """Where the source's maps are used, [S, G, T] in {0, 1}.

    Args:
        steps: number of sampling steps.
        targets: tokens of each target prompt.
        window: (start, stop) in [0, 1] for all words.
        word_windows: (word, start, stop): a word's own window, on its tokens in every target that
            has it.
        padding_stop: fraction of the walk after which tokens of no word (start, end, padding) are
            let go at the latest.

    Raises:
        WordNotFound: a word of ``word_windows`` is in none of the targets.
    """
    gate = torch.zeros(steps, len(targets), targets[0].length)
    low, high = steps_of(window, steps)
    gate[low:high] = 1
    if padding_stop < 1:
        freed = steps_of((0, padding_stop), steps)[1]
        for g, tokens in enumerate(targets):
            gate[freed:, g, 0] = 0
            gate[freed:, g, tokens.count - 1 :] = 0
    for word, start, stop in word_windows:
        low, high = steps_of((start, stop), steps)
        missing: WordNotFound | None = None
        found = False
        for g, tokens in enumerate(targets):
            try:
                places = list(tokens.find(word))
            except WordNotFound as e:
                missing = e
                continue
            found = True
            gate[:, g, places] = 0
            gate[low:high, g, places] = 1
        if not found and missing is not None:
            raise missing
    return gate
