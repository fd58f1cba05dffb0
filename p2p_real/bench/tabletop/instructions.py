"""The edits of the benchmark as a person would ask for them, in every form of the grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...tabletop.scene import GROUND_PHRASES, Edit, Record
from .truths import TruthEdit

_COLOUR = (
    "make the {thing} {to}",
    "change the colour of the {thing} to {to}",
    "paint the {thing} {to}",
    "turn the {thing} {to}",
    "the {thing} should be {to}",
    "could you make it {to}, please?",
    "{colour} -> {to}",
    "change the {thing} to {to}",
    "I want the {thing} to be {to}",
    "Replace the {colour} {thing} with a {to} one.",
    "Change the color of the {thing} from {colour} to {to}.",
    "change the {thing}'s colour to {to}",
)
_SHAPE = (
    "turn the {thing} into a {to}",
    "replace the {thing} with a {to}",
    "change the {thing} to a {to}",
    "swap the {thing} for a {to}",
    "{thing} -> {to}",
    "make the {thing} a {to}",
    "I'd like a {to} instead of the {thing}",
    "change the shape of the {thing} to a {to}",
    "turn it into a {to}",
    "Make the {thing} look like a {to}!",
)
_MATERIAL = {  # plain to another, metal to plain, striped to plain, one to another
    "new": (
        "make the {thing} {to}",
        "more {to}",
        "make it {to}",
        "change the material of the {thing} to {to}",
        "give the {thing} a {to} look",
        "make the {thing} more {to}",
        "turn the {thing} {to}",
    ),
    "gone": (
        "remove the {was}",
        "change the material of the {thing} to plain",
        "make the {thing} not {was}",
        "the {thing} should be no longer {was}",
    ),
    "unstriped": (  # "plain" is the contrary of a pattern; plain metal is metal
        "make the {thing} plain",
        "remove the stripes from the {thing}",
        "change the material of the {thing} to plain",
    ),
    "other": (
        "{was} -> {to}",
        "change the material of the {thing} to {to}",
        "replace {was} with {to}",
        "change the {thing}'s texture from {was} to {to}",
    ),
}
_GROUND = (
    "put it {place}",
    "change the background to {ground}",
    "{place}",
    "put the {thing} {place}",
    "make it {place}",
    "change the ground to {ground}",
    "replace the {old} with {ground}",
)
_LIGHT = (
    "at {to}",
    "make it {to}",
    "change the light to {to}",
    "change the time of day to {to}",
    "set it at {to}",
    "I want it to be {to}",
    "turn the {was} into {to}",
)
_ADD_RIGHT = (
    "add {what}",
    "add {what} next to the {beside}",
    "put {what} to the right of the {beside}",
    "add {what} {place}",
    "put {what} beside the {beside}",
)
_ADD_LEFT = (
    "add {what} to the left of the {beside}",
    "put {what} left of the {beside}",
    "place {what} on the left of the {beside}",
)
_REMOVE = (
    "remove the {what}",
    "delete the {what}",
    "erase the {what} from the picture",
    "take the {what} away",
    "get rid of the {what}",
    "without the {what}",
    "Please take away the {what}",
    "no {what}",
)
_JOINED = ("{} and {}", "{}, {}", "{}; {}", "{}, then {}", "{} and then {}")


def instruction_of(truth: TruthEdit) -> str:
    """What somebody would say for an edit; the form goes by its number, so that all are used.

    Args:
        truth: An edit of the benchmark.

    Example:
        >>> from p2p_real.bench.tabletop.truths import truth_set
        >>> [instruction_of(edit) for edit in truth_set("remove", per_kind=2)]
        ['remove the blue mug', 'delete the purple striped cube']
    """
    edit = truth.edit
    if edit["op"] != "several":
        return _say(truth.record, edit, truth.number)
    parts = edit["edits"]
    things = [part for part in parts if part["op"] != "shape"]
    shapes = [part for part in parts if part["op"] == "shape"]
    said = [
        _say(truth.record, part, truth.number + i, first=not i)
        for i, part in enumerate([*things, *shapes])
    ]
    return _JOINED[truth.number % len(_JOINED)].format(*said)


def _say(record: Record, edit: Edit, number: int, first: bool = True) -> str:
    op = edit["op"]
    if op in ("add", "remove"):
        return _come_or_go(record, edit, number)
    ground, light = GROUND_PHRASES[record["ground"]], record["light"]
    if op == "light":
        return _pick(_LIGHT, number).format(to=edit["to"], was=light)
    if op == "ground":
        place = GROUND_PHRASES[edit["to"]]
        return _pick(_GROUND, number).format(
            place=place,
            ground=place.removeprefix("on "),
            old=ground.split()[-1],
            thing=record["objects"][0]["shape"],
        )
    thing = record["objects"][edit["object"]]
    words = {"thing": thing["shape"], "to": edit["to"], "was": thing["material"]}
    if op == "color":
        return _pick(_COLOUR, number, first).format(colour=thing["color"], **words)
    if op == "shape":
        return _pick(_SHAPE, number, first).format(**words)
    gone = "unstriped" if thing["material"] == "striped" else "gone"
    way = "new" if thing["material"] == "plain" else gone if edit["to"] == "plain" else "other"
    return _pick(_MATERIAL[way], number, first).format(**words)


def _come_or_go(record: Record, edit: Edit, number: int) -> str:
    if edit["op"] == "add":
        new = edit["object"]
        other = record["objects"][0]
        forms = _ADD_LEFT if new["x"] < other["x"] else _ADD_RIGHT
        return _pick(forms, number).format(
            what=f"a {_name(new)}",
            beside=other["shape"],
            place=GROUND_PHRASES[record["ground"]],
        )
    things = record["objects"]
    gone = things[edit["object"]]
    twins = [thing for thing in things if _name(thing) == _name(gone)]
    name = _name(gone)
    if len(twins) > 1:
        left = min(thing["x"] for thing in twins)
        name = f"{'first' if gone['x'] == left else 'second'} {name}"
    elif sum(thing["shape"] == gone["shape"] for thing in things) == 1 and number % 2:
        name = gone["shape"]
    return _pick(_REMOVE, number).format(what=name)


def _name(thing: dict[str, Any]) -> str:
    material = [] if thing["material"] == "plain" else [thing["material"]]
    return " ".join([thing["color"], *material, thing["shape"]])


def _pick(forms: Sequence[str], number: int, first: bool = True) -> str:
    if not first:  # "it" is the thing named before, which may be another one
        forms = [form for form in forms if " it" not in form and form != "more {to}"]
    return forms[number % len(forms)]
