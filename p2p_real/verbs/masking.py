"""Options that say where a picture may change."""

from __future__ import annotations

import argparse
from typing import Any


def add_masks(group: Any) -> None:
    """--mask and its kin, onto a group of an argument parser."""
    group.add_argument(
        "--mask", metavar="FILE", help="picture of the photo's size, white where it may change"
    )
    group.add_argument(
        "--mask-box",
        metavar="X0,Y0,X1,Y1",
        help="a box that may change: fractions of the picture where all four are from 0 to 1, else "
        "whole pixels",
    )
    group.add_argument(
        "--mask-from",
        metavar="SPEC",
        help="what may change, read from words:WORD (of the photo's prompt), diffedit, "
        "segment:THING, box:X0,Y0,X1,Y1 or file:FILE; joined by | (or), - (but not) from left to "
        "right, & (and) before them, ~ (not) before all, and brackets",
    )
    group.add_argument(
        "--mask-option",
        action="append",
        default=[],
        metavar="K=V",
        help="a setting of what --mask-from or --move names, such as threshold=0.4; may be "
        "repeated",
    )
    group.add_argument(
        "--segment-models",
        metavar="DINO,SAM",
        help="folders or hub ids of a GroundingDINO and a SAM, for segment:THING",
    )
    for name, text in (
        ("grow", "widen the masks by so many pixels of the photo"),
        ("shrink", "narrow them"),
        ("feather", "let their edge be soft over so many pixels, inside the mask"),
    ):
        group.add_argument(
            f"--{name}",
            type=float,
            default=0.0,
            metavar="N",
            help=f"{text}; below 1: a fraction of its shorter side (0)",
        )


def mask_control(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of an edit that say where it acts.

    Raises:
        OptionError: the models of a segmenter are given twice.
    """
    from ..numbers import OptionError
    from .options import pairs

    settings: dict[str, Any] = dict(pairs(args.mask_option, "--mask-option"))
    if args.segment_models is not None:
        if "models" in settings:
            raise OptionError("--segment-models and --mask-option models say the same: give one")
        settings["models"] = args.segment_models
    names = ("mask", "mask_from", "mask_box", "grow", "shrink", "feather")
    return {**{name: getattr(args, name) for name in names}, "mask_options": settings}


def mask_files(args: argparse.Namespace) -> list[str]:
    """The files that the masks are read from."""
    from ..masks.grammar import leaves, parse

    found = [args.mask] if args.mask else []
    if args.mask_from:
        found += [leaf.text for leaf in leaves(parse(args.mask_from)) if leaf.kind == "file"]
    return found
