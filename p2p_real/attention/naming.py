"""Which words are looked at, and where they stand in the one prompt or in both."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioning.grammar import ARTICLES, CONJUNCTIONS, PREPOSITIONS
from captioning.matching import WordNotInPrompt, find_word, reference
from edit.align import align
from edit.words import Tokens

from ..numbers import OptionError

logger = logging.getLogger(__name__)

MOST = 24  # words that are looked at together
UNASKED = 12  # words that are taken where none is named
FILLERS = (
    ARTICLES
    | CONJUNCTIONS
    | PREPOSITIONS
    | {"is", "are", "was", "were", "has", "have", "that", "which", "who", "there", "some", "it"}
    | {"this", "these", "those", "its", "his", "her", "their"}
)


@dataclass(frozen=True)
class Word:
    """A word of the source prompt and what stands in its place in the target prompt.

    Args:
        names: as people would name it, one a prompt; None where a prompt has nothing there.
        places: its token positions, one tuple a prompt.
    """

    names: tuple[str | None, ...]
    places: tuple[tuple[int, ...], ...]

    @property
    def label(self) -> str:
        """``ball``, or ``red > blue`` where the prompts differ."""
        named = [n for n in self.names if n is not None]
        if len(self.names) > 1 and len(named) == 1:
            return f"{named[0]} (new)" if self.names[0] is None else f"{named[0]} (dropped)"
        return named[0] if len({n.lower() for n in named}) == 1 else " > ".join(named)


def parse_words(text: str | None) -> list[str]:
    """``ball,"wooden table"`` as words and phrases; none of nothing.

    Raises:
        OptionError: a word is empty or named twice, or there are too many.
    """
    if text is None:
        return []
    words = [w.strip().strip("\"'").strip() for w in text.split(",")]
    if not all(words):
        raise OptionError(f"--words {text!r}: give words with commas between, such as ball,table")
    for word in words:
        if [w.lower() for w in words].count(word.lower()) > 1:
            raise OptionError(f"--words names {word!r} twice: once is enough")
    if len(words) > MOST:
        raise OptionError(f"--words names {len(words)} words: at most {MOST} are shown together")
    return words


def check_words(words: Sequence[str], prompts: Sequence[str]) -> None:
    """Refuse words that stand in none of the prompts, before any weight is loaded.

    Raises:
        WordNotInPrompt: lists the words of the first prompt.
    """
    for word in words:
        missing: list[WordNotInPrompt] = []
        for prompt in prompts:
            try:
                find_word(prompt, word)
            except WordNotInPrompt as error:
                missing.append(error)
        if len(missing) == len(prompts):
            raise missing[0]


def choose_words(asked: Sequence[str], source: Tokens, target: Tokens | None) -> list[Word]:
    """The words to look at; where none is asked for, all that are no mere fillers.

    Raises:
        WordNotInPrompt: a word that was asked for stands in no prompt.
    """
    prompts = [source.text] if target is None else [source.text, target.text]
    if asked:
        check_words(asked, prompts)
        return [_named(word, source, target) for word in asked]
    own = [_at(source, span) for span in _spans(source)]
    if target is None:
        return _fewer([Word((name,), (places,)) for name, places in own])
    found = _merged([Word(*_both(name, places, source, target)) for name, places in own], source)
    covered = {p for word in found for p in word.places[1]}
    for span in _spans(target):
        name, places = _at(target, span)
        if not covered & set(places):
            found.append(Word((None, name), ((), places)))
    return _fewer(found)


def _merged(words: Sequence[Word], source: Tokens) -> list[Word]:
    """Words of the source that are swapped together for the same words, as one phrase."""
    made: list[Word] = []
    for word in words:
        if made and word.places[1] and word.places[1] == made[-1].places[1]:
            here = (*made[-1].places[0], *word.places[0])
            word = Word((_text(source, here), word.names[1]), (here, word.places[1]))
            made.pop()
        made.append(word)
    return made


def _fewer(words: list[Word]) -> list[Word]:
    """As many as are seen together with ease; those that an edit changes come first."""
    if len(words) <= UNASKED:
        return words
    order = sorted(range(len(words)), key=lambda n: (len(set(words[n].names)) == 1, n))
    left = [words[n].label for n in sorted(order[UNASKED:])]
    logger.info(
        "%d of %d words are shown; --words names others: %s",
        UNASKED,
        len(words),
        ", ".join(left),
    )
    return [words[n] for n in sorted(order[:UNASKED])]


def columns(words: Sequence[Word], length: int) -> Tensor:
    """[B, W + 1, T] in {0, 1}: the tokens of each word, and last all that belong to no word."""
    made = torch.zeros(len(words[0].places), len(words) + 1, length)
    for w, word in enumerate(words):
        for b, places in enumerate(word.places):
            made[b, w, list(places)] = 1
    made[:, -1] = 1 - made[:, :-1].amax(1)
    return made


def _spans(tokens: Tokens) -> list[tuple[int, int]]:
    """Spans of the words that are no fillers; of all words where there are no others."""
    every = [m.span() for m in re.finditer(r"\w+(?:['’\-]\w+)*", tokens.text)]
    said = [s for s in every if tokens.text[slice(*s)].lower() not in FILLERS]
    return said or every


def _at(tokens: Tokens, span: tuple[int, int]) -> tuple[str, tuple[int, ...]]:
    return reference(tokens.text, span), tokens.at(*span)


def _find(tokens: Tokens, word: str) -> tuple[int, ...]:
    try:
        spans = find_word(tokens.text, word)
    except WordNotInPrompt:
        return ()
    return tuple(sorted({p for span in spans for p in tokens.at(*span)}))


def _named(word: str, source: Tokens, target: Tokens | None) -> Word:
    """A word by its name in either prompt; where one lacks it, what stands opposite."""
    here = _find(source, word)
    if target is None:
        return Word((word,), (here,))
    there = _find(target, word)
    if here and there:
        return Word((word, word), (here, there))
    if here:
        return Word(*_both(word, here, source, target))
    matrix = align(source, target).matrix
    here = _content(matrix[:, list(there)].sum(1), source)
    return Word((_text(source, here), word), (here, there))


def _both(
    name: str, places: tuple[int, ...], source: Tokens, target: Tokens
) -> tuple[tuple[str | None, str | None], tuple[tuple[int, ...], tuple[int, ...]]]:
    """A word of the source with what stands opposite it in the target."""
    there = _content(align(source, target).matrix[list(places)].sum(0), target)
    return (name, _text(target, there)), (places, there)


def _content(weights: Tensor, tokens: Tokens) -> tuple[int, ...]:
    """Positions with any weight, but for the start and end tokens and the padding."""
    return tuple(int(i) for i in weights.nonzero() if 0 < int(i) <= len(tokens.ids))


def _text(tokens: Tokens, places: Iterable[int]) -> str | None:
    """The words at some positions, each run of neighbours as one piece."""
    runs: list[list[int]] = []
    for p in sorted(places):
        if runs and p == runs[-1][-1] + 1:
            runs[-1].append(p)
        else:
            runs.append([p])
    spans = [(tokens.spans[r[0] - 1][0], tokens.spans[r[-1] - 1][1]) for r in runs]
    names = [reference(tokens.text, s) if s[1] > s[0] else "" for s in spans]
    return " + ".join(names) or None
