"""Names to methods, and texts to settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from inversion.registry import Registry, SettingError, check_settings, nearest, read_value, setting


class Base:
    name = ""

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.fixture
def registry() -> Registry[Any]:
    made: Registry[Any] = Registry("test", "inversion.methods")
    made._found = True  # no folder to scan

    @made.register("one")
    class One(Base):
        count: int = setting(3, "how many", low=1, high=9)
        share: float = setting(0.5, "how much", low=0)
        kind: str = setting("a", "which", choices=("a", "b"))
        loud: bool = setting(False, "whether")

    @made.register("other")
    class Other(Base):
        pass

    return made


def test_looking_up(registry: Registry[Any]) -> None:
    assert list(registry) == ["one", "other"]
    assert registry["one"].name == "one"
    method = registry.create("one", count=4)
    assert method.count == 4
    assert registry.settings(method) == {"count": 4, "share": 0.5, "kind": "a", "loud": False}
    assert dataclasses.is_dataclass(method)
    assert method == registry.create("one", **registry.settings(method))


def test_two_of_a_name(registry: Registry[Any]) -> None:
    with pytest.raises(RuntimeError, match="two methods register as 'one'"):
        registry.register("one")(type("Again", (Base,), {}))


def test_texts_are_read(registry: Registry[Any]) -> None:
    method = registry.create("one", count="7", share="1e-3", kind="b", loud="yes")
    assert (method.count, method.share, method.kind, method.loud) == (7, 0.001, "b", True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "one: count=0 is out of range: give a number from 1 to 9"),
        ({"count": 10}, "from 1 to 9"),
        ({"count": "many"}, "count='many' is not of type int"),
        ({"count": "2.5"}, "is not of type int"),
        ({"share": -0.1}, "give a number at least 0"),
        ({"share": float("nan")}, "not a finite number"),
        ({"share": "nan"}, "not a finite number"),
        ({"kind": "c"}, "kind='c' is not one of a, b"),
        ({"loud": "perhaps"}, "loud='perhaps' is not of type bool"),
        ({"cuont": 1}, "has no setting 'cuont' (did you mean 'count'?); its settings: count, "),
    ],
)
def test_wrong_settings(registry: Registry[Any], settings: Any, message: str) -> None:
    with pytest.raises(SettingError) as refused:
        registry.create("one", **settings)
    assert message in str(refused.value)


def test_reading_values() -> None:
    for text, value in (("Yes", True), ("off", False), ("1", True), ("FALSE", False)):
        assert read_value(text, True) is value
    assert read_value("2", 1) == 2
    assert read_value("2", 1.0) == 2.0
    assert read_value((("a", 1.0),), ()) == (("a", 1.0),)


def test_nearest() -> None:
    assert nearest("nul-text", ["ddim", "null-text"]) == " (did you mean 'null-text'?)"
    assert nearest("qqq", ["ddim", "null-text"]) == ""
