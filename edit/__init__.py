"""What an edit changes on the way down: words, windows, attention controls and masks."""

from .attention import ControlStack, sites_of
from .blend import FixedMask, LocalBlend
from .control import Control, NothingActed, Site
from .method import EditContext, EditMethod, edits
from .plan import BlendWords, Plan, make_plan
from .store import AttentionStore, SelfStore
from .words import PromptTooLong, Tokens, WordNotFound

__all__ = [
    "AttentionStore",
    "BlendWords",
    "Control",
    "ControlStack",
    "EditContext",
    "EditMethod",
    "FixedMask",
    "LocalBlend",
    "NothingActed",
    "Plan",
    "PromptTooLong",
    "SelfStore",
    "Site",
    "Tokens",
    "WordNotFound",
    "edits",
    "make_plan",
    "sites_of",
]
