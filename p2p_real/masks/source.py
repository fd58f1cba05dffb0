"""What a mask is read from: the base of the sources, and what they may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from inversion import Inversion
from inversion.registry import Registry, check_settings
from inversion.sampling import Progress, quiet

from ..fitting import Fit

if TYPE_CHECKING:
    from ..backbones.base import Backbone


@dataclass
class Subject:
    """All that a mask source may look at; what is long to make is made when it is first asked for.

    Args:
        fit: how the photo is put on the model's grid.
        picture: gives the photo at its own size.
        backbone: the network.
        recorded: gives the photo's inversion.
        target: the new prompt, or None.
        seed: of every random draw.
        progress: called through long work.
    """

    fit: Fit
    picture: Callable[[], Image.Image]
    backbone: Backbone
    recorded: Callable[[], Inversion]
    target: str | None = None
    seed: int = 0
    progress: Progress = field(default=quiet)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo."""
        return self.fit.original

    @cached_property
    def inversion(self) -> Inversion:
        """The photo's recorded path and its prompt."""
        return self.recorded()


class MaskSource:
    """A kind of source; subclasses are frozen dataclasses whose fields are their settings.

    Attributes:
        name: how it is called in front of the colon.
        paper: title and arXiv id, or what else it is.
        about: its text after the colon, for tables.
        looks: whether it looks at the photo through the network.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    about: ClassVar[str] = ""
    looks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_settings(self)

    def check(
        self, text: str, *, sizes: tuple[tuple[int, int], ...] = (), source: str | None = None
    ) -> None:
        """Refuse a text that can make no mask, before any weight is loaded.

        Args:
            text: what stands after the colon.
            sizes: (width, height) that a mask of the photo may have, where known.
            source: the photo's prompt, where known.

        Raises:
            ValueError: one line that says what is wrong.
        """

    def read(self, text: str, subject: Subject) -> np.ndarray:
        """The mask [H, W] in [0, 1] of the photo's size, float32."""
        raise TypeError(f"{type(self).__name__} is abstract: it does not say how to read a mask")


mask_sources: Registry[MaskSource] = Registry("mask", "p2p_real.masks.sources")
