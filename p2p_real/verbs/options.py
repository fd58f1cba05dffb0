"""Options that several verbs share, and what they are read into."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import masking

if TYPE_CHECKING:
    from ..editor import Editor
    from ..progress import Bars

V = TypeVar("V")


def add_model(parser: argparse.ArgumentParser, *, captioner: bool = True) -> None:
    """--model and where it runs."""
    group = parser.add_argument_group("the model")
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
        help="precision of the network (default: auto = float16 on a GPU, float32 on CPU)",
    )
    group.add_argument(
        "--offload",
        choices=("none", "model"),
        default="none",
        help="model: keep only the part in use on the GPU, for little memory (default: none)",
    )
    if captioner:
        group.add_argument(
            "--captioner",
            default="blip",
            metavar="C",
            help="who describes a photo that comes without words: blip (default), blip2, lavis, or "
            "a folder or hub id of one of them",
        )


def add_output(parser: argparse.ArgumentParser) -> None:
    """--json and --quiet."""
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on stdout, nothing else there"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bars and notes, only warnings and errors"
    )


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
        help="guidance_scale: how strongly the words are followed, 0 to 100 (default 7.5, or what "
        "suits the model or was used to invert)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of all random draws, where there are any (0)",
    )
    group.add_argument(
        "--negative-prompt",
        default="",
        metavar="P",
        help="what the picture should not be; null-text and negative-prompt inversion take none",
    )


def add_inversion(parser: argparse.ArgumentParser) -> None:
    """--method and what belongs to it."""
    group = parser.add_argument_group("inversion")
    group.add_argument(
        "--method",
        metavar="M",
        help="how the latents are found (default: auto, the cheapest that comes near enough; "
        "p2p-real methods)",
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
        help="how the photo is put on the model's grid: whole and scaled, its middle, or whole "
        "with a border; undone at the end (default: resize)",
    )
    group.add_argument("--no-cache", action="store_true", help="neither read nor keep inversions")


def add_edit(parser: argparse.ArgumentParser) -> None:
    """What to say and how the edit acts."""
    words = parser.add_argument_group(
        "what to change",
        "One or more of these; --swap, --add, --remove and --weight may be repeated.\n"
        "word#2 is the second one where a word stands several times; phrases go in quotes.",
    )
    words.add_argument("--target", metavar="P", help="the whole new prompt, instead of swaps")
    words.add_argument(
        "--swap",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="a word or phrase for another",
    )
    words.add_argument(
        "--add", action="append", default=[], metavar="P", help="a phrase at the end"
    )
    words.add_argument("--remove", action="append", default=[], metavar="W", help="a word to drop")
    words.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="W=X",
        help="attention of a word of the new prompt times X: 2 is more of it, 0 none, -2 its "
        "contrary",
    )
    words.add_argument("--style", metavar="P", help="what it becomes: 'a watercolor painting'")
    words.add_argument(
        "--direction",
        metavar="D",
        help="an edit direction (p2p-real direction) that is added to the new prompt, or to the "
        "photo's own: a file, a kept name, or a sum such as 'cat2dog*0.8 + day2night*0.5'",
    )
    for name, value, text in (
        (
            "move",
            "RIGHT,DOWN",
            "let an object go so far, in fractions of the picture: 'red ball=0.3,0'",
        ),
        ("resize", "X", "make an object so many times as large"),
    ):
        words.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar=f"WHAT={value}",
            help=f"{text}; WHAT is words of the photo's prompt, or a mask such as "
            "box:0.1,0.2,0.5,0.6; alone, without a change of words",
        )
    how = parser.add_argument_group("how it acts")
    how.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="E",
        help="edit method, default p2p (see p2p-real methods); several act together: p2p,pnp",
    )
    how.add_argument(
        "--excite",
        action="append",
        default=[],
        metavar="W1,W2",
        help="words of the new prompt that the picture must show, though it tends to leave them "
        "out; alone, without a change of words, it makes the picture show words of its own prompt",
    )
    how.add_argument(
        "--edit-option",
        action="append",
        default=[],
        metavar="K=V",
        help="a setting of the edit method, such as self_scale=1; may be repeated",
    )
    how.add_argument(
        "--cross-replace",
        action="append",
        default=[],
        metavar="X",
        help="keep where each word was seen in the photo until this fraction of the steps: 1 holds "
        "shapes most, 0 not at all (0.8; 0.4 where a whole phrase comes or goes, 0.2 where light, "
        "weather or season change; tabletop 0.7, 0.05 for what comes, 0.1); from:to for a window; "
        "word=0.4 for one word of the new prompt; may be repeated",
    )
    how.add_argument(
        "--self-replace",
        type=float,
        metavar="X",
        help="keep the photo's layout and shapes until this fraction of the steps (0.4; 0.2 where "
        "a whole phrase comes or goes, or light, weather or season change; tabletop 0.4, 0.05 for "
        "what comes, 0.1 for what goes, 0.4)",
    )
    how.add_argument(
        "--local",
        action="append",
        default=[],
        metavar="WORD",
        help="change the picture only where this word is seen, under its old or its new name; "
        "may be repeated (tabletop takes the words of the change itself)",
    )
    how.add_argument(
        "--no-local",
        action="store_true",
        help="let the whole picture change, where the model's preset has a blend of its own",
    )
    how.add_argument(
        "--subtract",
        action="append",
        default=[],
        metavar="W",
        help="but not where this word is seen",
    )
    how.add_argument(
        "--local-threshold",
        type=float,
        default=0.3,
        metavar="X",
        help="how strongly a place must show the word of --local: less is a larger area (0.3)",
    )
    how.add_argument(
        "--local-start",
        type=float,
        default=0.2,
        metavar="X",
        help="fraction of the steps from which on --local acts (0.2)",
    )
    masking.add_masks(how)
    how.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="0 changes nothing, 1 is all (1)"
    )
    how.add_argument(
        "--paste-back",
        action="store_true",
        help="the photo's own pixels outside the area of --local and of the masks, bit for bit",
    )
    how.add_argument(
        "--explicit",
        action="store_true",
        help="make every attention map: slower, the same picture; for checking",
    )


def add_also(parser: argparse.ArgumentParser, *, sweep: bool = True) -> None:
    """--also and, where there is an inversion to do it from, --sweep."""
    group = parser.add_argument_group("more than one picture")
    group.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PROMPT",
        help="another whole prompt, edited in the same run beside the first; may be repeated",
    )
    if not sweep:
        return
    group.add_argument(
        "--sweep",
        metavar="NAME=FROM:TO:COUNT",
        help="the same edit over a range, as a sheet: strength=0:1:6, guidance=1,2,4, "
        "self_replace=0:1:5, or any number among the edit's settings",
    )


def keyed(found: Iterable[tuple[str, V]], option: str) -> dict[str, V]:
    """Names and values of an option that may be repeated.

    Raises:
        OptionError: a name is given twice.
    """
    from ..numbers import OptionError

    result: dict[str, V] = {}
    for name, value in found:
        if name in result:
            raise OptionError(f"{option} gives {name!r} twice: leave one out")
        result[name] = value
    return result


def pairs(values: list[str], option: str) -> dict[str, str]:
    """``K=V`` options as a mapping.

    Raises:
        OptionError: one has no ``=``, or two have one key.
    """
    from ..numbers import OptionError

    found = []
    for text in values:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise OptionError(f"{option} {text!r}: give NAME=VALUE")
        found.append((key.replace("-", "_"), value))
    return keyed(found, option)


def edit_words(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of an edit that are words."""
    from captioning.rewrite import parse_swap, parse_weight

    from ..moving import split

    return {
        "target": args.target,
        "swap": keyed((parse_swap(s) for s in args.swap), "--swap"),
        "add": args.add,
        "remove": args.remove,
        "weight": keyed((parse_weight(w) for w in args.weight), "--weight"),
        "style": args.style,
        "direction": args.direction,
        "move": keyed((split(m, "--move") for m in args.move), "--move"),
        "resize": keyed((split(m, "--resize") for m in args.resize), "--resize"),
    }


def listed(values: list[str]) -> tuple[str, ...]:
    """An option that may be repeated or hold several, separated by commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def edit_control(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of an edit that say how it acts."""
    from ..numbers import OptionError

    cross, local = [], []
    for text in args.cross_replace:
        word, equals, number = text.rpartition("=")
        low, colon, high = number.partition(":")
        try:
            window = (float(low), float(high)) if colon else float(number)
        except ValueError:
            raise OptionError(
                f"--cross-replace {text!r}: give a fraction such as 0.8, a window such as 0.1:0.8, "
                "or word=0.4"
            ) from None
        cross.append((word.strip() if equals else "default_", window))
    for text in args.local:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not old or (equals and not new):
            raise OptionError(f"--local {text!r}: give a word, or old=new")
        local.append((old, new or old))
    if local and args.no_local:
        raise OptionError("--local and --no-local: give one")
    edit = listed(args.edit) or (("move",) if args.move or args.resize else ("p2p",))
    masks = masking.mask_control(args)
    masked = any(masks.get(name) is not None for name in ("mask", "mask_from", "mask_box"))
    if args.no_local and (masked or "p2p" not in edit):
        raise OptionError("--no-local: only p2p without a mask blends by itself: leave it out")
    return {
        "edit": edit,
        "excite": listed(args.excite),
        "edit_options": pairs(args.edit_option, "--edit-option"),
        "cross_replace": keyed(cross, "--cross-replace") or None,
        "self_replace": args.self_replace,
        "local": () if args.no_local else keyed(local, "--local") or None,
        "subtract": args.subtract,
        "local_threshold": args.local_threshold,
        "local_start": args.local_start,
        **masks,
        "strength": args.strength,
        "paste_back": args.paste_back,
        "explicit": args.explicit,
    }


def bars(args: argparse.Namespace) -> Bars:
    """Progress bars, unless asked for quiet."""
    from ..progress import Bars

    return Bars(disable=args.quiet, begin=args.begin)


def check_sampling(args: argparse.Namespace) -> None:
    """Refuse numbers before any weight is loaded."""
    from ..numbers import OptionError, check_numbers

    check_numbers(steps=args.steps, guidance_scale=args.guidance, seed=args.seed)
    if args.negative_prompt.strip() and args.guidance == 1:
        raise OptionError(
            "--negative-prompt has no effect at --guidance 1, which never asks for it: give a "
            "higher guidance"
        )


def check_inversion(args: argparse.Namespace) -> dict[str, str]:
    """Refuse an unknown method or setting before any weight is loaded; its settings."""
    from ..choosing import inversions
    from ..numbers import METHOD, check_negative

    settings = pairs(args.method_option, "--method-option")
    check_negative(inversions.create(args.method or METHOD, **settings), args.negative_prompt)
    return settings


def check_model(args: argparse.Namespace) -> None:
    """Refuse an unknown model, device or captioner before any weight is loaded."""
    from ..backbones.names import ALIASES, MOVED, find_model

    if args.model not in (*ALIASES, *MOVED):  # those are known, and get their notice later
        find_model(args.model)
    if args.device != "auto" or args.offload != "none":
        from ..backbones.placement import check_offload, pick_device

        check_offload(args.offload, pick_device(args.device))
    if hasattr(args, "captioner"):
        check_captioner(args)


def check_captioner(args: argparse.Namespace) -> None:
    """Refuse an unknown captioner, and one that would have nothing to do.

    Raises:
        UnknownCaptioner, OptionError: says what there is, or why it is not needed.
    """
    from captioning.registry import check_captioner

    from ..numbers import OptionError

    name = args.captioner
    if "/" not in name and not Path(name).exists():
        check_captioner(name)
    for option in ("source", "prompt"):
        if getattr(args, option, None) is not None and "captioner" in args.given:
            raise OptionError(
                f"--captioner is not needed: --{option} says what the photo shows; leave one out"
            )


def load_editor(args: argparse.Namespace, progress: Bars) -> Editor:
    """The editor that the options ask for."""
    from ..editor import Editor

    calm_threads(args.model)
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


def calm_threads(model: str) -> None:
    """One thread for the embedded model, unless OMP_NUM_THREADS says otherwise.

    Its layers are too small to share out: a second thread gains nothing on a quiet machine, and on
    a busy one the threads wait for each other at every layer.
    """
    import os

    if model == "tabletop" and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)
