"""The base of edit methods: settings that become controls, before any weight is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from inversion.registry import Registry, check_settings

from .control import Control
from .words import Tokens


@dataclass(frozen=True)
class EditContext:
    """All that a method may know when it makes its controls; nothing of the photo.

    Args:
        source: tokens of the photo's prompt.
        targets: tokens of each wanted prompt.
        steps: number of sampling steps.
        latent_size: (h, w) of the latents.
        first_step: index of the first step that is walked. Windows are fractions of the whole walk;
            ``compat`` settings count from that step as published code does.
    """

    source: Tokens
    targets: tuple[Tokens, ...]
    steps: int
    latent_size: tuple[int, int]
    first_step: int = 0

    def scale_near(self, side: int = 16) -> int:
        """The scale at which the shorter side of a map is nearest to ``side`` (4 for SD at 512),
        but never coarser than a quarter of the latents."""
        scale = 1
        while scale < 4 and min(self.latent_size) / (2 * scale) >= 0.75 * side:
            scale *= 2
        return scale


class EditMethod:
    """An edit method; subclasses are frozen dataclasses whose fields are their settings."""

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_settings(self)

    def controls(self, context: EditContext) -> Sequence[Control]:
        """What acts during the walk, in order.

        Raises:
            WordNotFound: a setting names a word that is not in its prompt.
        """
        raise TypeError(f"{type(self).__name__} is abstract: it does not say what acts")

    def at_strength(self, strength: float) -> EditMethod:
        """The same method, weaker: 0 changes nothing, 1 is the method as set."""
        return self


edits: Registry[EditMethod] = Registry("edit", "edit.methods")
