"""Sentences about a word: of our own forms, or of the user's files."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from captioning.grammar import DETERMINERS, article_for, is_adjective

#: What an adjective alone describes, in turn.
THINGS = ("box", "ball", "cup", "chair", "car", "house", "shirt", "flower", "door", "stone")


class DirectionError(ValueError):
    """A direction cannot be made, read or used; one line that says what to do."""


@lru_cache(maxsize=1)
def forms() -> tuple[str, ...]:
    """Sentences with a gap: ``{a}`` takes the word with its article, ``{the}`` with "the"."""
    text = (importlib.resources.files(__package__) / "forms.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase looks like several things, and so takes no article."""
    word = phrase.split()[-1].lower() if phrase.split() else ""
    return bool(re.search(r"[^su]s$", word)) and not word.endswith("is") and len(word) > 3


def fill(form: str, phrase: str) -> str:
    """A form about a phrase: "an owl", "owls", or as it is where it brings its own article."""
    phrase = " ".join(phrase.split())
    first, _, rest = phrase.partition(" ")
    if first.lower() in DETERMINERS and rest:
        bare, whole = rest, phrase
    else:
        bare, whole = phrase, phrase if is_plural(phrase) else f"{article_for(phrase)} {phrase}"
    return form.replace("{a}", whole).replace("{the}", f"the {bare}")


def about(word: str) -> list[str]:
    """Every form filled with a word or phrase; an adjective describes a few things in turn.

    Raises:
        DirectionError: no word.
    """
    if not re.search(r"\w", word):
        raise DirectionError(f"a direction goes from a word to a word: {word!r} is none")
    if len(word.split()) == 1 and is_adjective(word):
        return [fill(f, f"{word} {THINGS[i % len(THINGS)]}") for i, f in enumerate(forms())]
    return [fill(f, word) for f in forms()]


def from_file(path: str | Path) -> list[str]:
    """The sentences of a text file, one a line; numbering and empty lines are dropped.

    Raises:
        DirectionError: it cannot be read, or holds none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DirectionError(
            f"{path}: cannot be read ({reason}): give a text file with a sentence a line"
        ) from None
    found = [clean(line) for line in text.splitlines()]
    found = [line for line in found if re.search(r"\w", line)]
    if not found:
        raise DirectionError(f"{path}: holds no sentence: write one a line")
    return found


def clean(line: str) -> str:
    """A line without the number or dash of a list."""
    return " ".join(re.sub(r"^\s*(?:\d{1,4}[.):]\s+|[-*•]\s+)", "", line).split())


def hash_of(sentences: Sequence[str]) -> str:
    """SHA-256 of the sentences, one a line."""
    return hashlib.sha256("\n".join(sentences).encode("utf-8")).hexdigest()
