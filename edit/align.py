"""Which word of the source a word of the target continues: one matrix a target.

Words are aligned by their text (case-blind longest common runs); tokens follow their words, so
prompts of any two lengths, repeated words and words of several tokens are one case.

Paper: Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626), section 3.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from .words import Tokens

MODES = ("auto", "replace", "refine")
OPENING = frozenset(("and", "with", "without", "wearing", "holding", "beside", "near", ","))

Code = tuple[str, int, int, int, int]  # as difflib's: kind, source from, to, target from, to


@dataclass(frozen=True)
class Alignment:
    """How a target prompt continues the source prompt.

    Args:
        matrix: [T, T] float32; column j says which source tokens the target's token j takes its
            map from. Columns sum to 1 where ``taken`` is 1.
        taken: [T] float32 in {0, 1}; 0 where the target's token is new and keeps its own map.
        pairs: (source words, target words, kind) for people: kind is same, swapped, new, dropped.
    """

    matrix: Tensor
    taken: Tensor
    pairs: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Word:
    """A word of a prompt and the positions of its tokens."""

    text: str
    places: tuple[int, ...]


def split_words(tokens: Tokens) -> list[Word]:
    """The words and signs of a prompt that have tokens, in order."""
    found = []
    for m in re.finditer(r"\w+(?:['’]\w+)*|[^\w\s]", tokens.text):
        places = tokens.at(*m.span())
        if places:
            found.append(Word(m[0], places))
    return found


def _match(matrix: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Tokens one to one where their numbers agree, else each target token takes the mean of all."""
    if len(source) == len(target):
        for s, t in zip(source, target, strict=True):
            matrix[s, t] = 1
    else:
        for t in target:
            matrix[list(source), t] = 1 / len(source)


def align(source: Tokens, target: Tokens, mode: str = "auto") -> Alignment:
    """Align two prompts.

    Args:
        source: the photo's prompt.
        target: the wanted prompt.
        mode: ``auto`` carries maps over to swapped words and lets added words be new; ``replace``
            is the same but refuses prompts of different word counts; ``refine`` also lets swapped
            words be new.

    Raises:
        ValueError: an unknown mode, or ``replace`` for prompts of different word counts.
    """
    if mode not in MODES:
        raise ValueError(f"unknown alignment {mode!r}: use one of {', '.join(MODES)}")
    source.check_length()
    target.check_length()
    ours, theirs = split_words(source), split_words(target)
    if mode == "replace" and len(ours) != len(theirs):
        raise ValueError(
            f"replace needs prompts of equally many words, got {len(ours)} and {len(theirs)}: "
            "use auto or refine"
        )
    size = source.length
    matrix, taken = torch.zeros(size, size), torch.zeros(size)
    matrix[0, 0] = 1
    pairs = []
    before, after = ([w.text.casefold() for w in words] for words in (ours, theirs))
    codes: list[Code] = list(SequenceMatcher(None, before, after, autojunk=False).get_opcodes())
    for kind, a, b, c, d in _whole_phrases(codes, before, after):
        left, right = " ".join(w.text for w in ours[a:b]), " ".join(w.text for w in theirs[c:d])
        if kind == "equal":
            for s, t in zip(ours[a:b], theirs[c:d], strict=True):
                _match(matrix, s.places, t.places)
            pairs.append((left, right, "same"))
        elif kind == "replace" and mode != "refine":
            _swap(matrix, ours[a:b], theirs[c:d])
            pairs.append((left, right, "swapped"))
        else:
            pairs.append((left, right, "dropped" if d == c else "new"))
    # the end token and the padding behind it continue each other, position by position
    for i in range(size - target.count + 1):
        j = target.count - 1 + i
        matrix[min(size - 1, source.count - 1 + i), j] = 1
    taken[matrix.sum(0) > 0] = 1
    return Alignment(matrix, taken, tuple(pairs))


def _whole_phrases(codes: list[Code], before: list[str], after: list[str]) -> list[Code]:
    """The same alignment, with runs that come or go moved to where a phrase begins or ends.

    Of "a red cube and a blue cube" without its second thing, "cube and a blue" may go as well as
    "and a blue cube": as many words agree, but in the former the cube that stays takes its map
    from the one that goes.
    """
    n, m = len(before), len(after)
    found: list[Code] = [("equal", 0, 0, 0, 0), *codes, ("equal", n, n, m, m)]
    for i, (kind, a, b, c, d) in enumerate(found):
        if kind not in ("insert", "delete"):
            continue
        words, low, high = (before, a, b) if kind == "delete" else (after, c, d)
        _, first, _, behind, _ = found[i - 1]
        _, _, last, _, _ = found[i + 1]
        left, right = 0, 0
        while left < a - first and words[low - left - 1] == words[high - left - 1]:
            left += 1
        while right < last - b and words[low + right] == words[high + right]:
            right += 1
        moves = sorted(range(-left, right + 1), key=abs)
        fits = [_is_phrase(words[low + move : high + move]) for move in moves]
        k = moves[fits.index(max(fits))]
        found[i - 1] = ("equal", first, a + k, behind, c + k)
        found[i] = (kind, a + k, b + k, c + k, d + k)
        found[i + 1] = ("equal", b + k, last, d + k, found[i + 1][4])
    return [code for code in found if code[0] != "equal" or code[1] < code[2]]


def _is_phrase(words: list[str]) -> int:
    """How much a run of words looks like a phrase."""
    return 2 * (words[0] in OPENING) or int(words[-1] in OPENING)


def _swap(matrix: Tensor, source: list[Word], target: list[Word]) -> None:
    """A changed run of words: word by word where their numbers agree, else as one piece."""
    if len(source) == len(target):
        for s, t in zip(source, target, strict=True):
            _match(matrix, s.places, t.places)
    else:
        everything = (
            tuple(i for w in source for i in w.places),
            tuple(i for w in target for i in w.places),
        )
        if len(everything[0]) == len(everything[1]):
            return _match(matrix, *everything)
        for place in everything[1]:
            matrix[list(everything[0]), place] = 1 / len(everything[0])
    return None
