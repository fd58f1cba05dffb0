"""Edits of rendered photos against their truth: how many do what was said, and at what cost.

The embedded world renders the exact picture that an edit should give (`truths`). Every way of
editing (`ways`) makes it (`running`), what is to be seen is read off (`reading`), how far it is
from the truth is measured (`figures`), and tables, a plot and a sheet are made (`report`).
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "KINDS": "truths",
    "TabletopError": "truths",
    "TruthEdit": "truths",
    "Way": "ways",
    "mask_iou": "figures",
    "read_kinds": "truths",
    "read_ways": "ways",
    "run": "running",
    "truth_set": "truths",
    "two_object_scenes": "truths",
}
__all__ = [
    "KINDS",
    "TabletopError",
    "TruthEdit",
    "Way",
    "mask_iou",
    "read_kinds",
    "read_ways",
    "run",
    "truth_set",
    "two_object_scenes",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for, so that importing costs nothing."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
