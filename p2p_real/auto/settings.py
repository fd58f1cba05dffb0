"""What all photos of a call share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import defaults
from ..choosing import inversions
from .asked import AutoError

BATCH = 4


@dataclass(frozen=True)
class Settings:
    """What all photos of a call share; as in :meth:`p2p_real.Editor.invert`.

    Args:
        caption: what the photos show, for all; None asks the captioner.
        retry: try once more where a check fails.
        batch: photos captioned and inverted together.
    """

    caption: str | None = None
    method: str | None = None
    method_options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = defaults.STEPS
    guidance_scale: float | None = None
    negative_prompt: str = ""
    seed: int = 0
    fit: str = "resize"
    retry: bool = True
    batch: int = BATCH

    def check(self) -> None:
        """Refuse what cannot be used, before any weight is loaded.

        Raises:
            UnknownMethod, SettingError, OptionError, AutoError: names it.
        """
        defaults.check_numbers(steps=self.steps, guidance_scale=self.guidance_scale, seed=self.seed)
        inversions.create(self.method or defaults.METHOD, **dict(self.method_options))
        if self.caption is not None and not self.caption.strip():
            raise AutoError("the caption is empty: say what the photos show, or leave it out")
        if self.batch < 1:
            raise AutoError(f"--batch {self.batch}: give a whole number of 1 or more")
