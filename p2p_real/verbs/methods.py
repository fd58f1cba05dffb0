"""List the inversion and edit methods and the sources of masks: settings, cost, exactness, paper.

Examples:
  p2p-real methods
  p2p-real methods null-text
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="METHOD", help="only this one, such as null-text"
    )
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="for the cost (50)")
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from edit import edits
    from inversion.registry import UnknownMethod

    from ..choosing import inversions
    from ..masks import mask_sources
    from ..numbers import METHOD, check_numbers

    check_numbers(steps=args.steps)
    found: dict[str, list[dict[str, Any]]] = {"inversions": [], "edits": [], "masks": []}
    registries = {"inversions": inversions, "edits": edits, "masks": mask_sources}
    for kind, registry in registries.items():
        for name in registry:  # type: ignore[attr-defined]
            if args.name in (None, name):
                found[kind].append(_row(registry, name, args.steps))
    if args.name and not any(found.values()):
        known = ", ".join([*inversions, *edits, *mask_sources])
        raise UnknownMethod(f"no method {args.name!r}; there are: {known}")
    if not args.json:
        for kind, rows in found.items():
            print(f"{kind}:" if rows else "", end="\n" if rows else "")
            for row in rows:
                default = " (default)" if row["name"] in (METHOD, "p2p") else ""
                print(f"  {row['name']}{default} - {row['about']}")
                print(f"      {row['paper']}")
                if "unet_rows" in row:
                    exact = "exact" if row["exact"] else "not exact"
                    print(f"      {exact}; {row['unet_rows']} UNet rows at {args.steps} steps")
                for s in row["settings"]:
                    print(f"      {s['name']}={s['default']}  {s['help']}")
    return found


def _row(registry: Any, name: str, steps: int) -> dict[str, Any]:
    cls = registry[name]
    row: dict[str, Any] = {
        "name": name,
        "about": (cls.__doc__ or "").strip().split("\n")[0],
        "paper": cls.paper,
        "settings": [
            {"name": f.name, "default": f.default, "help": f.metadata.get("help", "")}
            for f in dataclasses.fields(cls)
        ],
    }
    if hasattr(cls, "forwards"):
        row |= {
            "unet_rows": cls().forwards(steps),
            "exact": cls.exact,
            "needs_gradients": cls.needs_grad,
        }
    return row
