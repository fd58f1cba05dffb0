"""Photos edited by an instruction in plain words, without prompts: ``p2p-real auto``.

A photo is captioned, the instruction understood (:mod:`captioning.understanding`), the photo
inverted and edited (`deciding`: with what settings), the result checked without a truth
(`checking`), and where a check fails edited once more with other settings. Every decision is in the
report.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "AutoError": "asked",
    "AutoResult": "results",
    "Settings": "settings",
    "auto": "front",
    "read_asked": "asked",
}
__all__ = ["AutoError", "AutoResult", "Settings", "auto", "read_asked"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for, so that importing costs nothing."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
