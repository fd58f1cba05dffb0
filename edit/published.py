"""Words, windows and mappers exactly as the published prompt-to-prompt code makes them.

Used by ``compat=True`` only, to reproduce published numbers; the quirks are known and listed here:
words are split at single blanks and compared letter by letter, a word that is not there selects
nothing, behind the last swapped word positions are paired as if nothing had shifted, and padding is
paired by position whatever the lengths.

Paper: Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .words import Tokens

Window = float | tuple[float, float]


def word_positions(tokens: Tokens, word: str | int) -> list[int]:
    """Token positions of every blank-separated piece equal to ``word`` (or the n-th piece)."""
    pieces = tokens.text.split(" ")
    chosen = {word} if isinstance(word, int) else {i for i, p in enumerate(pieces) if p == word}
    found, piece, filled = [], 0, 0
    for i, part in enumerate(tokens.pieces):
        if piece in chosen:
            found.append(i + 1)
        filled += len(part.strip().strip("#"))
        if piece < len(pieces) and filled >= len(pieces[piece]):
            piece, filled = piece + 1, 0
    return found


def _bounds(window: Window, rows: int) -> tuple[int, int]:
    low, high = window if isinstance(window, tuple | list) else (0.0, window)
    return int(low * rows), int(high * rows)


def cross_window(
    steps: int,
    targets: Sequence[Tokens],
    windows: Window | Mapping[str, Window],
    first_step: int = 0,
) -> Tensor:
    """The table of cross-attention windows, [first_step + steps + 1, G, T] in {0, 1}.

    Rows are counted on steps + 1; a word's own window replaces the default on its tokens. A walk
    that starts at ``first_step`` reads its first row there, and the windows keep their length.
    """
    table = dict(windows) if isinstance(windows, Mapping) else {"default_": windows}
    default = table.pop("default_", (0.0, 1.0))
    gate = torch.zeros(steps + 1, len(targets), targets[0].length)
    low, high = _bounds(default, steps + 1)
    gate[low:high] = 1
    for word, window in table.items():
        low, high = _bounds(window, steps + 1)
        for g, tokens in enumerate(targets):
            places = [p for p in word_positions(tokens, word) if p < tokens.length]
            gate[:, g, places] = 0
            gate[low:high, g, places] = 1
    return torch.cat([torch.zeros_like(gate[:1]).expand(first_step, -1, -1), gate])


def self_window(steps: int, window: Window, first_step: int = 0) -> tuple[int, int]:
    """First and last-plus-one step of self-attention replacement."""
    low, high = _bounds(window, steps)
    return low + first_step, high + first_step


def replace_mapper(source: Tokens, target: Tokens) -> Tensor:
    """The word-swap mapper [T, T]: E = A_source @ mapper.

    Raises:
        ValueError: the prompts have different numbers of blank-separated words.
    """
    ours, theirs = source.text.split(" "), target.text.split(" ")
    if len(ours) != len(theirs):
        raise ValueError(
            f"replace needs prompts of equally many words, got {len(ours)} and {len(theirs)}"
        )
    changed = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    places = [(word_positions(source, i), word_positions(target, i)) for i in changed]
    size = source.length
    mapper = torch.zeros(size, size)
    i = j = 0
    while i < size and j < size:
        if places and places[0][0] and places[0][0][0] == i:
            s, t = places.pop(0)
            if len(s) == len(t):
                mapper[s, t] = 1
            else:
                for column in t:
                    mapper[s, column] = 1 / len(t)
            i, j = i + len(s), j + len(t)
        else:
            mapper[i if places else j, j] = 1
            i, j = i + 1, j + 1
    return mapper


def refine_mapper(source: Tokens, target: Tokens) -> tuple[Tensor, Tensor]:
    """The added-phrase mapper: each target position's source index [T], and whether it has one [T].

    A longest common subsequence of the ids (gap 0, match 1, mismatch -1); read from the end, equal
    scores skip a target token first, then a source token, and pair last.
    """
    size = source.length
    x, y = [[-1, *t.ids, -2] for t in (source, target)]
    score = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            pair = score[i - 1][j - 1] + (1 if a == b else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], pair)
    index, taken = torch.arange(size), torch.ones(size)
    partner = [-1] * len(y)
    i, j = len(x), len(y)
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partner[j] = i
    for j, i in enumerate(partner[:size]):
        index[j], taken[j] = i, float(i >= 0)
    return index, taken


def mapper_matrix(index: Tensor, taken: Tensor) -> Tensor:
    """A refine mapper as a matrix [T, T] with empty columns where nothing is taken."""
    matrix = torch.zeros(len(index), len(index))
    kept = taken > 0
    matrix[index[kept], torch.arange(len(index))[kept]] = 1
    return matrix


def equalizer(target: Tokens, weights: Mapping[str, float]) -> Tensor:
    """[T] factors: 1, and each word's weight on its tokens."""
    factors = torch.ones(target.length)
    for word, value in weights.items():
        factors[word_positions(target, word)] = value
    return factors


def blend_selector(tokens: Tokens, words: str | Sequence[str]) -> Tensor:
    """[T] in {0, 1}: the tokens of the words a blend mask is read from."""
    chosen = torch.zeros(tokens.length)
    for word in [words] if isinstance(words, str) else words:
        chosen[word_positions(tokens, word)] = 1
    return chosen
