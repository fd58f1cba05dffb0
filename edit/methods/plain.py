"""No control at all: the target prompt alone, from the photo's latents. The cheap baseline."""

from __future__ import annotations

from collections.abc import Sequence

from ..control import Control
from ..method import EditContext, EditMethod, edits


@edits.register("plain")
class Plain(EditMethod):
    """The new prompt and nothing else: what the edit would be without attention control."""

    paper = "the baseline of Prompt-to-Prompt, arXiv 2208.01626"

    def controls(self, context: EditContext) -> Sequence[Control]:
        return ()
