"""Edit directions: what two sets of sentences differ by, to be added to a photo's own words.

Paper: Zero-shot Image-to-Image Translation (arXiv 2302.03027), section 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sentences import DirectionError

if TYPE_CHECKING:
    from .direction import Direction

__all__ = ["Direction", "DirectionError"]


def __getattr__(name: str) -> object:
    if name == "Direction":  # needs torch
        from .direction import Direction

        return Direction
    raise AttributeError(name)
