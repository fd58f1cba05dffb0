"""A model's caption as a person would type it."""

from __future__ import annotations

import re

from captioning.grammar import article_like
from captioning.matching import squash

_LOOSE_END = re.compile(r"(?:\s+(?:an?|the|of|on|in|and|with|at|to|by|is))+$", re.IGNORECASE)


def tidy(caption: str) -> str:
    """Tidies a caption; letters keep their case.

    Special tokens, double spaces, a space before a comma, the full stop, words and phrases said
    over and over, a loose "on the" where the model ran out of tokens, and BLIP's non-word
    "arafed" go.
    """
    text = re.sub(r"\[(?:DEC|ENC|CLS|SEP|PAD|UNK|MASK)\]|</?s>|<pad>", " ", caption)
    text = re.sub(r"\bara(?:fed|ffed|ffe|f)\b", " ", text, flags=re.IGNORECASE)
    before, text = "", squash(text)
    while text != before:  # what is said twice may hide what is said three times
        before, text = text, _pass(text)
    return text


def _pass(text: str) -> str:
    text = re.sub(r"\s+([,.;:!?])", r"\1", text).strip(" .,;")
    text = re.sub(r"\b(\w+)(?:[ ,]+\1\b){2,}", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(an?|the|of|on|in|and|with|is)(?: \1\b)+", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(\w+(?: \w+){1,6})(?:,? \1\b)+", _once, text, flags=re.IGNORECASE)
    text = _LOOSE_END.sub("", text).strip(" ,;")
    return re.sub(r"\b(an?)(?= \w)", lambda m: _agree(m, text), text, flags=re.IGNORECASE)


def _once(match: re.Match[str]) -> str:
    """A repeated phrase once, but "a cup and a cup and a hat" as it is: that may be so."""
    twice = len(match[0]) <= 2 * len(match[1]) + 2
    return match[0] if twice and re.search(r"\band\b", match[1]) else match[1]


def _agree(match: re.Match[str], text: str) -> str:
    return article_like(match[1], text[match.end() :])
