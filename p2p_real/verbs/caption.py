"""Describe photos in words.

Examples:
  p2p-real caption cat.jpg dog.png
  p2p-real caption cat.jpg --model sd1.5
  p2p-real caption cat.jpg --captioner Salesforce/blip-image-captioning-large --prefix "a photo of"
  p2p-real caption cat.jpg --captioner blip2
  p2p-real caption cat.jpg --captioner lavis

The embedded model tabletop has a BLIP of its own, for its own small world; photos of anything else
need another --model, or a --captioner: blip, blip2, a folder or hub id of one of them, or lavis,
whose environment p2p-real doctor --make-lavis-env makes, or a folder of its two files.
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="one or more picture files")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="how the caption begins")
    parser.add_argument(
        "--num-beams", type=int, default=3, metavar="N", help="width of the beam search (3)"
    )
    parser.add_argument(
        "--sample", action="store_true", help="draw a caption by chance instead of the likeliest"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of --sample (0)")
    options.add_model(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..images import open_photo
    from ..numbers import OptionError, check_numbers

    check_numbers(seed=args.seed)
    if not 1 <= args.num_beams <= 64:
        raise OptionError(f"--num-beams {args.num_beams}: give a whole number from 1 to 64")
    if args.sample and "num_beams" in args.given:
        raise OptionError("--num-beams has no effect beside --sample: leave one out")
    for name, kept in (("lora", None), ("dtype", "auto"), ("offload", "none")):
        if getattr(args, name) != kept:
            raise OptionError(
                f"--{name} is of the editing model, which no caption needs: leave it out"
            )
    options.check_model(args)
    photos = [open_photo(p) for p in args.photos]
    from ..backbones.placement import pick_device
    from ..captions import captioner_for

    captioner = captioner_for(args.captioner, args.model, str(pick_device(args.device)))
    texts = captioner.caption(
        [p.image for p in photos],
        args.prefix,
        num_beams=args.num_beams,
        sample=args.sample,
        seed=args.seed,
    )
    if not args.json:
        for photo, text in zip(args.photos, texts, strict=True):
            print(text if len(texts) == 1 else f"{photo}\t{text}")
    return {
        "captions": [{"photo": p, "caption": t} for p, t in zip(args.photos, texts, strict=True)]
    }
