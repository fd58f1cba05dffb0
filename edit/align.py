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
class _Word:
    text: str
    places: tuple[int, ...]


def _words(tokens: Tokens) -> list[_Word]:
    found = []
    for m in re.finditer(r"\w+(?:['’]\w+)*|[^\w\s]", tokens.text):
        places = tokens.at(*m.span())
        if places:
            found.append(_Word(m[0], places))
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
    ours, theirs = _words(source), _words(target)
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
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
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


def _swap(matrix: Tensor, source: list[_Word], target: list[_Word]) -> None:
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
