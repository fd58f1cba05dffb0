"""Make an edit direction: what to add to a photo's words so that SRC becomes DST.

Examples:
  p2p-real direction cat dog --model sd1.5
  p2p-real edit cat.jpg --model sd1.5 --edit pix2pix-zero --direction cat2dog
  p2p-real direction day night --sentences-src day.txt --sentences-dst night.txt --model sd1.5
  p2p-real direction cat dog --sentences-model ./my-language-model --model sd1.5

The direction is the difference of the mean text embeddings of many sentences: of 255 forms of
photos of a thing, filled with both words; of two files, a sentence a line; or of what a language
model on this machine writes. It fits the model it was made with and no other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="what is there: cat, 'red ball'")
    parser.add_argument("target", metavar="DST", help="what it becomes: dog, 'blue ball'")
    parser.add_argument(
        "--out",
        metavar="D.safetensors",
        help="file to write (default: kept by its name, such as cat2dog, which --direction takes)",
    )
    group = parser.add_argument_group("where the sentences come from")
    group.add_argument("--sentences-src", metavar="F", help="a text file, a sentence of SRC a line")
    group.add_argument("--sentences-dst", metavar="F", help="the same of DST")
    group.add_argument(
        "--sentences-model", metavar="M", help="folder of a language model that writes them"
    )
    group.add_argument(
        "--count", type=int, metavar="N", help="how many sentences the language model writes (200)"
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of what the language model writes (0)"
    )
    options.add_model(parser, captioner=False)
    options.add_output(parser)


def check(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, before any weight is loaded.

    Raises:
        OptionError, DirectionError: names the option.
    """
    from ..directions.sentences import DirectionError, about
    from ..numbers import OptionError, check_numbers

    check_numbers(seed=args.seed)
    for word in (args.source, args.target):
        about(word)
    one, other = args.sentences_src, args.sentences_dst
    if (one is None) != (other is None):
        raise OptionError("--sentences-src and --sentences-dst go together: give both or none")
    if one is not None and args.sentences_model is not None:
        raise OptionError("--sentences-src and --sentences-model say the same: give one")
    if args.sentences_model is None:
        for name in ("count", "seed"):
            if name in args.given:
                raise OptionError(f"--{name} belongs to --sentences-model: leave it out")
    if one is None and args.source.split() == args.target.split():
        raise DirectionError(f"from {args.source!r} to itself is no direction: give two words")
    if args.count is not None and not 1 <= args.count <= 10000:
        raise OptionError(f"--count {args.count}: give a whole number from 1 to 10000")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..directions import expression, sentences
    from ..files import check_output_folder
    from ..numbers import OptionError

    check(args)
    options.check_model(args)
    name = expression.name_of(args.source, args.target)
    out = Path(args.out) if args.out else expression.kept_folder() / f"{name}.safetensors"
    if out.is_dir() or not out.name.endswith(".safetensors"):
        raise OptionError(f"--out {out}: give a file name that ends in .safetensors")
    texts: tuple[list[str], list[str]] | None = None
    made_by = "forms"
    if args.sentences_src is not None:
        made_by = "files"
        texts = sentences.from_file(args.sentences_src), sentences.from_file(args.sentences_dst)
    elif args.sentences_model is None:
        texts = sentences.about(args.source), sentences.about(args.target)
    check_output_folder(out.parent)
    # what needs torch comes last: its import is the slowest of all these
    from ..backbones import load_backbone
    from ..directions import Direction

    extra: dict[str, Any] = {}
    with options.bars(args) as bars:
        if texts is None:
            made_by = "model"
            from ..directions.writing import Writer

            writer = Writer.load(args.sentences_model)
            count = args.count or 200
            one, other = (
                writer.write(word, count, args.seed, bars) for word in (args.source, args.target)
            )
            texts = one, other
            extra = {
                "sentences_model": writer.name,
                "sentences_model_hash": writer.weights_hash,
                "seed": args.seed,
            }
        options.calm_threads(args.model)
        backbone = load_backbone(
            args.model, device=args.device, dtype=args.dtype, lora=args.lora, offload=args.offload
        )
        direction = Direction.between(
            backbone, *texts, words=(args.source, args.target), made_by=made_by, **extra
        )
    direction.save(out)
    counts = {side: direction.sentences[side] for side in ("source", "target")}
    if not args.json:
        print(f"{out}: {direction.name}, of {backbone.name}")
        for side, word in (("source", args.source), ("target", args.target)):
            left = counts[side]["left_out"]
            more = f", {left} too long for the text encoder" if left else ""
            print(f"{side:<8}{word}: {counts[side]['count']} sentences{more}")
        shown = repr(name) if args.out is None else repr(str(out))
        print(f"next    p2p-real edit PHOTO --model {args.model} --direction {shown}")
    return {
        "file": str(out),
        "name": direction.name,
        "source": direction.source,
        "target": direction.target,
        "made_by": direction.made_by,
        "sentences": counts,
        "size": float(direction.embeds.norm()),
        "model": direction.model,
        "model_hash": direction.model_hash,
        **direction.extra,
    }
