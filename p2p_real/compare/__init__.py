"""Photos x inversions x edits side by side: what each reaches, what each costs.

`compare` runs them (`run`), keeps every finished cell on disk (`cells`), and makes a table
(`table`), a contact sheet (`sheet`) and one page that needs no network (`page`).
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "CompareError": "photos",
    "Comparison": "entries",
    "EditAsked": "asked",
    "MethodAsked": "asked",
    "compare": "run",
    "read_edits": "asked",
    "read_methods": "asked",
}
__all__ = [
    "CompareError",
    "Comparison",
    "EditAsked",
    "MethodAsked",
    "compare",
    "read_edits",
    "read_methods",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for, so that importing costs nothing."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
