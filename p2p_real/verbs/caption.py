"""Describe photos in words.

Example:
  p2p-real caption cat.jpg dog.png
  p2p-real caption cat.jpg --captioner Salesforce/blip-image-captioning-large --prefix "a photo of"
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--prefix", default="", help="how the caption begins")
    parser.add_argument("--num-beams", type=int, default=3, metavar="N", help="beam search (3)")
    parser.add_argument("--sample", action="store_true", help="draw a caption instead (see --seed)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    options.add_model(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..images import open_photo
    from ..numbers import OptionError, check_numbers

    check_numbers(seed=args.seed)
    if args.num_beams < 1:
        raise OptionError(f"--num-beams {args.num_beams}: give a whole number of at least 1")
    photos = [open_photo(p) for p in args.photos]
    from ..captions import captioner_for

    captioner = captioner_for(args.captioner, args.model, args.device)
    texts = captioner.caption(
        [p.image for p in photos],
        args.prefix,
        num_beams=args.num_beams,
        sample=args.sample,
        seed=args.seed,
    )
    found = dict(zip(args.photos, texts, strict=True))
    if not args.json:
        for photo, text in found.items():
            print(text if len(found) == 1 else f"{photo}\t{text}")
    return {"captions": [{"photo": p, "caption": t} for p, t in found.items()]}
