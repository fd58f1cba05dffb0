"""Directions by name: ``cat2dog*1.0 + day2night*0.5``; files, or names of what is kept."""

from __future__ import annotations

import math
import os
import re
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from .sentences import DirectionError

if TYPE_CHECKING:
    from .direction import Direction

SUFFIX = ".safetensors"


def kept_folder() -> Path:
    """``$XDG_CACHE_HOME/p2p-real/directions``, or under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "p2p-real" / "directions"


def name_of(source: str, target: str) -> str:
    """The name under which a direction is kept: ``red-ball2blue-ball``."""

    def one(word: str) -> str:
        return re.sub(r"[^\w.]+", "-", word.strip().lower()).strip("-.")

    return f"{one(source) or 'x'}2{one(target) or 'y'}"


def terms(text: str) -> list[tuple[float, str]]:
    """(factor, name or file) of each term of a sum; + and - stand between blanks.

    Raises:
        DirectionError: a term is missing, or its factor is no number.
    """
    found = []
    sign = 1.0
    parts = re.split(r"\s+([+-])\s+", f" {text.strip()} ".replace("  ", " "))
    for i, part in enumerate(parts):
        if i % 2:
            sign = 1.0 if part == "+" else -1.0
            continue
        name, factor = _term(part.strip(), text)
        found.append((sign * factor, name))
    return found


def _term(part: str, text: str) -> tuple[str, float]:
    left, star, right = (p.strip() for p in part.rpartition("*"))
    name, number = (left, right) if star else (right, "1")
    if star and _number(number) is None and _number(name) is not None:
        name, number = number, name  # 0.5*cat2dog
    factor = _number(number)
    if not name or factor is None or name[0] in "+-":
        raise DirectionError(
            f"--direction {text!r}: {part!r} is not NAME or NAME*NUMBER; join several with + or - "
            "between blanks: 'cat2dog*1.0 + day2night*0.5'"
        )
    return name, factor


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def find(name: str) -> Path:
    """The file of a name: itself, in the current folder, or among what is kept.

    Raises:
        DirectionError: there is none; says what is kept.
    """
    places = [Path(name), Path(f"{name}{SUFFIX}"), kept_folder() / f"{name}{SUFFIX}"]
    for path in places:
        if path.is_file():
            return path
    kept = sorted(p.name.removesuffix(SUFFIX) for p in kept_folder().glob(f"*{SUFFIX}"))
    known = f"kept are {', '.join(kept[:20])}" if kept else "none is kept yet"
    raise DirectionError(
        f"no direction {name!r}: neither a file nor a name ({known}); make one with p2p-real "
        "direction SRC DST"
    )


def check(text: str) -> None:
    """Refuse an expression that cannot be read, and names without a file; loads nothing heavy."""
    for _, name in terms(text):
        find(name)


def resolve(text: str) -> Direction:
    """The direction of an expression.

    Raises:
        DirectionError: it cannot be read, a file is missing or damaged, or models differ.
    """
    from .direction import Direction

    found = [(factor, Direction.load(find(name))) for factor, name in terms(text)]
    if len(found) == 1 and found[0][0] == 1:
        return found[0][1]
    return reduce(lambda a, b: a.add(b), (d.scale(factor) for factor, d in found))
