"""Options that several verbs share, and what they are read into."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..editor import Editor
    from ..progress import Bars


def add_model(parser: argparse.ArgumentParser, *, captioner: bool = True) -> None:
    """--model and where it runs."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="tabletop",
        metavar="M",
        help="tabletop (embedded, default), sd1.4, sd1.5, sd2.1, sdxl, a hub id, a diffusers "
        "folder, or a .safetensors file",
    )
    group.add_argument("--lora", metavar="L", help="a LoRA file, folder or hub id to fuse")
    group.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda, mps, ... (default: auto)"
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="of the network (default: auto = float16 on a GPU, float32 on CPU)",
    )
    group.add_argument(
        "--offload",
        choices=("none", "model"),
        default="none",
        help="model: keep only the module in use on the GPU",
    )
    if captioner:
        group.add_argument(
            "--captioner",
            default="blip",
            metavar="C",
            help="blip (default), or a folder or hub id of a BLIP",
        )


def add_output(parser: argparse.ArgumentParser) -> None:
    """--json and --quiet."""
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on stdout, nothing else there"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars and notes")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """--steps, --guidance, --seed."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--steps", type=int, default=50, metavar="N", help="sampling steps, 1 to 1000 (default 50)"
    )
    group.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="guidance_scale (default 7.5; the embedded model has its own)",
    )
    group.add_argument("--seed", type=int, default=0, metavar="S", help="of random draws (0)")
    group.add_argument(
        "--negative-prompt",
        default="",
        metavar="P",
        help="what the picture should not be (not with null-text and negative-prompt inversion)",
    )


def add_inversion(parser: argparse.ArgumentParser) -> None:
    """--method and what belongs to it."""
    group = parser.add_argument_group("inversion")
    group.add_argument(
        "--method", metavar="M", help="inversion method (see p2p-real methods; default: direct)"
    )
    group.add_argument(
        "--method-option",
        action="append",
        default=[],
        metavar="K=V",
        help="a setting of the method, such as inner_steps=20; may be repeated",
    )
    group.add_argument(
        "--fit",
        default="resize",
        choices=("resize", "crop", "pad"),
        help="how the photo is put on the model's grid; undone exactly (default: resize)",
    )
    group.add_argument("--no-cache", action="store_true", help="neither read nor keep inversions")


def add_edit(parser: argparse.ArgumentParser) -> None:
    """What to say and how the edit acts."""
    words = parser.add_argument_group("what to change (one or more)")
    words.add_argument("--target", metavar="P", help="the whole new prompt")
    words.add_argument(
        "--swap", action="append", default=[], metavar="A=B", help="a word or phrase for another"
    )
    words.add_argument("--add", action="append", default=[], metavar="P", help="a phrase to add")
    words.add_argument("--remove", action="append", default=[], metavar="W", help="a word to drop")
    words.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="W=X",
        help="attention of a word of the new prompt times X: 2 is more of it, -1 is less",
    )
    words.add_argument("--style", metavar="P", help="such as 'a watercolor painting'")
    how = parser.add_argument_group("how it acts")
    how.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="E",
        help="edit method: p2p (default) or plain; may be repeated",
    )
    how.add_argument(
        "--edit-option", action="append", default=[], metavar="K=V", help="a setting of the edit"
    )
    how.add_argument(
        "--cross-replace",
        action="append",
        default=[],
        metavar="X",
        help="keep the photo's word maps until this fraction of the steps (0.8), or word=0.4 for "
        "one word; may be repeated",
    )
    how.add_argument(
        "--self-replace",
        type=float,
        metavar="X",
        help="keep the photo's geometry until this fraction of the steps (0.4)",
    )
    how.add_argument(
        "--local",
        action="append",
        default=[],
        metavar="W[=W]",
        help="change the picture only where this word is; old=new where its name changes",
    )
    how.add_argument(
        "--subtract", action="append", default=[], metavar="W", help="but not where this word is"
    )
    how.add_argument(
        "--local-threshold", type=float, default=0.3, metavar="X", help="of the mask (0.3)"
    )
    how.add_argument(
        "--local-start", type=float, default=0.2, metavar="X", help="of the local blend (0.2)"
    )
    how.add_argument("--mask", metavar="FILE", help="picture, white where the photo may change")
    how.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="0 changes nothing, 1 is all (1)"
    )
    how.add_argument(
        "--paste-back",
        action="store_true",
        help="the photo's own pixels outside the mask, bit for bit",
    )
    how.add_argument(
        "--explicit", action="store_true", help="make every attention map (slow reference)"
    )


def pairs(values: list[str], option: str) -> dict[str, str]:
    """``K=V`` options as a mapping.

    Raises:
        OptionError: one has no ``=``.
    """
    from ..defaults import OptionError

    found = {}
    for text in values:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise OptionError(f"{option} {text!r} is not of the form NAME=VALUE")
        found[key] = value
    return found


def edit_words(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of an edit that are words."""
    from captioning.rewrite import parse_swap, parse_weight

    return {
        "target": args.target,
        "swap": dict(parse_swap(s) for s in args.swap),
        "add": args.add,
        "remove": args.remove,
        "weight": dict(parse_weight(w) for w in args.weight),
        "style": args.style,
    }


def edit_control(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of an edit that say how it acts."""
    from ..defaults import OptionError

    cross: dict[str, float] = {}
    for text in args.cross_replace:
        word, equals, number = text.rpartition("=")
        try:
            cross[word.strip() if equals else "default_"] = float(number)
        except ValueError:
            raise OptionError(
                f"--cross-replace {text!r}: give a fraction such as 0.8, or word=0.4"
            ) from None
    local: dict[str, str] = {}
    for text in args.local:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not old or (equals and not new):
            raise OptionError(f"--local {text!r}: give a word, or old=new")
        local[old] = new or old
    return {
        "edit": tuple(args.edit) or ("p2p",),
        "edit_options": pairs(args.edit_option, "--edit-option"),
        "cross_replace": cross or None,
        "self_replace": args.self_replace,
        "local": local or None,
        "subtract": args.subtract,
        "local_threshold": args.local_threshold,
        "local_start": args.local_start,
        "mask": args.mask,
        "strength": args.strength,
        "paste_back": args.paste_back,
        "explicit": args.explicit,
    }


def bars(args: argparse.Namespace) -> Bars:
    """Progress bars, unless asked for quiet."""
    from ..progress import Bars

    return Bars(disable=args.quiet)


def check_sampling(args: argparse.Namespace) -> None:
    """Refuse numbers before any weight is loaded."""
    from ..numbers import check_numbers

    check_numbers(steps=args.steps, guidance_scale=args.guidance, seed=args.seed)


def check_inversion(args: argparse.Namespace) -> dict[str, str]:
    """Refuse an unknown method or setting before any weight is loaded; its settings."""
    from inversion import inverters

    from ..numbers import METHOD

    settings = pairs(args.method_option, "--method-option")
    inverters.create(args.method or METHOD, **settings)
    return settings


def load_editor(args: argparse.Namespace, progress: Bars) -> Editor:
    """The editor that the options ask for."""
    from ..editor import Editor

    return Editor.load(
        args.model,
        device=args.device,
        dtype=args.dtype,
        captioner=getattr(args, "captioner", "blip"),
        offload=args.offload,
        lora=args.lora,
        cache=not getattr(args, "no_cache", True),
        progress=progress,
    )
