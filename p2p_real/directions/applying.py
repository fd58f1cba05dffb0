"""A direction beside an edit's words: read, checked, and added to the target's text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from inversion import TextCond

from .direction import Direction
from .expression import resolve

if TYPE_CHECKING:
    from ..backbones.base import Backbone
    from ..prompts import EditWords, Prompts


def settled(words: EditWords, backbone: Backbone) -> EditWords:
    """The words with their direction read and found to be the model's.

    Raises:
        DirectionError: it cannot be read, or is another model's.
    """
    direction = words.direction
    if direction is None:
        return words
    if isinstance(direction, str):
        direction = resolve(direction)
    direction.check_model(backbone)
    return dataclasses.replace(words, direction=direction)


def target_text(backbone: Backbone, prompts: Prompts, size: tuple[int, int]) -> TextCond:
    """The conditioning of source and targets, a row each; a direction is added to the targets'."""
    cond = backbone.encode_text([prompts.source, *prompts.targets], size)
    if not isinstance(prompts.direction, Direction):
        return cond
    moved = [prompts.direction.move(cond.rows([b])) for b in range(1, len(cond))]
    return TextCond.cat([cond.rows([0]), *moved])


def summary(direction: str | Direction | None) -> dict[str, Any] | None:
    """A direction for reports: its name, hash and parts."""
    if not isinstance(direction, Direction):
        return None
    return {"name": direction.name, "sha256": direction.sha256, "parts": direction.parts()}
