"""Photo to words: caption a photo, and rewrite the caption into the prompts of an edit."""

from captioning.captioner import Captioner, CaptionerError
from captioning.instructions import Instruction, NotUnderstood, parse_instruction
from captioning.registry import UnknownCaptioner, captioners, load_captioner
from captioning.rewrite import Rewrite, WordNotInPrompt
from captioning.understanding import Meaning, understand

__all__ = [
    "Captioner",
    "CaptionerError",
    "Instruction",
    "Meaning",
    "NotUnderstood",
    "Rewrite",
    "UnknownCaptioner",
    "WordNotInPrompt",
    "captioners",
    "load_captioner",
    "parse_instruction",
    "understand",
]
