"""Measure: speed ratios against diffusers and against the published code, in one run.

Example:
  p2p-real bench speed --out runs/speed
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("speed",), help="speed: ratios on this machine")
    parser.add_argument("--out", default="bench", metavar="DIR", help="where to write (bench)")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder

    folder = check_output_folder(args.out)
    from ..bench import speed

    with options.bars(args) as bars:
        result = speed.run(folder, quick=args.quick, progress=bars)
    if not args.json:
        print((folder / "table.md").read_text(encoding="utf-8"))
        print(f"{folder}/results.csv, table.md, manifest.json")
    return result
