"""Objects that are moved or resized: what is asked for, where they are, and what then acts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .numbers import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from edit import EditContext, Plan
    from edit.methods.move import Move, Thing

    from .fitting import Fit
    from .masks import Mask, MaskAsked, Subject
    from .prompts import EditWords, Prompts
    from .steering import EditControl

MOVE = "move"
TIMES = (0.25, 4.0)


@dataclass(frozen=True)
class Seen:
    """The photo as the model sees it, and what makes latents [1, C, h, w] of such a picture."""

    picture: Image.Image
    encode: Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Moved:
    """One object and where it goes.

    Args:
        what: words of the photo's prompt, or a mask of :mod:`p2p_real.masks.grammar` ("box:...").
        by: (right, down) in fractions of the photo's width and height.
        times: the factor of its size.
        mask: where it is, once that is known.
        seen: the photo as the model sees it, likewise.
    """

    what: str
    by: tuple[float, float] = (0.0, 0.0)
    times: float = 1.0
    mask: Mask | None = None
    seen: Seen | None = None

    def __str__(self) -> str:
        moved = f" by {self.by[0]:g},{self.by[1]:g}" if self.by != (0, 0) else ""
        return f"{self.what}{moved}" + (f" x{self.times:g}" if self.times != 1 else "")

    def made_of(self) -> dict[str, Any]:
        """All that decides where it is and where it goes, as plain data."""
        from .images import open_photo

        files = [leaf.text for leaf in self.asked().leaves() if leaf.kind == "file"]
        return {
            "what": self.what,
            "by": list(self.by),
            "times": self.times,
            "files": [open_photo(file).sha256 for file in files],
        }

    def asked(self, options: Mapping[str, Any] | None = None) -> MaskAsked:
        """Its mask in words, with those settings that its sources have."""
        from .masks import MaskAsked

        bare = MaskAsked(self.what if ":" in self.what else f'words:"{self.what}"')
        known = bare.takes() if options else set()
        mine = {k: v for k, v in (options or {}).items() if k.replace("-", "_") in known}
        return dataclasses.replace(bare, settings=mine)


def split(text: str, option: str) -> tuple[str, str]:
    """``red ball=0.3,0`` as (what, how far).

    Raises:
        OptionError: it is not of that form.
    """
    what, equals, value = (part.strip() for part in text.rpartition("="))
    if not equals or not what or not value:
        raise OptionError(f"{option} {text!r}: give WHAT=VALUE, such as 'red ball=0.3,0'")
    return what, value


def read_moves(move: Mapping[str, Any], resize: Mapping[str, Any]) -> tuple[Moved, ...]:
    """What is asked for, an entry an object.

    Args:
        move: what -> (right, down), or a text "0.3,0".
        resize: what -> factor, or a text.

    Raises:
        OptionError: a value that cannot be used.
        NothingActed: an object that stays as it is.
    """
    found = []
    for what in dict.fromkeys([*move, *resize]):
        one = Moved(what, _by(what, move.get(what, (0, 0))), _times(what, resize.get(what, 1)))
        if one.by == (0, 0) and one.times == 1:
            from edit import NothingActed

            raise NothingActed(f"{what!r} is neither moved nor resized: there is nothing to edit")
        found.append(one)
    return tuple(found)


def _by(what: str, value: str | Sequence[float]) -> tuple[float, float]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        right, down = (float(part) for part in parts)
    except (TypeError, ValueError):
        right = down = math.nan
    if not (abs(right) <= 1 and abs(down) <= 1):
        raise OptionError(
            f"--move {what!r} by {value!r}: give two fractions of the picture, right and down, "
            "from -1 to 1, such as 0.3,0"
        )
    return right, down


def _times(what: str, value: str | float) -> float:
    try:
        times = float(value)
    except (TypeError, ValueError):
        times = math.nan
    if not TIMES[0] <= times <= TIMES[1]:
        raise OptionError(
            f"--resize {what!r} times {value!r}: give a factor from {TIMES[0]:g} to {TIMES[1]:g}"
        )
    return times


def check_masks(
    moves: Sequence[Moved],
    options: Mapping[str, Any],
    *sizes: tuple[int, int],
    source: str | None = None,
) -> None:
    """Refuse masks of what moves that cannot be made, and settings that none of them has.

    Raises:
        MaskError, WordNotInPrompt, SettingError: says what is wrong.
    """
    from .masks import MaskAsked

    asked = [one.asked(options) for one in moves]
    for each in asked:
        each.check(*sizes, source=source)
    if moves and options:
        whole = MaskAsked(" | ".join(f"({each.spec})" for each in asked), settings=options)
        whole.check(*sizes, source=source)


def located(prompts: Prompts, subject: Subject, options: Mapping[str, Any]) -> Prompts:
    """The same with the masks of what moves, and the photo that they move in.

    Args:
        prompts: with what moves.
        subject: the photo.
        options: settings of the masks.

    Raises:
        MaskError: a mask that cannot be made, or is empty; names it.
    """
    if not prompts.moves:
        return prompts

    def encode(picture: Image.Image) -> Tensor:
        from .images import to_tensor

        backbone = subject.backbone
        return backbone.encode(to_tensor(picture).to(backbone.device))

    seen = Seen(subject.fit.apply(subject.picture()), encode)
    moves = tuple(
        dataclasses.replace(one, mask=one.asked(options).make(subject), seen=seen)
        for one in prompts.moves
    )
    return dataclasses.replace(prompts, moves=moves)


def check_inversion(asked: EditWords | Prompts, method: str | None) -> None:
    """Refuse an inversion whose way back holds more than the latents that are moved.

    Raises:
        OptionError: names it.
    """
    if asked.moves and method == "edict":
        raise OptionError(
            "--move and --resize: edict walks a second latent, which they do not reach: invert by "
            "another method, such as --method direct"
        )


def check_alone(how: EditControl, prompts: Prompts) -> None:
    """Refuse a move beside what would act against it, and the method without a move.

    Raises:
        OptionError: names the option.
    """
    if not prompts.moves:
        if MOVE in how.edit:
            raise OptionError("--edit move: which object, and where to? give --move or --resize")
        return
    if tuple(how.edit) != (MOVE,):
        others = ", ".join(name for name in how.edit if name != MOVE)
        raise OptionError(
            f"--move and --resize act alone, not beside --edit {others}: leave that out, and edit "
            "the moved picture afterwards"
        )
    if how.local or how.has_mask:
        option = "local" if how.local else "mask"
        raise OptionError(
            f"--{option} does not go with --move and --resize, which change the picture at the "
            "object's old and new place only: leave it out"
        )


def plan_moves(how: EditControl, context: EditContext, prompts: Prompts, fit: Fit | None) -> Plan:
    """What acts where objects are moved; nothing at strength 0, or before their masks are made.

    Raises:
        NothingActed: a move of less than half a cell, or out of the picture.
        MaskError, WordNotInPrompt: a mask that cannot be made.
    """
    from edit import make_plan
    from edit.methods.move import Move

    (method,) = how.methods(prompts, {}) or (None,)
    sizes = () if fit is None else (fit.original, fit.fitted)
    check_masks(prompts.moves, how.mask_options, *sizes, source=prompts.source)
    extra = []
    if isinstance(method, Move) and all(one.mask is not None for one in prompts.moves):
        size = context.latent_size
        things = [_thing(one, method, how.strength, size, fit) for one in prompts.moves]
        extra = [method.control(things, context)]
    return make_plan(context, [], extra=extra)


def _thing(
    one: Moved, method: Move, strength: float, size: tuple[int, int], fit: Fit | None
) -> Thing:
    """An object on the latents' grid; at a strength below 1 it goes that part of the way.

    Args:
        size: (h, w) of the latents.
    """
    import torch
    from torch.nn.functional import adaptive_max_pool2d

    from edit import NothingActed
    from edit.methods.move import Thing, Warp

    assert one.mask is not None
    right, down = one.by
    image = Image.fromarray(one.mask.values)
    if fit is not None:  # fractions of the photo, as fractions of what the model sees
        ways = zip((right, down), fit.original, fit.part, fit.scaled, fit.fitted, strict=True)
        right, down = (v * photo / part * to / whole for v, photo, part, to, whole in ways)
        image = fit.apply(image)
    width, height = image.size
    times = one.times**strength
    by = (strength * down * height, strength * right * width)  # in pixels
    if times == 1 and max(abs(v) for v in by) < 1:
        raise NothingActed(f"{one.what!r} is moved by less than a pixel: there is nothing to edit")
    values = np.array(image)
    about = method.about(torch.from_numpy(values > 0.5))
    place = moved(image, by, times, about, Image.Resampling.BILINEAR, border="constant")

    def cells(values: np.ndarray) -> torch.Tensor:
        pooled: torch.Tensor = adaptive_max_pool2d(torch.from_numpy(values)[None], size)[0]
        return (pooled > 0.5).float()

    sides = [s / p for s, p in zip(size, (height, width), strict=True)]  # cells a pixel
    steps = [v * side for v, side in zip(by, sides, strict=True)]
    if times == 1:
        steps = [float(round(v)) for v in steps]
    point = [v * side for v, side in zip(about, sides, strict=True)]
    warp = Warp.of(size, (steps[0], steps[1]), times, (point[0], point[1]))
    detail = None
    if one.seen is not None:
        picture = one.seen.picture
        there = moved(picture, by, times, about, Image.Resampling.LANCZOS, border="edge")
        clean = one.seen.encode(picture)
        detail = one.seen.encode(Image.fromarray(there)) - warp(clean)
    return Thing(cells(values), cells(np.array(place)), warp, detail, one.what)


def moved(
    image: Image.Image,
    by: tuple[float, float],
    times: float,
    about: tuple[float, float],
    how: Image.Resampling,
    border: Any,
) -> np.ndarray:
    """A picture scaled about a point and then moved, at its own size.

    Args:
        image: the picture, or a map.
        by, about: (down, right) and (y, x), in pixels.
        times: the scaling.
        how: the filter.
        border: what lies outside, as numpy.pad calls it.
    """
    (width, height), box, pads = image.size, [], []
    for side, move, at in zip((height, width), by, about, strict=True):
        low, high = at + (0 - move - at) / times, at + (side - move - at) / times
        before, after = math.ceil(max(0, -low)) + 4, math.ceil(max(0, high - side)) + 4
        box.append((low + before, high + before))
        pads.append((before, after))
    pixels = np.array(image)
    padded = np.pad(pixels, [*pads, (0, 0)][: pixels.ndim], mode=border)
    (top, bottom), (left, right) = box
    return np.array(
        Image.fromarray(padded).resize((width, height), how, box=(left, top, right, bottom))
    )
