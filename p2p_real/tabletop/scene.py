"""Scene records, their captions and edits of records.

A record is plain JSON data that fixes every pixel of a picture, so that an edited record renders
the exact true edited picture.
"""

import copy
import random
from collections.abc import Collection, Sequence
from typing import Any

SHAPES = ("ball", "cube", "cylinder", "cone", "donut", "mug")
COLORS = ("red", "yellow", "green", "blue", "purple", "pink", "white", "black")
MATERIALS = ("plain", "metal", "striped")
GROUND_PHRASES = {
    "wood": "on a wooden table",
    "sand": "on the sand",
    "grass": "on the grass",
    "snow": "on the snow",
    "tiles": "on a tiled floor",
    "cloth": "on a checkered cloth",
}
GROUNDS = tuple(GROUND_PHRASES)
LIGHTS = ("noon", "sunset", "night")
EDITS = ("color", "shape", "material", "ground", "light", "add", "remove", "several")

Record = dict[str, Any]
Edit = dict[str, Any]

_OBJECT_VALUES = {"shape": SHAPES, "color": COLORS, "material": MATERIALS}
_SCENE_VALUES = {"ground": GROUNDS, "light": LIGHTS}
_HALF = (0.5, 0.25, 0.25)  # the first of three values in half of the scenes


def train_rng(chunk: int) -> random.Random:
    """Gives the random stream of one chunk of training scenes."""
    return random.Random(f"tabletop-train-{chunk}")


def held_out_rng(seed: int | str = 0) -> random.Random:
    """Gives a random stream for evaluation; no training scene comes from it.

    Args:
        seed: Of the stream; a name gives one more stream, such as `21-color`.
    """
    return random.Random(f"tabletop-held-out-{seed}")


def sample_object(
    rng: random.Random, x: float | None = None, size: float | None = None
) -> dict[str, Any]:
    """Draws an object.

    Args:
        rng: Where the draws come from.
        x: Place from left (negative) to right; drawn where not given.
        size: Size, about 1; drawn where not given.

    Returns:
        The object's part of a record.
    """
    return {
        "shape": rng.choice(SHAPES),
        "color": rng.choice(COLORS),
        "material": rng.choices(MATERIALS, weights=_HALF)[0],
        "x": round(rng.uniform(-1.3, 1.3) if x is None else x, 3),
        "z": round(rng.uniform(-0.5, 0.7), 3),
        "size": round(rng.uniform(0.95, 1.3) if size is None else size, 3),
        "turn": round(rng.uniform(-0.6, 0.6), 3),
    }


def sample_scene(rng: random.Random, two: float = 0.25) -> Record:
    """Draws a record.

    Args:
        rng: Where the draws come from.
        two: Share of scenes with two objects, one on the left and one on the right.

    Returns:
        A record: `objects`, `ground`, `light`, `offset` (where the ground's pattern starts),
        `yaw` (radians) and `height` of the camera.
    """
    if rng.random() < two:
        objects = [
            sample_object(rng, rng.uniform(-1.4, -0.95), rng.uniform(0.8, 1.0)),
            sample_object(rng, rng.uniform(0.95, 1.4), rng.uniform(0.8, 1.0)),
        ]
    else:
        objects = [sample_object(rng)]
    return {
        "objects": objects,
        "ground": rng.choice(GROUNDS),
        "light": rng.choices(LIGHTS, weights=_HALF)[0],
        "offset": [round(rng.uniform(0, 40), 3), round(rng.uniform(0, 40), 3)],
        "yaw": round(rng.uniform(-0.06, 0.06), 4),
        "height": round(rng.uniform(2.4, 3.0), 3),
    }


def check_record(record: Record) -> None:
    """Says what is wrong with a record that names something the world does not have.

    Raises:
        ValueError: A value outside the grammar; the message lists what is possible.
    """
    for name, values in _SCENE_VALUES.items():
        _check_value(name, record[name], values)
    for thing in record["objects"]:
        for name, values in _OBJECT_VALUES.items():
            _check_value(name, thing[name], values)


def noun_phrase(thing: dict[str, Any]) -> str:
    """Names an object: `a red metal ball`; a plain material is not said."""
    material = [] if thing["material"] == "plain" else [thing["material"]]
    return " ".join(["a", thing["color"], *material, thing["shape"]])


def caption(record: Record, omit: Collection[str] = ()) -> str:
    """Describes a record, its objects from left to right.

    Args:
        record: The scene.
        omit: Any of `ground` and `light`, to leave them unsaid.

    Returns:
        A sentence such as `a red metal ball and a blue cube on a wooden table at sunset`.

    Example:
        >>> scene = sample_scene(held_out_rng(0), two=0)
        >>> parse_caption(caption(scene))["ground"] == scene["ground"]
        True
    """
    things = sorted(record["objects"], key=lambda thing: thing["x"])
    words = [" and ".join(noun_phrase(thing) for thing in things) or "nothing"]
    if "ground" not in omit:
        words.append(GROUND_PHRASES[record["ground"]])
    if "light" not in omit:
        words.append(f"at {record['light']}")
    return " ".join(words)


def parse_caption(text: str) -> dict[str, Any]:
    """Reads a caption back.

    Args:
        text: A caption of this grammar.

    Returns:
        `objects` (from left to right: shape, color, material), `ground` and `light`; the last two
        are None where the caption leaves them out.

    Raises:
        ValueError: The text is not a caption of this world.
    """
    rest, light = _cut_end(text, {f" at {light}": light for light in LIGHTS})
    rest, ground = _cut_end(rest, {f" {phrase}": name for name, phrase in GROUND_PHRASES.items()})
    names = [] if rest == "nothing" else rest.split(" and ")
    return {
        "objects": [_parse_noun(name, text) for name in names],
        "ground": ground,
        "light": light,
    }


def apply_edit(record: Record, edit: Edit) -> Record:
    """Gives the edited record; the one that came in stays as it was.

    Args:
        record: The scene.
        edit: `{"op": "color" | "shape" | "material", "object": i, "to": value}`,
            `{"op": "ground" | "light", "to": value}`, `{"op": "add", "object": {...}}`,
            `{"op": "remove", "object": i}` or `{"op": "several", "edits": [edit, ...]}`, which
            are made one after the other.

    Returns:
        A new record.

    Raises:
        ValueError: An edit or a value that the world does not have.
    """
    op = edit["op"]
    _check_value("edit", op, EDITS)
    new = copy.deepcopy(record)
    if op == "several":
        for part in edit["edits"]:
            new = apply_edit(new, part)
        return new
    if op in _OBJECT_VALUES:
        new["objects"][edit["object"]][op] = edit["to"]
    elif op in _SCENE_VALUES:
        new[op] = edit["to"]
    elif op == "add":
        new["objects"].append(copy.deepcopy(edit["object"]))
    else:
        del new["objects"][edit["object"]]
    check_record(new)
    return new


def sample_edit(record: Record, rng: random.Random, op: str | None = None) -> Edit:
    """Draws an edit that changes the record.

    Args:
        record: The scene to be edited.
        rng: Where the draws come from.
        op: One of `EDITS`; drawn among the first five where not given.

    Returns:
        An edit for `apply_edit`; `several` is two different ones of the first five.

    Raises:
        ValueError: An unknown edit, or an object to be added where two stand already.
    """
    op = op or rng.choice(EDITS[:5])
    _check_value("edit", op, EDITS)
    things = record["objects"]
    if op in _OBJECT_VALUES:
        index = rng.randrange(len(things))
        others = [value for value in _OBJECT_VALUES[op] if value != things[index][op]]
        return {"op": op, "object": index, "to": rng.choice(others)}
    if op in _SCENE_VALUES:
        return {"op": op, "to": rng.choice([v for v in _SCENE_VALUES[op] if v != record[op]])}
    if op == "remove":
        return {"op": op, "object": rng.randrange(len(things))}
    if op == "several":
        return {
            "op": op,
            "edits": [sample_edit(record, rng, part) for part in rng.sample(EDITS[:5], 2)],
        }
    if len(things) > 1:
        raise ValueError(f"an object can be added to a scene of one, this one has {len(things)}")
    side = -1.35 if things and things[0]["x"] > 0 else 1.35
    return {"op": op, "object": sample_object(rng, side, 0.85)}


def sample_change(rng: random.Random, op: str) -> tuple[Record, Edit]:
    """Draws a scene and an edit of it, both of kinds that training has seen.

    Scenes have one object, but two before `remove` and after `add`: an added object stands where
    the second one of a drawn scene stood.

    Args:
        rng: Where the draws come from.
        op: One of `EDITS`.

    Returns:
        A record and an edit for `apply_edit`.

    Raises:
        ValueError: An unknown edit.
    """
    _check_value("edit", op, EDITS)
    record = sample_scene(rng, two=1 if op in ("add", "remove") else 0)
    if op != "add":
        return record, sample_edit(record, rng, op)
    thing = record["objects"].pop(rng.randrange(2))
    return record, {"op": op, "object": thing}


def _check_value(name: str, value: object, values: Sequence[str]) -> None:
    if value not in values:
        raise ValueError(f"no {name} {value!r}; there are: {', '.join(values)}")


def _cut_end(text: str, ends: dict[str, str]) -> tuple[str, str | None]:
    for end, value in ends.items():
        if text.endswith(end):
            return text.removesuffix(end), value
    return text, None


def _parse_noun(name: str, text: str) -> dict[str, str]:
    match name.split():
        case ["a", color, shape]:
            material = "plain"
        case ["a", color, material, shape]:
            pass
        case _:
            raise ValueError(f"no object in {name!r}, of the caption {text!r}")
    thing = {"shape": shape, "color": color, "material": material}
    for key, values in _OBJECT_VALUES.items():
        _check_value(key, thing[key], values)
    return thing
