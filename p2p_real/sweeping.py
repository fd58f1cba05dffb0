"""The same edit over a range of one setting, from one inversion: which value to take, by eye."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from edit import NothingActed
from inversion import Inversion
from inversion.registry import nearest

from .numbers import OptionError
from .pictures import grid
from .result import EditResult
from .steering import EditControl

if TYPE_CHECKING:
    from .editor import Editor

MOST = 100
COLUMNS = 8
_OWN = ("strength", "cross_replace", "self_replace", "local_threshold", "local_start")
_WHOLE = 1e-9


@dataclass(frozen=True)
class Range:
    """Values of one setting.

    Args:
        name: ``guidance``, an option of every edit ("strength"), or a setting of an edit method.
        values: in the order in which they are shown.
    """

    name: str
    values: tuple[float, ...]

    @classmethod
    def read(cls, text: str) -> Range:
        """``strength=0:1:6`` (from, to, how many) or ``self_scale=1,2,4``.

        Raises:
            OptionError: not of that form, or too many.
        """
        name, equals, rest = (part.strip() for part in text.partition("="))
        wrong = OptionError(
            f"--sweep {text!r}: give NAME=FROM:TO:COUNT, such as strength=0:1:6, or NAME=A,B,C"
        )
        if not equals or not name or not rest:
            raise wrong
        try:
            if ":" in rest:
                low, high, count = rest.split(":")
                values = _between(float(low), float(high), int(count))
            else:
                values = tuple(float(part) for part in rest.split(","))
        except ValueError:
            raise wrong from None
        if not 2 <= len(values) <= MOST or len(set(values)) < len(values):
            raise OptionError(f"--sweep {text!r}: give 2 to {MOST} values, each once")
        return cls(name.replace("-", "_"), values)

    def checked(self, how: EditControl) -> Range:
        """The same, where the edit has such a setting and can take all values.

        Raises:
            OptionError, SettingError: names the setting or the value.
        """
        for value in self.values:
            control, _ = self.applied(value, _fields(how), None)
            EditControl(**control).check_names()
        return self

    def applied(
        self, value: float, control: Mapping[str, Any], guidance_scale: float | None
    ) -> tuple[dict[str, Any], float | None]:
        """Options of an edit and its guidance with one value set."""
        if self.name in ("guidance", "guidance_scale"):
            return dict(control), value
        if self.name in _OWN:
            return {**control, self.name: value}, guidance_scale
        known = _numbers(control.get("edit") or ("p2p",))
        if self.name not in known:
            names = sorted({"guidance", *_OWN, *known})
            raise OptionError(
                f"--sweep {self.name}: no such number{nearest(self.name, names)}; there are: "
                f"{', '.join(names)}"
            )
        whole = abs(value - round(value)) < _WHOLE and known[self.name] is int
        if known[self.name] is int and not whole:
            raise OptionError(f"--sweep {self.name}: {value:g} is not a whole number")
        options = {k.replace("-", "_"): v for k, v in (control.get("edit_options") or {}).items()}
        options[self.name] = round(value) if whole else value
        return {**control, "edit_options": options}, guidance_scale

    def label(self, value: float) -> str:
        """``strength 0.4``."""
        return f"{self.name.replace('_', ' ')} {value:g}"


@dataclass(frozen=True)
class Swept:
    """What a sweep gave.

    Args:
        over: the setting and its values.
        results: one edit a value; None where nothing acted.
        reasons: why, where there is no edit.
    """

    over: Range
    results: tuple[EditResult | None, ...]
    reasons: tuple[str, ...]

    def sheet(self) -> Image.Image:
        """All edits on one sheet with their values below, the photo first.

        Raises:
            NothingActed: not one value changed the picture.
        """
        made = [r for r in self.results if r is not None]
        if not made:
            raise NothingActed(self.reasons[0])
        blank = Image.new("RGB", made[0].image.size, (235, 235, 235))
        cells, labels = [made[0].source], ["photo" if "photo" in made[0].report else "source"]
        for value, result, reason in zip(self.over.values, self.results, self.reasons, strict=True):
            cells.append(blank if result is None else result.image)
            labels.append(self.over.label(value) + (": nothing acts" if reason else ""))
        lines = -(-len(cells) // COLUMNS)
        across = -(-len(cells) // lines)
        while len(cells) < lines * across:
            cells.append(Image.new("RGB", blank.size, (255, 255, 255)))
            labels.append("")
        starts = range(0, len(cells), across)
        return grid(
            [cells[i : i + across] for i in starts],
            cell_labels=[labels[i : i + across] for i in starts],
        )


def sweep(edit: Any, over: Range, control: Mapping[str, Any], guidance: float | None) -> Swept:
    """Edits over a range.

    Args:
        edit: called with ``guidance_scale`` and the options of an edit; gives an EditResult.
        over: the values.
        control: the options that stay.
        guidance: guidance_scale where it is not swept.
    """
    results: list[EditResult | None] = []
    reasons = []
    for value in over.values:
        options, scale = over.applied(value, control, guidance)
        try:
            results.append(edit(guidance_scale=scale, **options))
            reasons.append("")
        except NothingActed as error:
            results.append(None)
            reasons.append(str(error))
    return Swept(over, tuple(results), tuple(reasons))


def sweep_photo(
    editor: Editor,
    inversion: Any,
    over: str,
    target: str | None,
    asked: Mapping[str, Any],
) -> Swept:
    """:meth:`Editor.sweep`: a photo is inverted once for all values."""
    known = {f.name for f in dataclasses.fields(EditControl)}
    control = {k: v for k, v in asked.items() if k in known}
    rest = {k: v for k, v in asked.items() if k not in known}
    guidance = rest.pop("guidance_scale", None)
    wanted = Range.read(over).checked(EditControl(**control))
    made, photo = inversion, rest.pop("photo", None)
    if not isinstance(inversion, Inversion):
        photo = editor.open(inversion)
        own = ("method", "steps", "negative_prompt", "seed", "fit", "progress")
        options = {k: rest.pop(k) for k in own if k in rest}
        settings = dict(rest.pop("method_options", None) or {})
        source = rest.pop("source", None)
        made = editor.invert(
            photo, source, guidance_scale=guidance, verify=False, **options, **settings
        )

    def one(**options: Any) -> EditResult:
        return editor.edit(made, target, **rest, photo=photo, **options)

    return sweep(one, wanted, control, guidance)


def _between(low: float, high: float, count: int) -> tuple[float, ...]:
    if count < 2:
        raise ValueError(count)
    return tuple(round(low + (high - low) * i / (count - 1), 10) for i in range(count))


def _numbers(names: Sequence[str] | str) -> dict[str, type]:
    """Settings of edit methods that are numbers, with their types."""
    from edit import edits

    found = {}
    for name in [names] if isinstance(names, str) else names:
        for f in dataclasses.fields(edits[name]):  # type: ignore[arg-type]
            if isinstance(f.default, int | float) and not isinstance(f.default, bool):
                found[f.name] = type(f.default)
    return found


def _fields(how: EditControl) -> dict[str, Any]:
    return {f.name: getattr(how, f.name) for f in dataclasses.fields(how)}
