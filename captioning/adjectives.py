"""Gives the things of a caption other adjectives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from captioning.change import (
    Change,
    find_things,
    together,
)
from captioning.grammar import (
    ARTICLES,
    OBJECT_PARTICIPLES,
    PREPOSITIONS,
    article_like,
    is_participle,
)
from captioning.instruction import NotUnderstood
from captioning.kinds_of_words import (
    ASPECTS,
    GROUP_OF,
    ORDER,
    describes,
    group_of,
    rank,
)
from captioning.matching import Span, nearest, reference
from captioning.phrases import (
    NounPhrase,
    Unit,
    noun_phrases,
    units,
)


def value_units(value: str) -> list[Unit]:
    """The adjectives of a value, new ones all: "red and shiny" is two, "black and white" one."""
    probe = f"a {value} thing"
    phrases = noun_phrases(probe)
    if len(phrases) != 1 or phrases[0].start != 0 or phrases[0].end != len(probe):
        return [Unit(value, group_of(value.split()[-1]))]
    return [replace(u, joiner=" ", old=None) for u in units(probe, phrases[0])]


def with_adjectives(
    old: Sequence[Unit], value: Sequence[Unit], aspect: str = "", unknown: int = len(ORDER)
) -> list[Unit]:
    """The adjectives of a thing after new ones came: those of the same group go.

    Args:
        old: what it has.
        value: what is new.
        aspect: what of the thing changes, if that is said.
        unknown: where words stand of which nothing is known; by default next to the noun.
    """
    kept = list(old)
    for unit in value:
        groups = {unit.group, *ASPECTS.get(aspect, ())} - {"", "shade"}
        at = [i for i, u in enumerate(kept) if u.group in groups and u.old is not None]
        if unit.text.lower() in ("plain", "solid") and at:
            kept = [u for i, u in enumerate(kept) if i not in at]
        elif at:
            ousted = kept[at[0]]
            kept[at[0]] = replace(unit, joiner=ousted.joiner, old=ousted.old)
            kept = [u for i, u in enumerate(kept) if i not in at[1:]]
        elif unit.text.lower() not in [u.text.lower() for u in kept]:
            last = unit.text.split()[-1]
            place, mine = len(kept), rank(last) if describes(last) else unknown
            while place and rank(kept[place - 1].text.split()[-1]) > mine:
                place -= 1
            kept.insert(place, unit)
    return kept


def rebuild(
    text: str,
    phrase: NounPhrase,
    new: Sequence[Unit],
    head: str = "",
    determiner: str | None = None,
) -> tuple[str, tuple[tuple[str, str], ...], Span]:
    """Puts a noun phrase together anew.

    Args:
        text: the caption.
        phrase: one of its noun phrases.
        new: the adjectives that it has then.
        head: the noun that it has then; "" for its own.
        determiner: what stands before; None for its own, in which a and an follow.

    Returns:
        The new caption, what changed, and the span of the noun in it.
    """
    noun = head or phrase.head.text
    own = phrase.determiner.text if phrase.determiner else ""
    body = ""
    places: list[tuple[Span | None, Span]] = []
    for i, unit in enumerate(new):
        body += unit.joiner if i else ""
        places.append((unit.old, (len(body), len(body) + len(unit.text))))
        body += unit.text
    body += " " if body else ""
    places.append(((phrase.head.start, phrase.head.end), (len(body), len(body) + len(noun))))
    body += noun
    det = own if determiner is None else determiner
    if det.lower() in ("a", "an"):
        det = article_like(own if own.lower() in ARTICLES else det, body)
    lead = f"{det} " if det else ""
    if text[phrase.start].isupper() and phrase.start == 0:  # a sentence begins here
        first = phrase.words[0].text
        if not own and not first.isupper() and not body.startswith(first):
            body = body.replace(first, first[0].lower() + first[1:], 1)
        lead, body = (
            (lead[:1].upper() + lead[1:], body) if lead else ("", body[0].upper() + body[1:])
        )
    start = phrase.start + len(lead)
    target = text[: phrase.start] + lead + body + text[phrase.end :]
    changed = []
    for old, (a, b) in places:
        now = reference(target, (start + a, start + b))
        was = reference(text, old) if old else ""
        if old is None or text[slice(*old)].lower() != target[start + a : start + b].lower():
            changed.append((was, now))
    left = {unit.old for unit in new}
    gone = [u.old for u in units(text, phrase) if u.old and u.old not in left]
    changed += [(reference(text, span), "") for span in gone]
    a, b = places[-1][1]
    return target, tuple(changed), (start + a, start + b)


def attribute(text: str, target: str, value: str, aspect: str = "") -> Change:
    """Gives a thing an adjective, in the place of one that says the same of it.

    Raises:
        NotUnderstood: no such thing, or it is so already.
    """
    done: list[Change] = []
    for phrase in reversed(find_things(text, target)):
        done.append(give(done[-1].text if done else text, phrase, value, aspect))
    return together(text, done)


def give(text: str, phrase: NounPhrase, value: str, aspect: str) -> Change:
    old, noun = units(text, phrase), phrase.head.text
    name = text[slice(*phrase.named)]
    words = value.split()
    first = words[0].lower()
    behind = (
        first in PREPOSITIONS
        or first in OBJECT_PARTICIPLES
        or (is_participle(first) and len(words) > 1 and not group_of(words[-1]))
    )
    if behind:
        rest = text[phrase.end :]
        if rest.startswith(f" {first} "):  # wearing a scarf and a red dress
            rest = f" and{rest[len(first) + 1 :]}"
        target = f"{text[: phrase.end]} {value}{rest}"
        span = (phrase.end + 1, phrase.end + 1 + len(value))
        changed: tuple[tuple[str, str], ...] = (("", reference(target, span)),)
        note = f"{value!r} is said behind {name!r}"
        head = (phrase.head.start, phrase.head.end)
        local = {reference(text, head): reference(target, head)}
        return Change(target, "attribute", changed, local, (name, f"{name} {value}"), notes=(note,))
    if words[0] == "not":
        gone = " ".join(words[1:]).lower()
        new = [u for u in old if u.text.lower() != gone]
        if len(new) == len(old):
            raise NotUnderstood(f"the caption {text!r} does not say {gone!r} of {name!r}")
    elif said := _said_behind(text, phrase, value):
        return said
    else:
        new = with_adjectives(old, value_units(value), aspect, ORDER.index("age"))
    target, changed, head = rebuild(text, phrase, new)
    if not changed:
        raise NotUnderstood(f"the caption {text!r} says {value!r} of {name!r} already")
    groups = {u.group for u in value_units(value)}
    kind = "colour" if groups == {"colour"} or aspect in ("colour", "color") else "attribute"
    local = {reference(text, (phrase.head.start, phrase.head.end)): reference(target, head)}
    moved = target[phrase.start : head[1]].split(" ", 1)
    after = moved[-1] if phrase.determiner else target[phrase.start : head[1]]
    notes = [note_of(a, b, noun) for a, b in changed]
    for word in words:
        known = describes(word) or word == "and"
        if not known and word.isalpha() and (near := nearest(word, GROUP_OF)):
            notes.append(f"{word!r} is taken as it stands; if {near[0]!r} was meant, say so")
    return Change(target, kind, changed, local, (name, after), notes=tuple(notes))


def _said_behind(text: str, phrase: NounPhrase, value: str) -> Change | None:
    """ "a cat that is black": the adjective is exchanged where it stands."""
    verb = r"\s+(?:(?:(?:that|which|who)\s+)?(?:is|are|looks?)\s+(?:very\s+)?)?"
    m = re.match(rf"{verb}([\w\-]+)", text[phrase.end :])
    group = group_of(value.split()[-1])
    if m is None or not group or group_of(m[1]) != group:
        return None
    span = (phrase.end + m.start(1), phrase.end + m.end(1))
    if m[1].lower() == value.lower():
        raise NotUnderstood(f"the caption {text!r} says {value!r} of {phrase.head.text!r} already")
    target = text[: span[0]] + value + text[span[1] :]
    changed = ((reference(text, span), reference(target, (span[0], span[0] + len(value)))),)
    head = reference(text, (phrase.head.start, phrase.head.end))
    kind = "colour" if group == "colour" else "attribute"
    noun = phrase.head.text
    pair = (f"{m[1]} {noun}", f"{value} {noun}")
    return Change(target, kind, changed, {head: head}, pair, notes=(note_of(*changed[0], noun),))


def note_of(old: str, new: str, noun: str) -> str:
    if old and new:
        return f"{new!r} takes the place of {old!r} at {noun!r}"
    return f"{new!r} is added to {noun!r}" if new else f"{old!r} goes from {noun!r}"
