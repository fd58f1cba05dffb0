"""Photo to words: caption a photo, and rewrite the caption into the prompts of an edit."""

from captioning.captioner import Captioner, CaptionerError
from captioning.registry import UnknownCaptioner, captioners, load_captioner
from captioning.rewrite import Rewrite, WordNotInPrompt

__all__ = [
    "Captioner",
    "CaptionerError",
    "Rewrite",
    "UnknownCaptioner",
    "WordNotInPrompt",
    "captioners",
    "load_captioner",
]
