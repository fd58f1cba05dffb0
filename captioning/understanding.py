"""What instructions mean for a caption: the new prompt, and where and by what it should act."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from captioning import placing
from captioning.adjectives import attribute
from captioning.change import Change, Local, find_things
from captioning.grammar import CONJUNCTIONS, DETERMINERS, PREPOSITIONS
from captioning.instruction import Instruction, NotUnderstood
from captioning.kinds_of_words import OPPOSITES, SCENES, describes, is_plural
from captioning.matching import RewriteError, has_word, squash, words_of
from captioning.phrases import NounPhrase
from captioning.things import remove, swap

__all__ = ["Meaning", "NotUnderstood", "understand"]


@dataclass(frozen=True)
class Meaning:
    """What instructions mean for one caption.

    Attributes:
        instructions: as given.
        source: the caption on one line; longer by an adjective where there is to be less of one
            that it does not say.
        target: the new prompt; equal to the source where only `weights` act.
        changed: (source words, target words), as `Rewrite.changed`.
        kind: "colour", "attribute", "object", "remove", "add", "scene", "amount", "style", or
            "several" for more than one instruction; "amount" where weights act, what else "more"
            comes to is its own kind.
        local: nouns to keep the edit near: {source: target} where things change, ("mug",) for one
            that comes or goes and stands in one prompt alone, None where the whole picture
            changes.
        weights: words of the target to attend to more (above 1) or less.
        direction: (from words, to words) if an edit direction can say it, or None.
        said: words that a caption of the result should contain.
        gone: words that it should no longer contain.
        notes: each decision in a plain sentence.
    """

    instructions: tuple[Instruction, ...]
    source: str
    target: str
    changed: tuple[tuple[str, str], ...]
    kind: str
    local: Mapping[str, str] | tuple[str, ...] | None
    weights: Mapping[str, float] = field(default_factory=dict)
    direction: tuple[str, str] | None = None
    said: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def understand(caption: str, instructions: Sequence[Instruction]) -> Meaning:
    """Turns a caption and instructions, one after the other, into prompts and how to act.

    Args:
        caption: what the photo shows.
        instructions: of :func:`captioning.instructions.parse_instruction`.

    Raises:
        NotUnderstood: the caption is empty or does not name a thing, or says it already.
    """
    text = squash(caption)
    if not re.search(r"\w", text):
        raise NotUnderstood("the caption is empty: describe the photo (--caption, --prompt)")
    if not instructions:
        raise NotUnderstood("no instruction was given: say for example 'make the ball blue'")
    source, notes = _with_what_lessens(text, instructions)
    now = source
    changes: list[Change] = []
    for instruction in _in_order(instructions):
        try:
            change = _STEPS[instruction.op](now, instruction)
        except NotUnderstood:
            raise
        except RewriteError as error:
            raise NotUnderstood(f"{instruction.text!r}: {error}") from error
        changes.append(change)
        now = change.text
    weights = {word: x for change in changes for word, x in change.weights.items()}
    weights = {word: x for word, x in weights.items() if has_word(now, word)}
    if now == source and not weights:
        raise NotUnderstood(f"all together changes nothing of the caption {source!r}")
    changed = tuple(
        (a, b)
        for change in changes
        for a, b in change.changed
        if (not a or has_word(source, a)) and (not b or has_word(now, b))
    )
    said, gone = _words(source, now, changes)
    one = changes[0] if len(changes) == 1 else None
    return Meaning(
        instructions=tuple(instructions),
        source=source,
        target=now,
        changed=changed,
        kind=one.kind if one else "several",
        local=one.local if one else _local(source, now, changes),
        weights=weights,
        direction=one.direction if one and now != source else None,
        said=said,
        gone=gone,
        notes=(*notes, *(note for change in changes for note in change.notes)),
    )


def _in_order(said: Sequence[Instruction]) -> list[Instruction]:
    """Removals last where a thing comes as well: it takes its place beside what goes."""
    comes = {one.value.split()[-1] for one in said if one.op == "add"}
    late = [one for one in said if one.op == "remove" and one.target.split()[-1] not in comes]
    late = late if comes else []
    return [one for one in said if one not in late] + late


def _attribute(text: str, said: Instruction) -> Change:
    return attribute(text, said.target, said.value, said.aspect)


def _swap(text: str, said: Instruction) -> Change:
    return swap(text, said.target, said.value, said.aspect)


def _remove(text: str, said: Instruction) -> Change:
    return remove(text, said.target)


def _add(text: str, said: Instruction) -> Change:
    return placing.add(text, said.value, said.place, said.aspect)


def _scene(text: str, said: Instruction) -> Change:
    return placing.scene(text, said.value, said.aspect, said.target)


def _style(text: str, said: Instruction) -> Change:
    return placing.style(text, said.value)


def _amount(text: str, said: Instruction) -> Change:
    """More or less of a word: another weight where the caption says it, else the word itself."""
    word, weight = said.value, 1 + said.amount
    if has_word(text, word):
        local: Local = None
        things = [p for p in _nouns(text, said.target) if word in text[slice(*p.named)].split()]
        if said.target and not things and describes(word):
            return attribute(text, said.target, word)
        if things:
            local = {things[0].head.text: things[0].head.text}
        note = f"{word!r} is attended to with the weight {weight:g}"
        return Change(text, "amount", (), local, None, {word: weight}, (note,))
    if said.amount < 0:  # what is less of a thing without a name in the caption
        opposite = OPPOSITES.get(word, "")
        if not said.target and opposite in SCENES:
            return placing.scene(text, opposite)
        raise NotUnderstood(
            f"the caption {text!r} does not say {word!r}, so there is nothing to make less of: "
            "give a caption that says it (--caption, --prompt)"
        )
    if not said.target and word in SCENES:
        bright = {"bright": "brighter", "dark": "darker"}.get(word, word)
        return placing.scene(text, bright)
    if is_plural(word) and not describes(word):
        return placing.add(text, word, aspect="with")
    change = attribute(text, said.target or "it", word)
    note = f"the caption does not say {word!r}, so that it is said now instead of weighed"
    return replace(change, notes=(note, *change.notes))


_STEPS: dict[str, Callable[[str, Instruction], Change]] = {
    "attribute": _attribute,
    "swap": _swap,
    "remove": _remove,
    "add": _add,
    "scene": _scene,
    "style": _style,
    "amount": _amount,
}


def _with_what_lessens(text: str, said: Sequence[Instruction]) -> tuple[str, list[str]]:
    """The caption with the adjectives that there is to be less of: without them no weight acts."""
    notes = []
    for one in said:
        if one.op != "amount" or one.amount >= 0 or not describes(one.value):
            continue
        if has_word(text, one.value) or (not one.target and OPPOSITES.get(one.value) in SCENES):
            continue
        text = attribute(text, one.target or "it", one.value).text
        notes.append(f"the caption does not say {one.value!r}: it is added to it, to weigh it less")
    return text, notes


def _nouns(text: str, target: str) -> list[NounPhrase]:
    try:
        return find_things(text, target or "it")
    except NotUnderstood:
        return []


def _local(source: str, target: str, changes: Sequence[Change]) -> Mapping[str, str] | None:
    """Where several changes act: near all their nouns, or None if one of them acts elsewhere."""
    found: dict[str, str] = {}
    for change in changes:
        if not isinstance(change.local, Mapping):
            return None
        for old, new in change.local.items():
            first = next((a for a, b in found.items() if b == old), old)
            found[first] = new
    plain = re.compile(r"#\d+$")
    fitting = {}
    for old, new in found.items():
        old = old if has_word(source, old) else plain.sub("", old)
        new = new if has_word(target, new) else plain.sub("", new)
        if not (has_word(source, old) and has_word(target, new)):
            return None
        fitting[old] = new
    return fitting or None


def _words(
    source: str, target: str, changes: Sequence[Change]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that came and those that went, without the small ones."""
    small = DETERMINERS | CONJUNCTIONS | PREPOSITIONS | {"it", "them"}
    old = Counter(w.lower() for w in words_of(source) if w.lower() not in small)
    new = Counter(w.lower() for w in words_of(target) if w.lower() not in small)
    said = list((new - old).keys())
    gone = [word for word in old if word not in new]
    for change in changes:
        for word, weight in change.weights.items():
            (said if weight > 0 else gone).append(word)
    return tuple(dict.fromkeys(said)), tuple(dict.fromkeys(gone))
