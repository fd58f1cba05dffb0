"""Takes a word out of a sentence, together with what would be left dangling."""

from __future__ import annotations

import re

from captioning.grammar import (
    COMPOUND_PREPOSITIONS,
    CONJUNCTIONS,
    DETERMINERS,
    OBJECT_PARTICIPLES,
    PREPOSITIONS,
    VERBS,
    article_like,
    ends_a_noun,
    is_adjective,
    is_participle,
)

_PAIRS = {"[": "]", "(": ")", "{": "}", '"': '"', "“": "”", "‘": "’"}
_WORD = re.compile(r"[\w’'\-]+")


def cut(text: str, start: int, end: int) -> str:
    """The text without a span, made whole again.

    Gone with the span are its article where no noun is left for it, common adjectives between
    the two, and an "and", comma, preposition or "holding" that has nothing left to hold.

    Args:
        text: One line with single spaces.
        start: Where the span begins.
        end: Where it ends.

    Returns:
        The new text; what it says is a guess where English is ambiguous.
    """
    removed = text[start:end]
    left, right = text[:start].rstrip(), re.sub(r"^['’]s\b", "", text[end:]).lstrip()
    while left and right and _PAIRS.get(left[-1]) == right[0]:
        left, right = left[:-1].rstrip(), right[1:].lstrip()

    adjective = is_adjective(_last_word(removed))
    listed = re.match(r"(?:,|(?:and|or)\b)\s*", right)
    following = _first_word(right[listed.end() :]) if listed else ""
    if adjective and listed and following and not ends_a_noun(following):
        right = right[listed.end() :]  # "red, shiny" and "red and blue": the other one stays
    elif _noun_ends_here(right):
        if not is_participle(_last_word(removed)) and not _opens(_first_word(removed)):
            left = _without_determiner(left)
        left, right = _without_connectors(left, right)
    elif adjective:
        joined = re.search(r"([\w\-]+),?\s+(?:and|or)$|([\w\-]+),$", left)
        if joined and is_adjective(joined[1] or joined[2]):
            left = left[: joined.end(1) if joined[1] else joined.end(2)]
    if not _WORD.search(left):
        right = _without_loose_start(right)
    return _join(_agreeing(left, right), right, capital=text[:1].isupper())


def _noun_ends_here(right: str) -> bool:
    word = _first_word(right)
    return not right or not right[0].isalnum() or ends_a_noun(word)


def _opens(word: str) -> bool:
    """Whether a phrase that begins so brings its own article or preposition."""
    return word.lower() in DETERMINERS | PREPOSITIONS | CONJUNCTIONS | VERBS


def _without_determiner(left: str) -> str:
    """Without the article, and adjectives after it, at the end: their noun is gone."""
    words = left.split()
    n = len(words)
    while n > 0 and is_adjective(words[n - 1].rstrip(",")):
        n -= 1
    if n > 0 and words[n - 1].lower() in DETERMINERS:
        return " ".join(words[: n - 1])
    return left


def _without_connectors(left: str, right: str) -> tuple[str, str]:
    """Drops what joined the removed noun to its neighbours, on the side where it dangles."""
    first = True
    while left:
        word = _last_word(left).lower()
        if left.endswith(","):
            if not right or right[0] in ",.;!?" or _first_word(right).lower() in CONJUNCTIONS:
                left = left[:-1].rstrip()
            break
        if word in CONJUNCTIONS:
            left = left[: -len(word)].rstrip(" ,")
            break
        length = _connector(left, first)
        if not length:
            break
        if _first_word(right).lower() in CONJUNCTIONS:  # "holding a cup and a plate"
            right = right[len(_first_word(right)) :].lstrip()
            break
        left = left[:-length].rstrip()
        first = False
    return left, right


def _connector(left: str, first: bool) -> int:
    """The length of a preposition, "is", or (first only) "holding" at the end of a text."""
    lowered = left.lower()
    for phrase in sorted(COMPOUND_PREPOSITIONS, key=len, reverse=True):
        if lowered == phrase or lowered.endswith(f" {phrase}"):
            return len(phrase)
    word = _last_word(lowered)
    if word in PREPOSITIONS or word in VERBS or (first and word in OBJECT_PARTICIPLES):
        return len(word)
    return 0


def _without_loose_start(right: str) -> str:
    """Without the commas, conjunctions, prepositions and verbs that a text cannot begin with."""
    while right:
        if not right[0].isalnum() and right[0] not in _PAIRS:
            right = right[1:].lstrip()
            continue
        word = _first_word(right)
        lowered = word.lower()
        loose = lowered in CONJUNCTIONS | PREPOSITIONS | VERBS
        rest = right[len(word) :].lstrip()
        if not loose and is_participle(lowered):
            loose = not rest or _first_word(rest).lower() in DETERMINERS | PREPOSITIONS
        if not loose:
            break
        right = rest
    return right


def _agreeing(left: str, right: str) -> str:
    """With an article at the end that suits what follows now."""
    match = re.search(r"(?<!\w)(an?)(\s*[\[(\"“‘]*)$", left, re.IGNORECASE)
    if not match or not _WORD.search(right):
        return left
    return left[: match.start(1)] + article_like(match[1], right) + match[2]


def _join(left: str, right: str, capital: bool) -> str:
    tight = not left or not right or right[0] in ",.;:!?)]}’'" or left[-1] in "([{“‘"
    text = " ".join((left + ("" if tight else " ") + right).split())
    return text[:1].upper() + text[1:] if capital else text


def _first_word(text: str) -> str:
    match = _WORD.match(text)
    return match[0] if match else ""


def _last_word(text: str) -> str:
    match = re.search(r"[\w’'\-]+$|&$", text)
    return match[0] if match else ""
