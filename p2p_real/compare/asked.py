"""What is compared: lists of methods with their settings, read from text and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edit import edits

from ..choosing import inversions
from ..numbers import AUTO
from ..prompts import EditWords
from ..steering import EditControl
from .photos import CompareError


@dataclass(frozen=True)
class MethodAsked:
    """An inversion method with the settings that were named for it.

    Args:
        name: of the method.
        settings: those that differ from its defaults.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``null-text:inner_steps=5``: as it was asked for."""
        return ":".join([self.name, *(f"{k}={v}" for k, v in self.settings.items())])

    def resolved(self) -> dict[str, Any]:
        """All settings as they will be used.

        Raises:
            UnknownMethod, SettingError: says what there is.
        """
        return inversions.settings(inversions.create(self.name, **self.settings))


@dataclass(frozen=True)
class EditAsked:
    """Edit methods that act together, with the settings that were named for them.

    Args:
        names: of the methods.
        settings: by setting.
    """

    names: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``p2p+masactrl:self_scale=1``: as it was asked for."""
        return ":".join(["+".join(self.names), *(f"{k}={v}" for k, v in self.settings.items())])

    def control(self, options: Mapping[str, Any]) -> EditControl:
        """How this edit acts under the options of all edits.

        What belongs to p2p alone is left out where p2p does not act, and so are settings of
        methods that do not act here.

        Raises:
            UnknownMethod, SettingError, OptionError: says what is wrong.
        """
        known = {f.name for n in self.names for f in dataclasses.fields(edits[n])}  # type: ignore[arg-type]
        shared = {k.replace("-", "_"): v for k, v in options.get("edit_options", {}).items()}
        mine = {k: v for k, v in shared.items() if k in known} | dict(self.settings)
        given = {k: v for k, v in options.items() if k not in ("edit", "edit_options")}
        if "p2p" not in self.names:
            given = {k: v for k, v in given.items() if k not in ("cross_replace", "self_replace")}
        how = EditControl(edit=self.names, edit_options=mine, **given)
        how.check_names()
        return how


def read_methods(asked: str | Iterable[str | MethodAsked] | None = None) -> list[MethodAsked]:
    """Inversion methods from ``"null-text:inner_steps=5,direct"``, or from a sequence.

    Args:
        asked: a list by commas, settings behind colons; None or "all" is every method there is
            (not `auto`, which is one of them).

    Raises:
        CompareError, UnknownMethod, SettingError: names what is wrong, before any long work.
    """
    if asked is None or asked == "all":
        asked = [name for name in inversions if name != AUTO]
    found = []
    for item in asked.split(",") if isinstance(asked, str) else asked:
        if isinstance(item, str):
            name, settings = _read(item, "--methods")
            item = MethodAsked(name, settings)
        item.resolved()
        found.append(item)
    _once([(m.name, m.resolved()) for m in found], [m.label for m in found], "--methods")
    return found


def read_edits(asked: str | Iterable[str | EditAsked] = "p2p") -> list[EditAsked]:
    """Edits from ``"p2p,plain"``; ``p2p+masactrl`` is two methods that act together.

    Raises:
        CompareError, UnknownMethod, SettingError: names what is wrong, before any long work.
    """
    found = []
    for item in asked.split(",") if isinstance(asked, str) else asked:
        if isinstance(item, str):
            name, settings = _read(item, "--edits")
            item = EditAsked(tuple(n.strip() for n in name.split("+")), settings)
        item.control({})
        found.append(item)
    _once([(e.names, dict(e.settings)) for e in found], [e.label for e in found], "--edits")
    return found


def check_shared(asked: Sequence[EditAsked], options: Mapping[str, Any]) -> None:
    """Refuse options that no edit of the comparison can use.

    Raises:
        CompareError, OptionError: names the option.
    """
    known = {f.name for e in asked for n in e.names for f in dataclasses.fields(edits[n])}  # type: ignore[arg-type]
    for key in options.get("edit_options", {}):
        if key.replace("-", "_") not in known:
            raise CompareError(
                f"--edit-option {key}: none of the edits has such a setting; there are: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    if not any("p2p" in e.names for e in asked):
        for name in ("cross_replace", "self_replace"):
            if options.get(name) is not None:
                option = name.replace("_", "-")
                raise CompareError(f"--{option} belongs to p2p, which is not compared here")
    for edit in asked:
        edit.control(options)


_ACTING = (
    "local",
    "subtract",
    "mask",
    "mask_from",
    "mask_box",
    "paste_back",
    "cross_replace",
    "edit_options",
)


def check_words(words: EditWords, options: Mapping[str, Any]) -> None:
    """Refuse edit options without any edit words: only inversions would be compared.

    Raises:
        CompareError: names the option.
    """
    if words.any():
        return
    for name in _ACTING:
        if options.get(name):
            raise CompareError(
                f"--{name.replace('_', '-').replace('options', 'option')} has nothing to act on: "
                "say what to change, such as --swap red=blue"
            )


def _read(text: str, option: str) -> tuple[str, dict[str, str]]:
    """A name and its settings."""
    name, *parts = (part.strip() for part in text.split(":"))
    if not name:
        raise CompareError(f"{option}: a name is missing (give NAME or NAME:SETTING=VALUE,...)")
    settings: dict[str, str] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise CompareError(f"{option} {text!r}: give NAME:SETTING=VALUE")
        if key.replace("-", "_") in settings:
            raise CompareError(f"{option} {text!r}: {key} is given twice")
        settings[key.replace("-", "_")] = value
    return name, settings


def _once(made: Sequence[Any], labels: Sequence[str], option: str) -> None:
    """Refuse an empty list, and one entry given twice."""
    if not made:
        raise CompareError(f"{option}: give one name or more")
    for n, one in enumerate(made):
        if one in made[:n]:
            raise CompareError(f"{option}: {labels[n]} is given twice with the same settings")
