"""Words and tokens: where a word stands in a prompt, by character spans.

Indices are positions in the text encoder's sequence: 0 is the start token, content token ``i`` is
at ``i + 1``, the end token follows, then padding.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass


class WordNotFound(LookupError, ValueError):
    """A word that a setting names is not in the prompt."""


class PromptTooLong(ValueError):
    """A prompt has more tokens than the text encoder reads."""


@dataclass(frozen=True)
class Tokens:
    """A prompt cut into the text encoder's tokens.

    Args:
        text: the prompt as given.
        ids: content token ids, without start, end and padding.
        spans: [start, end) of each content token in ``text``; several tokens of one character
            share a span.
        pieces: each content token decoded alone.
        length: sequence length of the text encoder (77).
    """

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    pieces: tuple[str, ...]
    length: int = 77

    @property
    def count(self) -> int:
        """Positions that are not padding: start, content, end."""
        return len(self.ids) + 2

    def check_length(self) -> None:
        """Refuse a prompt that the text encoder would cut.

        Raises:
            PromptTooLong: gives both counts and the first word that would be lost.
        """
        room = self.length - 2
        if len(self.ids) > room:
            start = self.spans[room][0]
            word = len(self.text[:start].split()) - (not self.text[start - 1 : start].isspace())
            cut = self.text.split()[max(0, word)]
            raise PromptTooLong(
                f"the prompt has {len(self.ids)} tokens, the model reads {room}: shorten it "
                f"(everything from {cut!r} on would be lost): {self.text[:60]!r}..."
            )

    def at(self, start: int, end: int) -> tuple[int, ...]:
        """Positions of the tokens that share a character with [start, end)."""
        return tuple(
            i + 1 for i, (a, b) in enumerate(self.spans) if a < end and b > start and b > a
        )

    def listing(self) -> str:
        """``1 a, 2 cat, 3 on`` - the numbered tokens for messages."""
        return (
            ", ".join(f"{i + 1} {self.text[a:b]}" for i, (a, b) in enumerate(self.spans)) or "none"
        )

    def find(self, word: str) -> tuple[int, ...]:
        """Positions of a word or phrase, at every place where it stands.

        Case does not matter; the match is of whole words. ``cat#2`` is the second "cat" only.

        Raises:
            WordNotFound: names the nearest words and lists the tokens.
        """
        return tuple(sorted({i for place in self.places(word) for i in place}))

    def places(self, word: str) -> list[tuple[int, ...]]:
        """The positions of each occurrence of a word or phrase (see :meth:`find`)."""
        spans = word_spans(self.text, word)
        places = [p for p in (self.at(a, b) for a, b in spans) if p]
        if not places:
            raise WordNotFound(self._missing(word))
        return places

    def _missing(self, word: str) -> str:
        name, nth = split_occurrence(word)
        here = word_spans(self.text, name)
        if nth and here:
            return f"{name!r} stands {len(here)} times in {self.text!r}: there is no {word!r}"
        words = re.findall(r"\w+", self.text)
        near = difflib.get_close_matches(name.lower(), [w.lower() for w in words], n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"no word {name!r} in {self.text!r}; its tokens: {self.listing()}{hint}"


def split_occurrence(word: str) -> tuple[str, int]:
    """``cat#2`` -> ("cat", 2); ``cat`` -> ("cat", 0 = every one)."""
    m = re.fullmatch(r"(.*\S)\s*#(\d+)", word.strip())
    return (m[1], int(m[2])) if m and int(m[2]) > 0 else (word.strip(), 0)


def word_spans(text: str, word: str) -> list[tuple[int, int]]:
    """Character spans of whole-word, case-blind matches of a word or phrase in ``text``."""
    name, nth = split_occurrence(word)
    if not name:
        return []
    parts = [re.escape(p) for p in name.split()]
    left = r"(?<!\w)" if re.match(r"\w", name) else ""
    right = r"(?!\w)" if re.search(r"\w$", name) else ""
    found = [m.span() for m in re.finditer(left + r"\s+".join(parts) + right, text, re.IGNORECASE)]
    if nth:
        return found[nth - 1 : nth]
    return found
