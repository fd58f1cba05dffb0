"""The noun phrases of a caption: their adjectives, and which one an instruction means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from captioning.grammar import (
    CONJUNCTIONS,
    DETERMINERS,
    MEDIA,
    PREPOSITIONS,
    VERBS,
    is_adjective,
    is_participle,
)
from captioning.kinds_of_words import (
    MEASURES,
    PRONOUNS,
    SHADES,
    describes,
    group_of,
    scene_class,
    singular,
)
from captioning.matching import Span

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_LOOSE = PRONOUNS | {"there", "here", "not", "next", "close", "front", "down", "up", "off"}
_PREPOSITION = re.compile(
    r"(?<!\w)(on top of|in front of|next to|close to|made of|out of|full of|on|in|at|with|of|by"
    r"|against|under|beneath|below|over|above|near|beside|behind|inside|during|through|across"
    r"|down|up|off|along|around|onto|into|to|from|between|without)\s+$",
    re.IGNORECASE,
)
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": -1}
PLACES = frozenset(
    ("on", "on top of", "in", "at", "against", "inside", "in front of", "under", "through",
     "across", "along", "down")
)  # fmt: skip
_DOING = ("", "posture", "mood")  # "a sleeping cat", but "a cat sleeping" is a cat


@dataclass(frozen=True)
class Word:
    """A word and where it stands."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class NounPhrase:
    """One noun phrase of a text: "a red and white ball".

    Attributes:
        determiner: its article or the like, or None.
        words: the others; the last one is the noun.
        before: the preposition in front of it, or "".
        begin: where that preposition begins, or the phrase.
    """

    determiner: Word | None
    words: tuple[Word, ...]
    before: str
    begin: int

    @property
    def head(self) -> Word:
        """The noun."""
        return self.words[-1]

    @property
    def start(self) -> int:
        """Where it begins, its determiner included."""
        return (self.determiner or self.words[0]).start

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.head.end

    @property
    def named(self) -> Span:
        """Where it stands, without its determiner."""
        return self.words[0].start, self.end

    @property
    def about(self) -> str:
        """What it says of the scene: "light", "weather", "season", or "" for a thing or place."""
        return scene_class([word.text for word in self.words], self.before)


def noun_phrases(text: str) -> list[NounPhrase]:
    """The noun phrases of a text, in order; a guess where English is ambiguous."""
    tokens = [Word(m[0], *m.span()) for m in _WORD.finditer(text)]
    found: list[NounPhrase] = []
    determiner: Word | None = None
    words: list[Word] = []

    def flush() -> None:
        nonlocal determiner
        while words and words[-1].text.lower() in CONJUNCTIONS:
            words.pop()
        if words:
            start = (determiner or words[0]).start
            match = _PREPOSITION.search(text[:start])
            before = match[1].lower() if match else ""
            begin = match.start(1) if match else start
            found.append(NounPhrase(determiner, tuple(words), before, begin))
        determiner = None
        words.clear()

    for i, token in enumerate(tokens):
        lowered = token.text.lower()
        gap = text[tokens[i - 1].end : token.start].strip() if i else ""
        following = tokens[i + 1].text.lower() if i + 1 < len(tokens) else ""
        described = bool(words) and describes(words[-1].text)
        if gap and not (gap == "," and described and describes(lowered) and following):
            flush()
        if lowered in DETERMINERS:
            flush()
            determiner = token
        elif lowered in CONJUNCTIONS:
            if described and describes(following):
                words.append(token)
            else:
                flush()
        elif lowered in PREPOSITIONS | VERBS | _LOOSE or (lowered == "top" and following == "of"):
            flush()
        elif is_participle(lowered) and group_of(lowered) in _DOING and not is_adjective(lowered):
            opens = all(describes(word.text) for word in words) and (determiner or words)
            noun = following and following not in DETERMINERS | PREPOSITIONS | CONJUNCTIONS | VERBS
            after = text[token.end : tokens[i + 1].start].strip() if following else ""
            if opens and noun and not after:
                words.append(token)
            else:
                flush()
        else:
            words.append(token)
    flush()
    return found


def subject(text: str) -> NounPhrase | None:
    """The first thing that a caption names; "a photo of a cat" is about the cat."""
    phrases = [phrase for phrase in noun_phrases(text) if not phrase.about]
    for i, phrase in enumerate(phrases[:-1]):
        of = phrases[i + 1].before == "of"
        if not (phrase.head.text.lower() in MEDIA | MEASURES and of):
            return phrase
    return phrases[-1] if phrases else None


def whole_end(text: str, phrase: NounPhrase) -> int:
    """Where a phrase ends together with what "of" ties to it: "a cup of tea"."""
    end = phrase.end
    for other in noun_phrases(text):
        if other.before in ("of", "full of", "made of") and other.begin == end + 1:
            end = other.end
    return end


def split_target(target: str) -> tuple[list[str], int, bool]:
    """The words of a thing as an instruction says it.

    Returns:
        Its words without determiners and what a preposition adds ("ball on the table" is "ball"),
        its number ("second ball" is 2, "last" -1, none 0), and whether every one is meant.
    """
    words = _WORD.findall(target)
    words = [w for w in words[:-1] if not w.lower().endswith(("'s", "’s"))] + words[-1:]
    number, every = 0, False
    while words and (words[0].lower() in DETERMINERS | {"all", "both", "of"} or number):
        lowered = words[0].lower()
        if lowered not in DETERMINERS | {"all", "both", "of"}:
            break
        every |= lowered in ("all", "both", "every", "each", "these", "those")
        words.pop(0)
    if len(words) > 1 and words[0].lower() in _ORDINALS:
        number = _ORDINALS[words.pop(0).lower()]
    if words and words[-1].lower() == "one" and len(words) > 1:
        words.pop()
    for i, word in enumerate(words):
        if i and word.lower() in PREPOSITIONS - {"of"} | {"that", "which", "next"}:
            words = words[:i]
            break
    return words, number, every


def matches(phrase: NounPhrase, words: Sequence[str]) -> bool:
    """Whether a phrase of the caption is the thing of these words: its noun, no other synonym."""
    of = next((i for i, word in enumerate(words) if word.lower() == "of"), len(words))
    core = [word for word in words[:of] if word.lower() not in CONJUNCTIONS]
    if not core or singular(core[-1]) != singular(phrase.head.text):
        return False
    said = {singular(word.text) for word in phrase.words[:-1]}
    return all(singular(word) in said for word in core[:-1])


def adjectives_match(phrase: NounPhrase, words: Sequence[str]) -> bool:
    """Whether words name a thing by its adjectives alone: "the red one"."""
    said = {singular(word.text) for word in phrase.words[:-1]}
    return bool(words) and all(describes(w) and singular(w) in said for w in words)


def place_phrases(text: str) -> list[NounPhrase]:
    """The phrases that say where: "on a wooden table"."""
    return [p for p in noun_phrases(text) if p.before in PLACES and not p.about]


@dataclass(frozen=True)
class Unit:
    """One adjective before a noun, with its shade and its equals: "dark red and white".

    Attributes:
        text: its words.
        group: of :func:`group_of`, or "".
        joiner: what stands between it and the one before.
        old: where it stood, or None if it is new.
    """

    text: str
    group: str
    joiner: str = " "
    old: Span | None = None


def units(text: str, phrase: NounPhrase) -> list[Unit]:
    """The adjectives of a phrase; colours that belong together are one."""
    found: list[Unit] = []
    joiner = " "
    words = phrase.words[:-1]
    for i, word in enumerate(words):
        lowered = word.text.lower()
        if lowered in CONJUNCTIONS:
            joiner = f" {word.text} "
            continue
        gap = text[words[i - 1].end : word.start].strip() if i else ""
        joiner = f"{gap} " if gap else joiner
        group = group_of(lowered)
        last = found[-1] if found else None
        shade = last is not None and last.group == "shade"
        joined = last is not None and last.group == group == "colour" and joiner != " "
        if last is not None and last.old is not None and (shade or joined):
            span = (last.old[0], word.end)
            found[-1] = Unit(text[span[0] : span[1]], group, last.joiner, span)
        else:
            following = group_of(words[i + 1].text) if i + 1 < len(words) else ""
            shades = following == "colour" and lowered in SHADES and group != "colour"
            if shades or (lowered == "very" and following):
                group = "shade"
            found.append(Unit(word.text, group, joiner, (word.start, word.end)))
        joiner = " "
    return found
