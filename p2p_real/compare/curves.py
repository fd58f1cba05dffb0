"""Curves as inline SVG: a title, axes with round numbers, one line a method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = (
    "#1f6fb4",
    "#d9541e",
    "#2a9134",
    "#8c3fb0",
    "#b8860b",
    "#c22f55",
    "#1a9c9c",
    "#6b4a2b",
    "#7a8794",
    "#000000",
)
WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 34


def chart(
    title: str,
    lines: Mapping[str, Sequence[float | None]],
    across: str,
    *,
    first: int = 0,
    names: Sequence[str] = (),
) -> str:
    """A figure with one line for each name; gaps where a value is None.

    The height is logarithmic where all values are above 0 and span more than two decades.

    Args:
        title: what is shown.
        lines: values by name; places are counted from `first`.
        across: what the places are.
        first: number of the first place.
        names: all lines of which these may be a part, so that each keeps its colour.
    """
    values = [v for line in lines.values() for v in line if v is not None and math.isfinite(v)]
    if not values:
        return ""
    count = max(len(line) for line in lines.values())
    log = min(values) > 0 and max(values) / min(values) > 100
    ticks = _log_ticks(values) if log else _ticks(max(0.0, max(values)))
    low, high = (math.log10(t) if log else t for t in (ticks[0], ticks[-1]))

    def x(n: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (n / max(1, count - 1))

    def y(value: float) -> float:
        at = math.log10(value) if log else value
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (at - low) / (high - low)

    parts = []
    for tick in ticks:
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
            'stroke="#e3e7ec"/>'
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#5c6675">'
            f"{tick:.4g}</text>"
        )
    for n in sorted({0, (count - 1) // 2, count - 1}):
        parts.append(
            f'<text x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle" '
            f'fill="#5c6675">{n + first}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 3}" text-anchor="middle" fill="#5c6675">'
        f"{escape(across)}</text>"
    )
    keys = []
    places = {name: n for n, name in enumerate(dict.fromkeys([*names, *lines]))}
    for name, line in lines.items():
        n = places[name]
        colour = COLOURS[n % len(COLOURS)]
        dash = ' stroke-dasharray="5 3"' if n >= len(COLOURS) else ""
        edge = "dashed" if dash else "solid"
        for run in _runs(line):
            points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in run)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"'
                f"{dash}><title>{escape(name)}</title></polyline>"
            )
        keys.append(f'<span><i style="border-top:3px {edge} {colour}"></i>{escape(name)}</span>')
    return (
        f"<figure><figcaption><b>{escape(title)}</b></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg><div class="key">{"".join(keys)}</div></figure>'
    )


def _runs(line: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Places and values without the gaps."""
    runs: list[list[tuple[int, float]]] = [[]]
    for n, value in enumerate(line):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append((n, value))
    return [run for run in runs if run]


def _ticks(high: float) -> list[float]:
    """Round numbers from 0 to `high` or just above."""
    if high <= 0:
        return [0.0, 1.0]
    rough = high / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    return [round(step * n, 12) for n in range(math.ceil(high / step - 1e-9) + 1)]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten around the values, at most about six."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    stride = max(1, math.ceil((high - low) / 5))
    powers = list(range(low, high + 1, stride))
    if powers[-1] < high:
        powers.append(powers[-1] + stride)
    return [10.0**p for p in powers]
