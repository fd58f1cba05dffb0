"""What is added to a caption, and the scene it tells of: place, light, weather, season, style."""

from __future__ import annotations

import re
from dataclasses import replace

from captioning import rewrite
from captioning.adjectives import attribute
from captioning.change import Change, find_things, insert, with_article
from captioning.grammar import DETERMINERS, MEDIA
from captioning.instruction import NotUnderstood
from captioning.kinds_of_words import (
    AGAINST,
    IN,
    MASS,
    ON,
    OUTSIDE,
    PRONOUNS,
    SCENES,
    SEASON_ADJECTIVES,
    SEASONS,
    STYLE_NAMES,
    WEATHER_ADJECTIVES,
    WEATHERS,
    WORN,
    describes,
    group_of,
    is_plural,
    singular,
)
from captioning.matching import reference, squash
from captioning.phrases import (
    PLACES,
    NounPhrase,
    noun_phrases,
    place_phrases,
    split_target,
    subject,
    whole_end,
)

_BESIDE = re.compile(
    r"^(next to|beside|near|by|close to|along|(?:on |to )?(?:the )?(?:left|right)(?: side)? of)"
    r" (.+)$"
)
_PREPOSITION = re.compile(
    r"^(on top of|in front of|onto|into|on|inside|in|underneath|under|beneath|below|behind|above"
    r"|over|against|between|among|around|at|to) (.+)$"
)


# what is added


def add(text: str, value: str, place: str = "", aspect: str = "") -> Change:
    """Adds a thing: beside another one, with one, on its ground, or after the first thing.

    Raises:
        NotUnderstood: the thing it is to be next to is not named.
    """
    bare = re.sub(r"^(?:an?|the|some|more) ", "", value)
    if bare in WEATHERS and (not place or aspect):
        return scene(text, bare)
    words = with_article(value)
    beside, into = _BESIDE.match(place), _PREPOSITION.match(place)
    if beside:
        thing = find_things(text, beside[2])[0]
        if "left of" in place.replace("left side", "left"):
            target, where = insert(text, thing.start, f"{words} and")
            where = where.removesuffix(" and")
        else:
            target, where = insert(text, whole_end(text, thing), f"and {words}")
        return _added(text, target, words, f"stands beside {thing.head.text!r} in the new prompt")
    if into:
        return _add_into(text, words, into[1], into[2])
    first = subject(text)
    aspect = "with" if {words.split()[-1], singular(words.split()[-1])} & WORN else aspect
    joiner = "with" if aspect == "with" else "and"
    if first is None:
        return _added(text, rewrite.add(text, words).target, words, "stands at the end")
    end = whole_end(text, first if aspect == "with" else _last_of(text, first))
    target, _ = insert(text, end, f"{joiner} {words}")
    return _added(text, target, words, f"stands with {first.head.text!r} in the new prompt")


def _add_into(text: str, words: str, preposition: str, place: str) -> Change:
    core = split_target(place)[0]
    ground = [p for p in place_phrases(text) if core and _same(p, core)]
    if place in PRONOUNS:
        first = subject(text)
        found = [first] if first else []
    else:
        try:
            found = find_things(text, place)[:1]
        except NotUnderstood:
            found = []
    if ground and preposition in ("on", "onto", "in", "into", "at", "inside", "on top of"):
        before = [p for p in noun_phrases(text) if p.end <= ground[0].begin]
        target, _ = insert(
            text, before[-1].end if before else 0, f"and {words}" if before else words
        )
        return _added(text, target, words, f"stands {ground[0].before} what the caption says")
    if found:
        noun = found[0].head.text
        on = preposition in ("on", "onto", "to", "on top of")
        it = "them" if is_plural(noun) else "it"
        tail = "" if on else f" {preposition} {it}"
        target, _ = insert(text, whole_end(text, found[0]), f"with {words}{tail}")
        return _added(text, target, words, f"is said with {noun!r}")
    first = subject(text)
    at = whole_end(text, _last_of(text, first)) if first else len(text)
    said = f"and {words} {preposition} {place}" if first else f"{words} {preposition} {place}"
    target, _ = insert(text, at, said)
    note = f"is said with its place, of which the caption says nothing: {preposition} {place}"
    return _added(text, target, words, note)


def _same(phrase: NounPhrase, core: list[str]) -> bool:
    said = {singular(word.text) for word in phrase.words}
    return singular(core[-1]) == singular(phrase.head.text) and {singular(w) for w in core} <= said


def _last_of(text: str, first: NounPhrase) -> NounPhrase:
    """The last thing of those that "and" and commas join to the first."""
    last = first
    for phrase in noun_phrases(text):
        between = text[whole_end(text, last) : phrase.start]
        if phrase.start > last.end and re.fullmatch(r",?\s*(?:and\s+)?|,\s*", between):
            last = phrase
    return last


def _added(text: str, target: str, words: str, note: str) -> Change:
    spans = rewrite.find_word(target, words)
    # the one that came is the first place where the two texts part, or the next one after it
    parted = next(
        (i for i, (a, b) in enumerate(zip(text, target, strict=False)) if a != b), len(text)
    )
    span = next((s for s in spans if s[1] > parted), spans[-1])
    probe = noun_phrases(words)
    noun = probe[0].head.text if probe else words.split()[-1]
    places = rewrite.find_word(target, noun)
    head = next((s for s in places if span[0] <= s[0] and s[1] <= span[1]), places[-1])
    local = (reference(target, head),)
    name = reference(target, span)
    return Change(target, "add", (("", name),), local, notes=(f"{words!r} {note}",))


# scenes


def scene(text: str, value: str, aspect: str = "", thing: str = "") -> Change:
    """Sets light, weather, season or place; what the caption says of the same goes.

    Args:
        text: the caption.
        value: "night", "rainy", or a phrase such as "on a wooden table".
        aspect: "background" for a place.
        thing: what is put there, where that is said.

    Raises:
        NotUnderstood: the caption says so already.
    """
    if thing and aspect:
        try:
            find_things(text, thing)
        except NotUnderstood:
            return add(text, thing, value)
    phrase = SCENES.get(value, value)
    probe = noun_phrases(f"x {phrase}")[-1]
    if aspect == "background" and value not in SCENES and not probe.about:
        return _place(text, value)
    about = probe.about or "light"
    old = [
        p
        for p in noun_phrases(text)
        if p.before and p.about and (p.about == about or p.head.text == probe.head.text)
    ]
    if old and not phrase.startswith("with "):
        return _exchange(text, old[-1], phrase)
    adjective = _scene_adjective(text, value)
    if adjective:
        return adjective
    done = _append(text, phrase, f"{phrase!r} is added: the caption says no {about}")
    pair = ("daylight", phrase.split(" ", 1)[-1]) if about == "light" else None
    return replace(done, direction=pair if pair and pair[0] != pair[1] else None)


def _scene_adjective(text: str, value: str) -> Change | None:
    """ "a rainy street" made snowy: the adjective of a thing is exchanged."""
    to_adjective = {phrase: word for word, phrase in reversed(WEATHER_ADJECTIVES.items())}
    new = value if group_of(value) == "weather" else to_adjective.get(SCENES.get(value, ""), "")
    seasons = [*SEASON_ADJECTIVES, *SEASONS]
    kinds = dict.fromkeys(WEATHER_ADJECTIVES, "weather") | dict.fromkeys(seasons, "season")
    for phrase in noun_phrases(text):
        for word in phrase.words[:-1]:
            kind = kinds.get(word.text.lower())
            put = (
                new if kind == "weather" else value if kind == "season" and value in SEASONS else ""
            )
            if put and put != word.text.lower():
                done = rewrite.swap(text, {reference(text, (word.start, word.end)): put})
                note = f"{put!r} takes the place of {word.text!r}"
                return Change(
                    done.target, "scene", done.changed, None, (word.text, put), notes=(note,)
                )
    return None


def _exchange(text: str, old: NounPhrase, phrase: str) -> Change:
    end = whole_end(text, old)
    was = text[old.begin : end]
    if was.lower() == phrase.lower():
        raise NotUnderstood(f"the caption {text!r} says {phrase!r} already")
    target = text[: old.begin] + phrase + text[end:]
    span = (old.begin, old.begin + len(phrase))
    changed = ((reference(text, (old.begin, end)), reference(target, span)),)
    note = f"{phrase!r} takes the place of {was!r}"
    pair = (was.split(" ", 1)[-1], phrase.split(" ", 1)[-1])
    return Change(target, "scene", changed, None, pair, notes=(note,))


def _append(text: str, phrase: str, note: str, before_light: bool = False) -> Change:
    later = [p for p in noun_phrases(text) if p.about and p.before] if before_light else []
    if later:
        target, name = insert(text, later[0].begin, phrase)
        return Change(target, "scene", (("", name),), None, None, notes=(note,))
    done = rewrite.add(text, phrase)
    return Change(done.target, "scene", done.changed, None, None, notes=(note,))


def _place(text: str, value: str) -> Change:
    """Another background: "on the sand" in the place of "on a wooden table"."""
    m = re.match(r"^(on top of|in front of|on|in|at|against|inside|under|onto|into) (.+)$", value)
    preposition = {"onto": "on", "into": "in"}.get(m[1], m[1]) if m else ""
    words = m[2] if m else value
    said = [p for p in noun_phrases(text) if p.head.text.lower() in ("background", "backdrop")]
    if all(describes(w) or w in ("and", "background") for w in words.split()) and (
        words.split()[-1] == "background" or words not in MASS
    ):
        if said:
            changed = attribute(text, said[0].head.text, words.removesuffix(" background"))
            return Change(
                changed.text, "scene", changed.changed, None, changed.direction, notes=changed.notes
            )
        words = with_article(words if words.endswith("background") else f"{words} background")
    old = place_phrases(text)
    first = subject(text)
    old = [p for p in old if first is None or p.start > first.start]
    same = [p for p in old if p.before == preposition] if preposition else []
    chosen = (same or old)[-1] if old else None
    if words in OUTSIDE:
        preposition, words = words, ""
    elif not preposition:
        noun = noun_phrases(words)[-1].head.text.lower() if noun_phrases(words) else ""
        if words.split()[0].lower() not in DETERMINERS and noun in MASS:
            words = f"the {words}"
        words = with_article(words)
        kept = chosen.before if chosen and chosen.before in PLACES else "in"
        preposition = (
            "on"
            if singular(noun) in ON
            else "in"
            if noun in IN or singular(noun) in IN
            else "against"
            if noun in AGAINST
            else kept
        )
    phrase = f"{preposition} {words}".strip()
    if chosen:
        return _exchange(text, chosen, phrase)
    return _append(text, phrase, f"{phrase!r} is added: the caption names no place", True)


def style(text: str, value: str) -> Change:
    """Sets the style of the whole picture."""
    phrase = STYLE_NAMES.get(value.lower(), value)
    if re.search(rf"\b(?:{'|'.join(MEDIA)}) (?:by|in) ", phrase):
        phrase = f"in the style of {with_article(phrase)}"
    last = phrase.split()[-1].lower()
    if last not in MEDIA | {"style", "art"} and not re.match(r"(?:in the|by) ", phrase):
        phrase = f"{phrase} style"
    done = rewrite.style(text, phrase)
    first = noun_phrases(text)
    medium = first[0].head.text if first and first[0].head.text.lower() in MEDIA else "photo"
    pair = (medium, squash(phrase)) if phrase.split()[-1].lower() in MEDIA else None
    note = f"the whole picture becomes {phrase!r}"
    return Change(done.target, "style", done.changed, None, pair, notes=(note,))
