"""What kind of change an edit is, where that decides how long the source's attention should hold.

Light, time of day, weather and season belong to no object: every place of the picture must change
a little, from the first steps on. Held maps and held self-attention forbid just that, so such edits
want short windows. A thing that comes or goes needs room for a new layout in its place: windows of
half the length. Edits of a thing that stays want long ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LIGHT_WORDS = frozenset(
    """
    light dark bright dim noon midday morning afternoon evening dusk dawn twilight night nighttime
    midnight day daytime daylight sunlight moonlight candlelight sunrise sunset sunny overcast
    cloudy foggy misty hazy rainy stormy snowy rain fog mist haze storm thunderstorm snowfall
    blizzard spring summer autumn fall winter golden-hour blue-hour lit backlit neon
    """.split()  # noqa: SIM905 - a list of fifty quoted words cannot be read
)


def changes_light(pairs: Iterable[tuple[str, str, str]]) -> bool:
    """Whether a swapped, added or dropped word is one of light, weather or season.

    Args:
        pairs: (source words, target words, kind) as :func:`edit.align.align` gives them.
    """
    return not _changed(pairs).isdisjoint(LIGHT_WORDS)


STYLE_WORDS = frozenset(
    """
    style painting painted drawing drawn sketch watercolor watercolour illustration cartoon anime
    manga comic poster photo photograph photography render rendering engraving etching mosaic
    collage pastel charcoal pencil ink acrylic impressionist cubist pixel pixelated sepia grayscale
    monochrome oil vintage
    """.split()  # noqa: SIM905
)


def changes_style(pairs: Iterable[tuple[str, str, str]]) -> bool:
    """Whether a swapped, added or dropped word is one of how the whole picture is made.

    Args:
        pairs: (source words, target words, kind) as :func:`edit.align.align` gives them.
    """
    return not _changed(pairs).isdisjoint(STYLE_WORDS)


def _changed(pairs: Iterable[tuple[str, str, str]]) -> set[str]:
    return {
        word
        for source, target, kind in pairs
        if kind != "same"
        for word in re.findall(r"[\w-]+", f"{source} {target}".lower())
    }


PHRASE_WORDS = frozenset(
    "a an the and with without wearing holding beside behind under near next on in".split()  # noqa: SIM905
)


def changes_phrases(pairs: Iterable[tuple[str, str, str]]) -> bool:
    """Whether a whole phrase comes or goes ("and a white ball"), not only a word ("striped").

    Args:
        pairs: (source words, target words, kind) as :func:`edit.align.align` gives them.
    """
    return any(
        not PHRASE_WORDS.isdisjoint(f"{source} {target}".lower().split())
        for source, target, kind in pairs
        if kind in ("new", "dropped")
    )
