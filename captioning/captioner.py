"""What every captioner can do, whatever library is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image


class CaptionerError(ValueError):
    """A captioner cannot be loaded or asked for this; the message is one line with a remedy."""


@runtime_checkable
class Captioner(Protocol):
    """A model that puts photos into words."""

    @property
    def name(self) -> str:
        """What reports call it: the method and where its weights came from."""
        ...

    def caption(
        self,
        images: Sequence[Image.Image],
        prefix: str = "",
        *,
        num_beams: int = 3,
        sample: bool = False,
        seed: int = 0,
        max_new_tokens: int = 30,
    ) -> list[str]:
        """One caption a picture, in order; the same whether asked one by one or together.

        Args:
            images: PIL pictures of any size and mode.
            prefix: Words that every caption begins with ("a photo of").
            num_beams: Beams of the search; 1 is greedy. Not used when sampling.
            sample: Draw from the nucleus (top-p 0.9) instead of searching.
            seed: Seed of the draw; the global random state is left as it was.
            max_new_tokens: At most so many tokens after the prefix.
        """
        ...


def check_question(images: object, num_beams: int, max_new_tokens: int) -> None:
    """Refuses what no captioner can be asked.

    Raises:
        CaptionerError: One picture instead of a list, or a number below 1.
    """
    if not isinstance(images, Sequence):
        raise CaptionerError("caption takes a list of pictures; put the one into a list")
    if num_beams < 1 or max_new_tokens < 1:
        raise CaptionerError(
            f"beams ({num_beams}) and new tokens ({max_new_tokens}) must be at least 1"
        )
