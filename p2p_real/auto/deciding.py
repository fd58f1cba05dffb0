"""What an instruction's meaning is edited with: the first try, and the second by what failed.

All settings stand in one table, `TABLE`, with their reasons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from captioning.change import find_things
from captioning.instruction import NotUnderstood
from captioning.matching import has_word, reference, words_of
from edit.kinds import changes_light

from .checking import Checked

if TYPE_CHECKING:
    from captioning.understanding import Meaning
    from inversion import Inversion

FITTED = ("null-text", "proximal-null-text")  # fitted at one guidance: another spoils them
THING, NEW = "thing", "new"
OR = " | "  # between the parts of a mask


@dataclass(frozen=True)
class Choice:
    """How one try acts.

    Args:
        why: the reason, for reports.
        edit: edit methods, as :class:`p2p_real.steering.EditControl` takes them.
        cross_replace, self_replace: windows of p2p; None leaves its own.
        local: blend by the meaning's words, where it has some.
        mask: where the picture may change: ``thing``, where the photo shows the words that
            change; ``new``, where the two prompts differ; ``thing|new``, either; empty: no mask.
        grow: of that mask, a fraction of the shorter side.
        guidance: times the inversion's own.
        direction: add the meaning's edit direction to the new prompt, where it has one.
        weight: how many times as far from 1 the weights of words are.
    """

    why: str
    edit: tuple[str, ...] = ("p2p",)
    cross_replace: float | None = None
    self_replace: float | None = None
    local: bool = False
    mask: str = ""
    grow: float = 0.04
    guidance: float = 1.0
    direction: bool = False
    weight: float = 1.0

    def asked(self, meaning: Meaning) -> dict[str, Any]:
        """The arguments of :meth:`p2p_real.Editor.edit` but for target and guidance; ``direction``
        is still a pair of words."""
        asked: dict[str, Any] = {"edit": self.edit}
        if self.direction and meaning.direction is not None:
            asked["direction"] = meaning.direction
        if "p2p" in self.edit:
            weights = meaning.weights.items()
            asked["weight"] = {word: 1 + self.weight * (x - 1) for word, x in weights}
            asked["cross_replace"], asked["self_replace"] = self.cross_replace, self.self_replace
        asked["local"] = (self.local and (blend(meaning) or _come_or_gone(meaning))) or ()
        if spec := _mask_spec(self.mask, meaning):
            asked["mask_from"], asked["grow"] = spec, self.grow
        return asked

    def scale(self, inversion: Inversion) -> float:
        """The guidance_scale on an inversion."""
        fitted = inversion.method in FITTED
        return inversion.guidance_scale * (1.0 if fitted else self.guidance)


@dataclass(frozen=True)
class Choices:
    """The tries for one kind of edit.

    Args:
        first: what is tried first.
        undone: then, where the change is not there.
        spilled: then, where the change is there and the rest is not kept.
    """

    first: Choice
    undone: Choice
    spilled: Choice


_OWN_WINDOWS = "p2p's own windows keep the layout; the blend keeps what the words do not name"
_FREE = "short windows let what is there go"

_THING = Choices(
    Choice(_OWN_WINDOWS, local=True),
    Choice(
        "short windows and more guidance give the change room, inside a mask of the thing",
        cross_replace=0.3,
        self_replace=0.1,
        mask="thing|new",
        guidance=1.5,
    ),
    Choice("the change is held inside a mask of the thing", mask=THING),
)
_COUNT = Choices(
    Choice(
        f"{_FREE}: the photo's own maps would put it back; a mask keeps the rest",
        cross_replace=0.3,
        self_replace=0.1,
        mask=NEW,
    ),
    Choice(
        "hardly any of the photo's maps, with more guidance, inside a larger mask",
        cross_replace=0.1,
        self_replace=0.05,
        mask="thing|new",
        guidance=1.6,
    ),
    Choice("longer windows keep more of the photo", cross_replace=0.6, self_replace=0.3, mask=NEW),
)
_GONE = dataclasses.replace(
    _COUNT,
    first=Choice(
        "the words that stay keep their maps, a blend what the removed word does not name",
        local=True,
    ),
)
_LIGHT_TOO = Choice(
    "the new prompt alone, with more guidance: the photo's maps hold its light",
    edit=("plain",),
    guidance=1.7,
)
_SCENE = Choices(
    Choice("p2p's own windows; short ones, where the light changes", local=True),
    _LIGHT_TOO,
    Choice("longer windows keep more of the photo", cross_replace=0.5, self_replace=0.3),
)

_STYLED = Choice(
    "short windows, more guidance, and the edit direction to the style beside its words",
    cross_replace=0.3,
    self_replace=0.1,
    guidance=1.5,
    direction=True,
)
_SEVERAL = Choices(
    Choice(
        "short windows leave room for several changes, of which a blend would keep some away",
        cross_replace=0.3,
        self_replace=0.1,
    ),
    Choice(
        "shorter windows and more guidance give all of them room",
        cross_replace=0.15,
        self_replace=0.05,
        guidance=1.5,
    ),
    Choice(_OWN_WINDOWS, local=True),
)
_AMOUNT = Choices(
    Choice(_OWN_WINDOWS, local=True),
    Choice(
        "weights act while the words' maps are held: to the end, twice as strong, shapes free",
        cross_replace=1.0,
        self_replace=0.1,
        local=True,
        weight=2.0,
    ),
    Choice("the change is held inside a mask of the thing", mask=THING),
)

TABLE: dict[str, Choices] = {
    "colour": _THING,
    "attribute": _THING,
    "object": _THING,
    "remove": _GONE,
    "add": _COUNT,
    "scene": _SCENE,
    "amount": _AMOUNT,
    "style": dataclasses.replace(_SCENE, undone=_STYLED),
    "several": _SEVERAL,
    "several, whole": dataclasses.replace(_SEVERAL, undone=_LIGHT_TOO),
}


def choices_of(meaning: Meaning) -> Choices:
    """The tries for what is to be done."""
    whole = meaning.kind == "several" and is_whole(meaning)
    return TABLE["several, whole" if whole else meaning.kind]


def first(meaning: Meaning) -> Choice:
    """What is tried first."""
    return choices_of(meaning).first


def second(meaning: Meaning, checked: Checked) -> tuple[Choice, str]:
    """What is tried after a first try that failed, and why.

    Args:
        meaning: what was to be done.
        checked: what failed.
    """
    choices = choices_of(meaning)
    if checked.undone:
        return choices.undone, f"the change is not there ({_failed(checked)})"
    return choices.spilled, f"the rest is not kept ({_failed(checked)})"


def _failed(checked: Checked) -> str:
    return "; ".join(getattr(checked, name).note for name in checked.failed)


def is_whole(meaning: Meaning) -> bool:
    """Whether the whole picture changes: its style, light, weather or season."""
    pairs = [(old, new, "swap") for old, new in meaning.changed]
    ops = {one.op for one in meaning.instructions}
    return "style" in ops or (not meaning.local and changes_light(pairs))


def blend(meaning: Meaning) -> dict[str, str] | None:
    """Words for a local blend, source to target; None where there are none to look for.

    A place that takes another's place is told by the last words of both.
    """
    if isinstance(meaning.local, Mapping):
        return dict(meaning.local) or None
    if meaning.kind != "scene" or is_whole(meaning):
        return None
    pairs = [(_last(old), _last(new)) for old, new in meaning.changed]
    found = {old: new for old, new in pairs if old and new and old != new}
    return found if len(found) == len(pairs) else None


def _come_or_gone(meaning: Meaning) -> tuple[str, ...]:
    """What only one of the prompts names, which is where a local blend looks for it."""
    return () if isinstance(meaning.local, Mapping) else tuple(meaning.local or ())


def place_spec(meaning: Meaning) -> str:
    """Where a change belongs, as a mask in words; empty for one of the whole picture."""
    if is_whole(meaning):
        return ""
    adds = any(one.op == "add" for one in meaning.instructions)
    return _mask_spec(f"{THING}|{NEW}" if adds else THING, meaning)


def _mask_spec(mask: str, meaning: Meaning) -> str:
    """A kind of mask as :mod:`p2p_real.masks.grammar` writes it."""
    parts: list[str] = []
    for kind in mask.split("|") if mask else ():
        if kind == THING:
            parts += [f'words:"{word}"' for word in things(meaning)]
        elif meaning.source.split() != meaning.target.split():
            parts.append("diffedit")
    return OR.join(parts)


def things(meaning: Meaning) -> list[str]:
    """Words of the source prompt that name what changes; none, where one change has none."""
    local = blend(meaning)
    if local is not None:
        named = list(local)
    elif meaning.kind == "several":
        targets = [one.target for one in meaning.instructions if one.target]
        named = [noun for target in targets for noun in _nouns(meaning.source, target)]
        named += [_last(old) for old, _ in meaning.changed if old]
        if not all(one.target or one.op in ("add", "scene") for one in meaning.instructions):
            return []
    else:
        named = [old for old, _ in meaning.changed if old] or list(meaning.weights)
    return [word for word in dict.fromkeys(named) if has_word(meaning.source, word)]


def _nouns(text: str, target: str) -> list[str]:
    """The nouns of what an instruction names ("it", "ball on the table"), where the text has it."""
    try:
        found = find_things(text, target)
    except NotUnderstood:
        return []
    return [reference(text, (one.head.start, one.head.end)) for one in found]


def _last(phrase: str) -> str:
    words = words_of(phrase)
    return words[-1] if words else ""


def plain_table() -> dict[str, Any]:
    """The table as plain data, which decides what a finished photo was made with."""
    return {kind: dataclasses.asdict(choices) for kind, choices in TABLE.items()}
