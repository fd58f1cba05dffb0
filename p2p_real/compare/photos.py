"""What is known of a comparison before any model is thought of: its photos and its files."""

from __future__ import annotations

from collections.abc import Sequence

from ..images import Photo

NAMES = ("compare.html", "compare.png", "results.csv", "results.json")


class CompareError(ValueError):
    """A comparison that cannot be made; the message is one line."""


def check_photos(photos: Sequence[Photo], sources: Sequence[str]) -> None:
    """Refuse no photo, equal photos, and prompts that do not match their number.

    Raises:
        CompareError: says which.
    """
    if not photos:
        raise CompareError("no photo given: name one or more")
    for n, photo in enumerate(photos):
        if any(photo.sha256 == p.sha256 for p in photos[:n]):
            raise CompareError(f"the photo {photo.name} is given twice")
    if len(sources) not in (0, 1, len(photos)):
        raise CompareError(
            f"{len(photos)} photos and {len(sources)} source prompts: give one for all, or one each"
        )
    if not all(s.strip() for s in sources):
        raise CompareError("a source prompt is empty: say what the photo shows, or leave it out")
