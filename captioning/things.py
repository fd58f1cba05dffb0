"""Puts another thing in the place of one of a caption, or takes one out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from captioning import rewrite
from captioning.adjectives import attribute, give, note_of, rebuild, value_units, with_adjectives
from captioning.change import (
    Change,
    find_things,
    together,
)
from captioning.grammar import (
    MEDIA,
    article_for,
)
from captioning.instruction import NotUnderstood
from captioning.kinds_of_words import (
    AGAINST,
    IN,
    MASS,
    MATERIALS_AS_NOUNS,
    MEASURES,
    NAMES_TOO,
    ON,
    PRONOUNS,
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
    split_target,
    units,
    whole_end,
)


def swap(text: str, target: str, value: str, aspect: str = "") -> Change:
    """Puts another thing in the place of one.

    With the aspect "words" the adjectives that the target names go too ("replace the red ball with
    a cube"); else they only say which thing is meant. Adjectives that it does not name stay.

    Raises:
        NotUnderstood: no such thing, or it is that already.
    """
    try:
        found = find_things(text, target)
    except NotUnderstood:
        change = _swap_adjective(text, target, value)
        if change is None:
            raise
        return change
    named_so = value in MASS | NAMES_TOO and not describes(target)
    if not named_so and all(describes(w) or w == "and" for w in value.split()):
        return attribute(text, target, value)  # "orange -> blue" of an orange
    named = {word.lower() for word in split_target(target)[0]} if aspect == "words" else set()
    done: list[Change] = []
    for phrase in reversed(found):
        now = done[-1].text if done else text
        if (
            "of" in split_target(target)[0] or target in PRONOUNS
        ):  # "cup of tea" goes with what it is of
            now = now[: phrase.end] + now[whole_end(now, phrase) :]
        done.append(_swap(now, phrase, value, named))
    return together(text, done)


def _swap(text: str, phrase: NounPhrase, value: str, named: set[str]) -> Change:
    phrases = noun_phrases(value)
    first = phrases[0] if phrases else None
    noun, tail = (first.head.text, value[first.end :]) if first else (value, "")
    counted = first.determiner.text if first and first.determiner else ""
    kept = [u for u in units(text, phrase) if u.text.lower() not in named]
    while kept and not kept[-1].group and not describes(kept[-1].text.split()[-1]):
        kept.pop()  # "teddy" goes with the bear
    if phrase.before in PLACES:  # a wooden table gives way to grass, not to wooden grass
        kept = [u for u in kept if u.group not in ("material", "pattern")]
    came = [replace(u, old=None, joiner=" ") for u in units(value, first)] if first else []
    if is_plural(phrase.head.text) and not is_plural(noun) and not counted and noun not in MASS:
        noun = _plural(noun)
    new = with_adjectives(kept, came)
    of = tail.startswith(" of ")
    determiner = counted or _determiner(phrase, noun, of, " ".join([*(u.text for u in new), noun]))
    if {phrase.before, _preposition(noun)} == {"on", "in"}:  # on a beach, in a forest
        text = text[: phrase.begin] + _preposition(noun) + text[phrase.begin + 2 :]
    target, changed, head = rebuild(text, phrase, new, noun + tail, determiner)
    if not changed:
        raise NotUnderstood(f"the caption {text!r} says {value!r} already")
    head = (head[0], head[0] + len(noun))
    local = {reference(text, (phrase.head.start, phrase.head.end)): reference(target, head)}
    name = text[slice(*phrase.named)]
    now = " ".join([*(u.text for u in new), noun])
    stay = [u.text for u in kept if u in new]
    notes = [f"{value!r} takes the place of {name!r}"]
    if stay:
        notes.append(
            f"{', '.join(map(repr, stay))} stays: name it with the thing to replace it too"
        )
    colour = all(unit.group == "colour" for unit in came)
    same = "colour" if colour and came else "attribute"
    kind = same if singular(noun) == singular(phrase.head.text) else "object"
    return Change(target, kind, changed, local, (name, now), notes=tuple(notes))


def _preposition(noun: str) -> str:
    word = singular(noun)
    return "on" if word in ON else "in" if word in IN else "against" if word in AGAINST else ""


def _determiner(phrase: NounPhrase, noun: str, of: bool, body: str) -> str | None:
    """What stands before a new noun, or None for what stood before the old one."""
    own = phrase.determiner.text.lower() if phrase.determiner else ""
    mass = phrase.head.text.lower() in MASS
    if own in ("a", "an") and noun.lower() in MASS and not of:
        return "the" if phrase.before in PLACES else ""
    if own in ("a", "an") and is_plural(noun):
        return ""
    if own in ("the", "") and mass and noun.lower() not in MASS and not is_plural(noun):
        return article_for(body)
    return None


def _plural(noun: str) -> str:
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"


def _swap_adjective(text: str, target: str, value: str) -> Change | None:
    """ "red -> blue": the word itself, at every thing that has it."""
    gone = squash(target).lower()
    done, changes = text, []
    for phrase in reversed(noun_phrases(text)):
        old = units(done, phrase)
        at = next((i for i, u in enumerate(old) if u.text.lower() == gone), None)
        if at is None:
            continue
        came = [u for u in value_units(value) if u.text.lower() != "plain"]
        rest = [*old[:at], *old[at + 1 :]]
        if len(came) == 1:
            came = [replace(came[0], joiner=old[at].joiner, old=old[at].old)]
            new = [*old[:at], *came, *old[at + 1 :]]
        else:
            new = with_adjectives(rest, came)
        target_text, changed, head = rebuild(done, phrase, new)
        if not changed:
            raise NotUnderstood(f"{target!r} is {value!r} already: there is nothing to do")
        local = {
            reference(done, (phrase.head.start, phrase.head.end)): reference(target_text, head)
        }
        noun = phrase.head.text
        kind = "colour" if group_of(value) == group_of(gone) == "colour" else "attribute"
        change = Change(
            target_text,
            kind,
            changed,
            local,
            (f"{gone} {noun}", f"{value} {noun}"),
            notes=tuple(note_of(a, b, noun) for a, b in changed),
        )
        changes.append(change)
        done = target_text
    return together(text, changes) if changes else None


def remove(text: str, target: str) -> Change:
    """Takes a thing, or an adjective, out of a caption.

    Raises:
        NotUnderstood: it is not there.
        RewriteError: nothing would be left.
    """
    try:
        found = find_things(text, target)
    except NotUnderstood:
        word = MATERIALS_AS_NOUNS.get(target.lower(), target.lower())
        having = [p for p in noun_phrases(text) if word in _adjectives(text, p)]
        if not having:
            raise
        gone: list[Change] = []
        for phrase in reversed(having):
            gone.append(give(gone[-1].text if gone else text, phrase, f"not {word}", ""))
        return together(text, gone)
    if (titled := _without_subject(text, found)) is not None:
        return titled
    done_text = text
    changed: list[tuple[str, str]] = []
    for phrase in reversed(found):
        span = (_start(text, phrase), whole_end(text, phrase))
        done = rewrite.remove(done_text, reference(done_text, span))
        done_text, changed = done.target, [*done.changed, *changed]
    names = [text[slice(*p.named)] for p in found]
    note = f"{', '.join(map(repr, names))} goes from the caption"
    left = noun_phrases(done_text)
    if (
        left and _start(text, found[0]) == noun_phrases(text)[0].named[0]
    ):  # no "walking down a street" that nobody walks
        start = done_text[left[0].start :]
        done_text = start[0].upper() + start[1:] if text[0].isupper() else start
    if not left:
        raise NotUnderstood(f"without {target!r} nothing is left of the caption {text!r}")
    local = tuple(reference(text, (p.head.start, p.head.end)) for p in found)
    return Change(done_text, "remove", tuple(changed), local, notes=(note,))


def _start(text: str, phrase: NounPhrase) -> int:
    """Where what is removed begins: "a group of people" goes with the people."""
    for other in noun_phrases(text):
        if phrase.before == "of" and other.end + 1 == phrase.begin:
            return other.named[0] if other.head.text.lower() in MEASURES else phrase.named[0]
    return phrase.named[0]


def _adjectives(text: str, phrase: NounPhrase) -> list[str]:
    return [unit.text.lower() for unit in units(text, phrase)]


def _without_subject(text: str, found: Sequence[NounPhrase]) -> Change | None:
    """ "a photo of a car parked on a street" without the car is "a photo of a street"."""
    phrases = noun_phrases(text)
    at = phrases.index(found[0])
    if len(found) != 1 or not at or found[0].before != "of" or at + 1 == len(phrases):
        return None
    following = next((p for p in phrases[at + 1 :] if p.before != "with"), None)
    if following is None:
        return None
    gone = found[0]
    between = text[gone.end : following.start]
    if phrases[at - 1].head.text.lower() not in MEDIA or not following.before:
        return None
    if following.before == "of" or re.search(r"\band\b|,", between):
        return None
    target = text[: gone.start] + text[following.start :]
    words = text[slice(*gone.named)]
    name = reference(text, gone.named)
    head = (reference(text, (gone.head.start, gone.head.end)),)
    note = f"{words!r} goes from the caption"
    return Change(target, "remove", ((name, ""),), head, notes=(note,))
