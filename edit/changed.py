"""Which things a change of words is about: where a blend looks when nobody names a word.

"a red ball" -> "a blue ball" changes the ball, "a ball" -> "a ball and a cup" the cup: of each run
of changed words the last one before the next joining word, which in English names the thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .align import align, split_words
from .kinds import PHRASE_WORDS, changes_light, changes_style
from .method import EditContext

JOINING = PHRASE_WORDS | frozenset(
    """
    this that his her its their my your or of at by to from over above below against between into
    onto inside outside is are
    """.split()  # noqa: SIM905 - a list of thirty quoted words cannot be read
)


def changed_rows(context: EditContext) -> Tensor | None:
    """Tokens of the things that the targets change.

    Args:
        context: the prompts.

    Returns:
        [B, T] in {0, 1}, a row a prompt; None where a target changes the whole picture (its light
        or its style), several things, or nothing that a word names.
    """
    rows = torch.zeros(1 + len(context.targets), context.source.length)
    ours = split_words(context.source)
    for b, target in enumerate(context.targets, 1):
        pairs = align(context.source, target).pairs
        if changes_light(pairs) or changes_style(pairs):
            return None
        here, there = changed_things(pairs)
        if max(len(here), len(there)) != 1:  # of several things a blend would keep one as it was
            return None
        theirs = split_words(target)
        rows[0, [p for i in here for p in ours[i].places]] = 1
        rows[b, [p for i in there for p in theirs[i].places]] = 1
    return rows


def changed_things(pairs: Iterable[tuple[str, str, str]]) -> tuple[list[int], list[int]]:
    """Places, among the words of the source and of the target, of the things that change.

    Args:
        pairs: (source words, target words, kind) as :func:`edit.align.align` gives them, all of
            them: together they are the two prompts.
    """
    runs = [(s.lower().split(), t.lower().split(), kind) for s, t, kind in pairs]
    ours, theirs = ([word for run in runs for word in run[side]] for side in (0, 1))
    here: list[int] = []
    there: list[int] = []
    i = j = 0
    for source, target, kind in runs:
        i, j = i + len(source), j + len(target)
        if kind == "same":
            continue
        gone, come = _heads(ours, i - len(source), i), _heads(theirs, j - len(target), j)
        if not (gone or come):  # only what is said of a thing changes
            gone, come = _next_head(ours, i), _next_head(theirs, j)
        here, there = [*here, *gone], [*there, *come]
    return here, there


def _heads(words: Sequence[str], start: int, end: int) -> list[int]:
    """Of words[start:end], those that end what is said of a thing."""
    return [i for i in range(start, end) if _names(words, i) and not _names(words, i + 1)]


def _next_head(words: Sequence[str], start: int) -> list[int]:
    end = start
    while _names(words, end):
        end += 1
    return [end - 1] if end > start else []


def _names(words: Sequence[str], i: int) -> bool:
    if not _is_content(words, i):
        return False
    # "a cat sitting on", but "a building on"
    verb = words[i].endswith("ing") and _is_content(words, i - 1)
    return not (verb and i + 1 < len(words) and not _is_content(words, i + 1))


def _is_content(words: Sequence[str], i: int) -> bool:
    return 0 <= i < len(words) and words[i] not in JOINING and words[i][0].isalnum()
