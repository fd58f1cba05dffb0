"""What is measured: inversions x edits x guidances, and the bound that is always run too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...compare.asked import EditAsked, MethodAsked, read_edits, read_methods
from ...numbers import METHOD, check_edit_guidance
from ...prompts import Prompts
from ...steering import EXCITE, EditControl
from .truths import TabletopError, TruthEdit

PLAIN = EditAsked(("plain",))
BOUND = MethodAsked("direct")  # DDIM's own path, on which plain regeneration is the lower bound
TRUTH, CEILING, UNTOUCHED = "the truth itself", "the truth through the autoencoder", "no edit"
BOUNDS = (TRUTH, CEILING, UNTOUCHED)  # rows that no way of editing made
LOCALS = {"no": (False,), "yes": (True,), "both": (False, True)}
FORMS, CAPTIONS = "forms", "captions"
DIRECTIONS = {"direction": FORMS, "world-direction": CAPTIONS}  # by the sentences they are made of
# said beside an edit's methods: how it acts, and what it is told
MORE = ("local", "no-local", "excite", *DIRECTIONS)

Row = dict[str, Any]  # one edit by one way, or a bound of it


@dataclass(frozen=True)
class Way:
    """One way of editing: an inversion, an edit on it, and how it acts.

    Args:
        method: the inversion.
        edit: the edit methods.
        guidance_scale: None is what suits the model and the inversion.
        local: blend by the words of what changes, where an edit has such words.
        mask: the true region of the change as the mask (what the best mask would give).
        direction: "forms" or "captions": the photo's own words stay, and a direction made of such
            sentences is added to them.
        excite: the words that come are excited, where an edit brings any.
        control: further fields of :class:`p2p_real.steering.EditControl`, for all edits.
        name: in tables, instead of one made of the above.
    """

    method: MethodAsked
    edit: EditAsked
    guidance_scale: float | None = None
    local: bool = False
    mask: bool = False
    direction: str = ""
    excite: bool = False
    control: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return self.name or ", ".join([self.method.label, self.edited])

    @property
    def edited(self) -> str:
        """The edit's part of the label."""
        more = [
            "no-local" if (k, v) == ("local", ()) else f"{k}={v}" for k, v in self.control.items()
        ]
        if self.guidance_scale is not None:
            more.append(f"guidance {self.guidance_scale:g}")
        if self.local:
            more.append("local")
        if self.mask:
            more.append("true mask")
        if self.excite:
            more.append("excited")
        asked = self.edit
        if self.direction:
            names = () if asked.names == PLAIN.names else asked.names
            said = next(name for name, made_of in DIRECTIONS.items() if made_of == self.direction)
            asked = replace(asked, names=(said, *names))
        return " ".join([asked.label, *more])

    def prompts(self, truth: TruthEdit) -> Prompts:
        """The prompts of one edit, without its direction."""
        source, target = truth.pair.source_caption, truth.pair.target_caption
        return Prompts(source, source if self.direction else target)

    def how(self, truth: TruthEdit) -> EditControl:
        """How it acts on one edit.

        Raises:
            UnknownMethod, SettingError, OptionError: says what is wrong.
        """
        options = dict(self.control)
        if self.local and truth.local is not None:
            options["local"] = list(truth.local) if self.direction else truth.local
        if self.mask:
            options["mask"] = _picture(truth)
        edit = self.edit
        if self.excite and (words := new_words(truth)):
            options["excite"] = words
            if edit.names == PLAIN.names:  # which is no control at all
                edit = replace(edit, names=(EXCITE,))
        return edit.control(options)

    def plain(self) -> dict[str, Any]:
        """What decides its results, as plain data."""
        return {
            "method": self.method.name,
            "method_settings": self.method.resolved(),
            "edit": list(self.edit.names),
            "edit_settings": dict(self.edit.settings),
            "guidance_scale": self.guidance_scale,
            "local": self.local,
            "mask": self.mask,
            "control": {k: str(v) for k, v in self.control.items()},
        } | {name: getattr(self, name) for name in ("direction", "excite") if getattr(self, name)}


def new_words(truth: TruthEdit) -> tuple[str, ...]:
    """Words of the target's caption that the source's has not."""
    known = set(truth.pair.source_caption.split())
    return tuple(dict.fromkeys(w for w in truth.pair.target_caption.split() if w not in known))


def _picture(truth: TruthEdit) -> Any:
    from PIL import Image

    return Image.fromarray(truth.changed.astype("uint8") * 255)


def read_ways(
    methods: str | Iterable[str | MethodAsked] | None = METHOD,
    edits: str | Iterable[str | EditAsked] = "p2p",
    *,
    guidance: str | Iterable[float] | None = None,
    plain_guidance: str | Iterable[float] | None = None,
    local: str = "no",
) -> list[Way]:
    """All ways of some inversions, edits and guidances; plain regeneration is always one.

    Args:
        methods: as :func:`p2p_real.compare.read_methods` takes them.
        edits: as :func:`p2p_real.compare.read_edits` takes them; ``p2p+local`` blends by the words
            of what truly changes, ``p2p+no-local`` not even where the model's preset does by the
            prompts' own words, ``p2p+excite`` (or ``excite`` alone) excites the words that come;
            ``direction`` (alone, or as ``direction+pix2pix-zero``) leaves the photo's words and
            adds the direction of the change to them, ``world-direction`` one made of captions of
            the embedded world.
        guidance: numbers, or text such as ``"1.5,3"``; None is what suits each inversion.
        plain_guidance: the same for the bound alone; None is as `guidance`.
        local: "yes" blends by the words of what changes, "both" makes it a second way.

    Raises:
        TabletopError, CompareError, UnknownMethod, SettingError, OptionError: one line each.
    """
    if local not in LOCALS:
        raise TabletopError(f"--local {local!r}: there are {', '.join(LOCALS)}")
    scales = read_scales(guidance, "--guidance")
    bounds = scales if plain_guidance is None else read_scales(plain_guidance, "--plain-guidance")
    asked = _edits(edits)
    if local != "no" and any({"local", "no-local"} & set(more) for _, more in asked):
        raise TabletopError("--local and an edit with +local or +no-local: give one")
    found = [
        Way(
            method,
            edit,
            scale,
            "local" in more or where,
            direction=_direction(more),
            excite="excite" in more,
            control={"local": ()} if "no-local" in more else {},
        )
        for method in read_methods(methods)
        for edit, more in asked
        for scale in scales
        for where in (LOCALS[local] if edit != PLAIN and "local" not in more else (False,))
    ]
    bound = [Way(BOUND, PLAIN, scale) for scale in bounds]
    return found + [way for way in bound if way not in found]


def is_bound(way: Way) -> bool:
    """Whether a way is plain regeneration from DDIM's path, the lower bound."""
    more = way.local or way.mask or way.direction or way.excite or way.control
    return way.edit == PLAIN and way.method == BOUND and not more


def _direction(more: Iterable[str]) -> str:
    return next((DIRECTIONS[name] for name in more if name in DIRECTIONS), "")


def _edits(asked: str | Iterable[str | EditAsked]) -> list[tuple[EditAsked, tuple[str, ...]]]:
    """Edits and what of ``MORE`` is said beside each."""
    found: list[tuple[EditAsked, tuple[str, ...]]] = []
    for item in asked.split(",") if isinstance(asked, str) else asked:
        more: tuple[str, ...] = ()
        if isinstance(item, str):
            name, colon, settings = item.partition(":")
            names = [n.strip() for n in name.split("+")]
            more = tuple(sorted(n for n in names if n in MORE))
            left = [n for n in names if n not in MORE]
            if "excite" in more and _direction(more):
                raise TabletopError(
                    f"--edits {item.strip()!r}: a direction brings no words that could be excited"
                )
            if "no-local" in more and left and "p2p" not in left:
                raise TabletopError(f"--edits {item.strip()!r}: only p2p blends by itself")
            if {"local", "no-local"} <= set(more):
                raise TabletopError(f"--edits {item.strip()!r}: with a blend or without?")
            if len({n.removeprefix("world-") for n in more}) < len(more):
                raise TabletopError(f"--edits {item.strip()!r} says {more[0]} twice")
            if more in (("local",), ("no-local",)) and not left:
                raise TabletopError(
                    f"--edits {item.strip()!r}: {more[0]} stands beside an edit: p2p+{more[0]}"
                )
            item = "+".join(left or PLAIN.names) + colon + settings
        (edit,) = read_edits([item])
        if (edit, more) in found:
            raise TabletopError(f"--edits: {'+'.join((edit.label, *more))} is given twice")
        found.append((edit, more))
    if not found:
        raise TabletopError("--edits: give one name or more")
    return found


def read_scales(asked: str | Iterable[float] | None, option: str) -> list[float | None]:
    """Guidance scales from ``"1.5,3"``; None is one that suits the model.

    Raises:
        TabletopError, OptionError: no number, one out of range, or one given twice.
    """
    if asked is None:
        return [None]
    found: list[float | None] = []
    for item in asked.split(",") if isinstance(asked, str) else asked:
        try:
            value = float(item)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise TabletopError(f"{option} {item!r}: give a number, or several with commas")
        check_edit_guidance(value)
        if value in found:
            raise TabletopError(f"{option}: {value:g} is given twice")
        found.append(value)
    if not found:
        raise TabletopError(f"{option}: give a number")
    return found
