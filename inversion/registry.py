"""Names to methods: a registry of frozen dataclasses whose fields are their settings.

A method registers itself where it is defined; the registry finds the files of its ``methods``
folder on the first look-up, so nothing here knows a method by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import pkgutil
import typing
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class UnknownMethod(ValueError):
    """No method of that name."""


class SettingError(ValueError):
    """A setting that does not exist or is out of range."""


def setting(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field that carries its help text and range."""
    return dataclasses.field(
        default=default, metadata={"help": text, "low": low, "high": high, "choices": choices}
    )


def check_settings(method: Any) -> None:
    """Validate the fields of a method against their ranges (call in ``__post_init__``).

    Raises:
        SettingError: names the method, the setting, its value and what is possible.
    """
    name = getattr(method, "name", type(method).__name__)
    for f in dataclasses.fields(method):
        value, meta = getattr(method, f.name), f.metadata
        where = f"{name}: {f.name}={value!r}"
        if meta.get("choices") and value not in meta["choices"]:
            raise SettingError(f"{where} is not one of {', '.join(meta['choices'])}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = meta.get("low"), meta.get("high")
            if not math.isfinite(value):
                raise SettingError(f"{where} is not a finite number")
            if (low is not None and value < low) or (high is not None and value > high):
                bounds = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
                raise SettingError(f"{where} is out of range: give a number {bounds}")


def nearest(name: str, names: typing.Iterable[str]) -> str:
    """ " (did you mean 'x'?)" or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_value(text: Any, kind: Any) -> Any:
    """A setting's value from its text, by the type of its default."""
    if not isinstance(text, str):
        return text
    if isinstance(kind, bool):
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(text)
    if isinstance(kind, int):
        return int(text)
    if isinstance(kind, float):
        return float(text)
    if isinstance(kind, tuple):
        raise ValueError(text)
    return text


class Registry(Generic[T]):
    """Methods by name.

    Args:
        kind: what they are, for messages ("inversion").
        package: the package whose modules register methods when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._classes: dict[str, type[T]] = {}
        self._found = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: makes the class a frozen dataclass known as ``name``."""

        def decorate(cls: type[T]) -> type[T]:
            cls.name = name  # type: ignore[attr-defined]
            made = dataclasses.dataclass(frozen=True)(cls)
            if name in self._classes:
                raise RuntimeError(f"two methods register as {name!r}")
            self._classes[name] = made
            return made

        return decorate

    def _find(self) -> dict[str, type[T]]:
        if not self._found:
            package = importlib.import_module(self.package)
            for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
                importlib.import_module(f"{self.package}.{module}")
            self._found = True
        return self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._find()))

    def __getitem__(self, name: str) -> type[T]:
        classes = self._find()
        if name not in classes:
            known = ", ".join(sorted(classes))
            raise UnknownMethod(
                f"no {self.kind} method {name!r}{nearest(name, classes)}; there are: {known}"
            )
        return classes[name]

    def create(self, name: str, **settings: Any) -> T:
        """A method with settings; texts are read as the type of the setting's default.

        Raises:
            UnknownMethod: no such method.
            SettingError: no such setting, or a value it cannot take.
        """
        cls = self[name]
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        values = {}
        for key, value in settings.items():
            field = fields.get(key.replace("-", "_"))
            if field is None:
                known = ", ".join(sorted(fields)) or "none"
                raise SettingError(
                    f"{self.kind} {name!r} has no setting {key!r}{nearest(key, fields)}; "
                    f"its settings: {known}"
                )
            try:
                values[field.name] = read_value(value, field.default)
            except ValueError:
                kind = type(field.default).__name__
                raise SettingError(f"{name}: {key}={value!r} is not of type {kind}") from None
        return cls(**values)

    def settings(self, method: T) -> dict[str, Any]:
        """The settings of a method as plain values."""
        return dataclasses.asdict(method)  # type: ignore[call-overload]
