"""p2p-real: edit a real photo by changing the words that describe it."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Editor": "p2p_real.editor",
    "EditResult": "p2p_real.editor",
    "Inversion": "inversion",
    "load_backbone": "p2p_real.backbones",
}
__all__ = ["EditResult", "Editor", "Inversion", "load_backbone"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for, so that importing costs nothing."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'p2p_real' has no attribute {name!r}")
