"""Where a word or phrase stands in a prompt."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from captioning.grammar import PREPOSITIONS

Span = tuple[int, int]


class RewriteError(ValueError):
    """A change of words that makes no sense; the message is one line."""


class WordNotInPrompt(RewriteError):
    """A word that is not in the prompt; the message lists the words and names the nearest."""

    def __init__(self, word: str, prompt: str, reason: str = "") -> None:
        """Composes the line; `reason` replaces its beginning."""
        self.word = word
        self.prompt = prompt
        words = words_of(prompt)
        listed = ", ".join(f"{n} {text}" for n, text in enumerate(words, 1)) or "none"
        near = [] if reason else nearest(word, words)
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        start = reason or f"no word {word!r} in the prompt {squash(prompt)!r}"
        super().__init__(f"{start}{hint or '.'} Its words are: {listed}")


@dataclass(frozen=True)
class Edit:
    """One change of a text: the span that goes, what comes, and whether to report it."""

    start: int
    end: int
    text: str
    named: bool = False


def squash(text: str) -> str:
    """The text on one line, with single spaces and none at the ends."""
    return " ".join(text.split())


def words_of(prompt: str) -> list[str]:
    """The words of a prompt without punctuation; "t-shirt" and "cat's" are one word each."""
    return re.findall(r"\w+(?:['’\-]\w+)*", prompt)


def nearest(word: str, words: Iterable[str]) -> list[str]:
    """Up to two words that `word` may have been meant for."""
    by_lower = {w.lower(): w for w in words if w.lower() not in PREPOSITIONS}
    plain = split_reference(word)[0].lower()
    found = difflib.get_close_matches(plain, by_lower, n=2, cutoff=0.6)
    return [by_lower[w] for w in found]


def split_reference(word: str) -> tuple[str, int]:
    """`cat#2` is ("cat", 2), `cat` is ("cat", 0): every one.

    Raises:
        RewriteError: Nothing is left of the word, or its number is 0.
    """
    match = re.fullmatch(r"(.*\S)\s*#(\d+)", word.strip())
    text, number = (match[1], int(match[2])) if match else (word.strip(), 0)
    if not re.search(r"\w", text):
        raise RewriteError(f"{word!r} is not a word")
    if match and number < 1:
        raise RewriteError(f"{word!r} counts from 1: write {text}#1 for the first one")
    return squash(text), number


def find_word(prompt: str, word: str) -> tuple[Span, ...]:
    """Character spans of a word or phrase: of every one, or with `#n` of the n-th alone.

    Whole words match, whatever their case; a phrase matches over any space.

    Raises:
        WordNotInPrompt: It is not there, or not so often.
    """
    text, number = split_reference(word)
    spans = _spans(prompt, text)
    if not spans:
        raise WordNotInPrompt(word, prompt)
    if number > len(spans):
        times = f"{len(spans)} time{'s' if len(spans) > 1 else ''}"
        reason = f"no {word!r}: {text!r} stands only {times} in the prompt {squash(prompt)!r}"
        raise WordNotInPrompt(word, prompt, reason)
    return spans[number - 1 : number] if number else spans


def has_word(prompt: str, word: str) -> bool:
    """Whether `find_word` finds a word or phrase."""
    try:
        return bool(find_word(prompt, word))
    except RewriteError:
        return False


def reference(prompt: str, span: Span) -> str:
    """How to name the text of a span so that `find_word` finds that span alone."""
    text = prompt[span[0] : span[1]]
    if not re.search(r"\w", text):
        return text
    spans = _spans(prompt, text)
    if len(spans) < 2 or span not in spans:
        return text
    return f"{text}#{spans.index(span) + 1}"


def apply_edits(prompt: str, edits: Iterable[Edit]) -> tuple[str, list[tuple[Span, Span]]]:
    """Applies edits that do not overlap.

    Returns:
        The new text, and for each named edit, in the order of the text, its span in the old and
        in the new text.
    """
    parts: list[str] = []
    moved: list[tuple[Span, Span]] = []
    position = length = 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        kept = prompt[position : edit.start]
        parts += [kept, edit.text]
        length += len(kept)
        if edit.named:
            moved.append(((edit.start, edit.end), (length, length + len(edit.text))))
        length += len(edit.text)
        position = edit.end
    return "".join([*parts, prompt[position:]]), moved


def _spans(prompt: str, text: str) -> tuple[Span, ...]:
    """All places of a text, on word boundaries where it begins or ends with a letter."""
    body = r"\s+".join(re.escape(part) for part in text.split())
    before = r"(?<!\w)" if re.match(r"\w", text) else ""
    after = r"(?!\w)" if re.search(r"\w$", text) else ""
    pattern = f"{before}{body}{after}"
    return tuple(m.span() for m in re.finditer(pattern, prompt, re.IGNORECASE))
