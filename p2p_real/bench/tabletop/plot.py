"""Quality against cost: one point a way, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

from ...compare.curves import COLOURS
from ...labels import LINE, text_width, write
from .summary import in_order
from .ways import CEILING, UNTOUCHED

WIDTH, HEIGHT = 620, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 60
_INK, _GREY, _PALE = (30, 30, 30), (120, 120, 120), (225, 228, 233)
_DOT = 11
PANELS = (  # figure, over the panel, the line of a bound and its name
    ("right", "share of edits done right", CEILING, "truth through the autoencoder"),
    ("psnr_inside", "dB to the truth inside the change", UNTOUCHED, "no edit"),
)


def plot(summary: Mapping[str, Mapping[str, Any]]) -> Image.Image:
    """Two panels over UNet rows an edit (inversion included), and the ways' names beside them.

    Args:
        summary: figures by way, as :func:`p2p_real.bench.tabletop.summary.summarise` gives them.
    """
    ways = [way for way in in_order(summary) if "unet_rows" in summary[way]["all"]]
    names = [f"{n + 1}  {way}" for n, way in enumerate(ways)]
    side = max((text_width(name) for name in names), default=0) + 40
    height = max(HEIGHT, TOP + (len(names) + 1) * LINE)
    image = Image.new("RGB", (len(PANELS) * WIDTH + side, height), "white")
    draw = ImageDraw.Draw(image)
    for n, (key, title, bound, name) in enumerate(PANELS):
        shown = [way for way in ways if key in summary[way]["all"]]
        if shown:
            _panel(draw, n * WIDTH, summary, shown, ways, key, title, bound, name)
    for n, name in enumerate(names):
        y = TOP + n * LINE
        x = len(PANELS) * WIDTH + 10
        draw.ellipse((x, y + 4, x + 12, y + 16), fill=_colour(n))
        write(draw, [name], x + 20, y, text_width(name))
    return image


def _panel(
    draw: ImageDraw.ImageDraw,
    left: int,
    summary: Mapping[str, Mapping[str, Any]],
    shown: Sequence[str],
    ways: Sequence[str],
    key: str,
    title: str,
    bound: str,
    bound_name: str,
) -> None:
    figures = {way: summary[way]["all"] for way in shown}
    limit = summary[bound]["all"].get(key, [None])[0]
    values = [v for f in figures.values() for v in f[key]]
    values += [] if limit is None else [limit]
    ticks = _ticks(min(values), max(values))
    costs = [f["unet_rows"][0] for f in figures.values()]
    powers = _powers(min(costs), max(costs))
    right, bottom = left + WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(cost: float) -> float:
        low, high = math.log(powers[0]), math.log(powers[-1])
        return left + LEFT + (WIDTH - LEFT - RIGHT) * (math.log(cost) - low) / (high - low)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    write(draw, [title], left + LEFT, 8, right - left - LEFT)
    for tick in ticks:
        draw.line((left + LEFT, y(tick), right, y(tick)), fill=_PALE)
        write(draw, [f"{tick:g}"], left, round(y(tick)) - 9, LEFT - 6)
    for power in powers:
        draw.line((x(power), TOP, x(power), bottom), fill=_PALE)
        write(draw, [f"{power:g}"], round(x(power)) - 30, bottom + 6, 60)
    across = ["UNet rows an edit, inversion included"]
    write(draw, across, left + LEFT, bottom + 30, right - left - LEFT)
    if limit is not None:
        for start in range(left + LEFT, right, 12):
            draw.line((start, y(limit), min(start + 6, right), y(limit)), fill=_GREY, width=2)
        write(draw, [bound_name], right - text_width(bound_name) - 4, round(y(limit)) + 2, 0)
    font = ImageFont.load_default(size=14)
    places = {way: x(f["unet_rows"][0]) for way, f in figures.items()}
    for way, f in figures.items():
        _, low, high = f[key]
        at, colour = places[way], _colour(ways.index(way))
        draw.line((at, y(low), at, y(high)), fill=colour, width=2)
    for way, f in figures.items():
        n, at, height = ways.index(way), places[way], y(f[key][0])
        draw.ellipse(
            (at - _DOT, height - _DOT, at + _DOT, height + _DOT), fill=_colour(n), outline="white"
        )
        draw.text((at, height), str(n + 1), fill="white", anchor="mm", font=font)


def _colour(n: int) -> tuple[int, ...]:
    return ImageColor.getrgb(COLOURS[n % len(COLOURS)])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range."""
    rough = max(high - low, 1e-6) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * n, 12) for n in range(first, max(last, first + 1) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... around a range."""
    found = [m * 10.0**p for p in range(-1, 8) for m in (1, 2, 5)]
    first = max([n for n, v in enumerate(found) if v <= low], default=0)
    last = min(n for n, v in enumerate(found) if v >= high and n > first)
    return found[first : last + 1]
