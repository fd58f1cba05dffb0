"""Whether an edit did what was said, without a truth to compare with: three figures and a verdict.

Acted: how much the picture changed where it was to change, against the photo's reconstruction.
Kept: how like the reconstruction it is everywhere else (for a change of the whole picture: how like
its shapes are). Said: whether the captioner, asked about the result, says the new thing and no
longer the old one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captioning.grammar import CONJUNCTIONS, DETERMINERS, PREPOSITIONS
from captioning.matching import words_of

from ..metrics import pixels, psnr_where
from ..numbers import finite

if TYPE_CHECKING:
    from captioning.understanding import Meaning

SEEN = 24.0  # levels of 255: a difference that one sees
ACTED = 0.02  # share of the region that must differ so much
KEPT_DB = 24.0  # decibels outside the region; below, something else changed too
KEPT_SHAPES = 0.45  # likeness of shapes where the whole picture changes
SMALL = DETERMINERS | CONJUNCTIONS | PREPOSITIONS
_SIDE, _WINDOW = 128, 16  # pictures are compared at this size, in windows of this one


@dataclass(frozen=True)
class Figure:
    """One check.

    Args:
        ok: whether it is passed; None where it cannot be known.
        value: what was measured, None where nothing was.
        floor: the least that passes.
        note: what was measured, or what was found, in words.
    """

    ok: bool | None
    value: float | None
    floor: float | None
    note: str


@dataclass(frozen=True)
class Checked:
    """What an edit's picture shows.

    Args:
        acted, kept, said: the three checks.
        caption: what the captioner says of the picture.
        picture: whether there is one.
    """

    acted: Figure
    kept: Figure
    said: Figure
    caption: str
    picture: bool = True

    @property
    def passed(self) -> bool:
        """Whether no check failed (what cannot be known does not fail)."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(n for n in ("acted", "kept", "said") if getattr(self, n).ok is False)

    @property
    def undone(self) -> bool:
        """Whether the change itself is missing."""
        return self.acted.ok is False or self.said.ok is False

    def rank(self) -> tuple[int, int]:
        """How good: checks that did not fail, then whether the change is there; without a picture
        nothing is worse."""
        return 3 - len(self.failed) if self.picture else -1, int(not self.undone)


def acted(edited: Image.Image, reconstruction: Image.Image, region: np.ndarray | None) -> Figure:
    """Share of the region whose pixels differ so that one sees it.

    Args:
        edited, reconstruction: pictures of one size.
        region: bool [H, W], where the change belongs; None: the whole picture.
    """
    differs = np.abs(pixels(edited).astype(np.int16) - pixels(reconstruction)).mean(-1) > SEEN
    share = float(differs.mean() if region is None else differs[region].mean())
    where = "of the picture" if region is None else "of the place it belongs to"
    return Figure(share >= ACTED, round(share, 4), ACTED, f"{share:.0%} {where} changed visibly")


def kept(edited: Image.Image, reconstruction: Image.Image, region: np.ndarray | None) -> Figure:
    """How like the reconstruction the rest is: decibels outside the region, or shapes.

    Args:
        edited, reconstruction: pictures of one size.
        region: bool [H, W], where the change belongs; None: the whole picture may change, and its
            shapes are to stay.
    """
    if region is None:
        likeness = shapes_alike(edited, reconstruction)
        note = f"shapes are {likeness:.2f} alike"
        return Figure(likeness >= KEPT_SHAPES, round(likeness, 3), KEPT_SHAPES, note)
    found = psnr_where(edited, reconstruction, ~region)
    if found is None:
        return Figure(None, None, KEPT_DB, "not known: the change may be everywhere")
    value = finite(found)
    text = "every pixel" if value is None else f"{value:.1f} dB"
    return Figure(
        found >= KEPT_DB,
        None if value is None else round(value, 2),
        KEPT_DB,
        f"outside that place {text} to the reconstruction",
    )


def shapes_alike(a: Image.Image, b: Image.Image) -> float:
    """How alike two pictures' shapes are, 0 to 1, whatever the light on them.

    The mean of the correlation of luminance, sign left out, over windows of an eighth of the
    longer side, weighted by their contrast. On the embedded world right changes of light give
    0.6 to 0.9, two pictures that have nothing in common 0.2 to 0.6.

    Args:
        a, b: pictures of one size.
    """
    one, two = (_windows(p) for p in (a, b))
    spread = one.std(1) * two.std(1)
    weight = np.sqrt(spread)
    both = ((one - one.mean(1, keepdims=True)) * (two - two.mean(1, keepdims=True))).mean(1)
    total = float(weight.sum())
    return float((weight * np.abs(both) / (spread + 1)).sum()) / total if total else 1.0


def _windows(picture: Image.Image) -> np.ndarray:
    """Luminance of overlapping windows, [N, pixels]."""
    grey = Image.fromarray(pixels(picture)).convert("L")
    grey.thumbnail((_SIDE, _SIDE))
    values = np.asarray(grey, np.float64)
    sides = tuple(min(_WINDOW, side) for side in values.shape)
    found = np.lib.stride_tricks.sliding_window_view(values, sides)[::4, ::4]
    return found.reshape(-1, sides[0] * sides[1])


def said(meaning: Meaning, before: str, after: str) -> Figure:
    """Whether a caption says the new thing, and no longer the old one.

    A word counts as often as the target prompt has it, so that a second red thing must be named
    red too.

    Args:
        meaning: what is to be said and what not.
        before: what the captioner says of the photo; where it did not name the old thing, what it
            says afterwards proves nothing.
        after: what it says of the result.
    """
    source, target = (_count(text) for text in (meaning.source, meaning.target))
    first, now = _count(before), _count(after)
    gone = [w for w in _words(meaning.gone) if target[w] < source[w]]
    new = _words(meaning.said)
    if not gone and not new:
        return Figure(None, None, None, "not known: no word tells this change")
    unseen = [w for w in gone if first[w] <= target[w]]
    if gone and len(unseen) == len(gone) and not new:
        return Figure(
            None, None, None, f"not known: the captioner did not name {_list(unseen)} in the photo"
        )
    known = [w for w in new if now[w] >= _least(w, source, target)]
    missing = [w for w in new if w not in known]
    staying = [w for w in gone if w not in unseen and now[w] > target[w]]
    if any(one.op == "remove" for one in meaning.instructions):
        # a removed thing comes back as a copy of what is beside it
        others = [w for w in target if w not in SMALL and w not in staying]
        staying += [w for w in others if now[w] > max(first[w], target[w])]
    wanted = max(len(new) + len(gone) - len(unseen), len(missing) + len(staying))
    share = 1 - (len(missing) + len(staying)) / wanted if wanted else 1.0
    if not missing and not staying:
        return Figure(True, 1.0, 1.0, f"the caption says it: {after!r}")
    if unseen and not staying and missing:
        note = f"not known: the captioner did not name {_list(unseen)} in the photo either"
        return Figure(None, round(share, 3), 1.0, note)
    parts = [f"does not say {_list(missing)}"] if missing else []
    parts += [f"still says {_list(staying)}"] if staying else []
    return Figure(False, round(share, 3), 1.0, f"the caption {' and '.join(parts)}: {after!r}")


def _least(word: str, source: Counter[str], target: Counter[str]) -> int:
    """How often a caption must have a new word."""
    return max(1, target[word]) if target[word] > source[word] else 1


def _words(texts: Sequence[str]) -> list[str]:
    """The words of phrases, each once, in lower case."""
    return list(dict.fromkeys(w.lower() for text in texts for w in words_of(text)))


def _count(text: str) -> Counter[str]:
    return Counter(w.lower() for w in words_of(text))


def _list(words: Sequence[str]) -> str:
    return ", ".join(repr(w) for w in words)


def check(
    meaning: Meaning,
    before: str,
    after: str,
    edited: Image.Image,
    reconstruction: Image.Image,
    region: np.ndarray | None,
) -> Checked:
    """All three checks of one edit.

    Args:
        meaning: what was to be done.
        before, after: captions of the photo and of the result.
        edited, reconstruction: of the photo's own size.
        region: bool [H, W], where the change belongs; None: the whole picture.
    """
    return Checked(
        acted(edited, reconstruction, region),
        kept(edited, reconstruction, region),
        said(meaning, before, after),
        after,
    )


def nothing(reason: str) -> Checked:
    """The checks of an edit that changed nothing and made no picture."""
    unknown = Figure(None, None, None, "")
    return Checked(Figure(False, 0.0, ACTED, reason), unknown, unknown, "", picture=False)


def floors() -> dict[str, float]:
    """The least that passes, for what decides a result."""
    return {"seen": SEEN, "acted": ACTED, "kept_db": KEPT_DB, "kept_shapes": KEPT_SHAPES}


def plain(checked: Checked) -> dict[str, Any]:
    """The checks for reports."""
    names = ("acted", "kept", "said")
    return {
        **{n: vars(getattr(checked, n)) for n in names},
        "caption": checked.caption,
        "passed": checked.passed,
        "failed": list(checked.failed),
    }
