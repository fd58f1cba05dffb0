"""Edit a photo by changing the words that describe it.

Example:
  p2p-real edit cat.jpg --swap cat=dog --local cat=dog --model sd1.5 --out dog
  p2p-real edit cat.inv.safetensors --add "wearing a hat" --model sd1.5
  p2p-real edit cat.jpg --weight fluffy=2 --model sd1.5
  p2p-real edit --again dog/edited.png --strength 0.7 --out softer

Without --source the photo is captioned; --swap and the others then work on that caption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import options

KEPT_APART = ("out", "json", "quiet", "again", "run", "verb", "explicit_options")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photo", nargs="?", metavar="PHOTO_OR_INV", help="a photo, or a saved inversion"
    )
    parser.add_argument("--out", default="out", metavar="DIR", help="where to write (out)")
    parser.add_argument(
        "--again", metavar="EDITED.png", help="repeat the edit of a picture; other options win"
    )
    parser.add_argument("--source", metavar="P", help="what the photo shows (default: its caption)")
    options.add_edit(parser)
    options.add_inversion(parser)
    options.add_sampling(parser)
    options.add_model(parser)
    options.add_output(parser)


def given(argv: list[str]) -> dict[str, Any]:
    """Only the options that a command line really gives."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_args(argv))


def recall(args: argparse.Namespace) -> argparse.Namespace:
    """The options of an earlier edit, with those given now on top.

    Raises:
        SettingsError, OptionError: the picture is none of ours, or of another verb.
    """
    import sys

    from ..numbers import OptionError
    from ..pictures import read_settings

    settings = read_settings(args.again)
    command = settings.get("command", {})
    if command.get("verb") != "edit":
        raise OptionError(f"--again {args.again}: it was not made by 'p2p-real edit'")
    argv = sys.argv[2:] if len(sys.argv) > 1 and sys.argv[1] == "edit" else []
    now = getattr(args, "explicit_options", None) or given(argv)
    return argparse.Namespace(**{**vars(args), **command.get("options", {}), **now})


def command_of(args: argparse.Namespace, verb: str) -> dict[str, Any]:
    """What repeats this run."""
    kept = {k: v for k, v in vars(args).items() if k not in KEPT_APART}
    return {"verb": verb, "options": kept}


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder
    from ..numbers import OptionError
    from ..prompts import EditWords
    from ..steering import EditControl

    if args.again:
        args = recall(args)
    if not args.photo:
        raise OptionError("no photo given: p2p-real edit PHOTO --swap OLD=NEW")
    options.check_sampling(args)
    words, control = options.edit_words(args), options.edit_control(args)
    EditWords(**words).check()
    EditControl(**control).check_names()
    subject = open_subject(args)
    settings = options.check_inversion(args)
    folder = check_output_folder(args.out)
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        result = editor.edit(
            subject,
            **words,
            source=args.source,
            method=args.method,
            steps=args.steps,
            method_options=settings,
            guidance_scale=args.guidance,
            negative_prompt=args.negative_prompt,
            seed=args.seed,
            fit=args.fit,
            **control,
        )
    from .output import describe, save

    report = save(result, folder, command_of(args, "edit"))
    if not args.json:
        print(describe(report))
    return report


def open_subject(args: argparse.Namespace) -> Any:
    """The photo or the saved inversion, checked before any weight is loaded.

    Raises:
        PhotoError, InversionError: says what is wrong with the file.
        OptionError: options of an inversion that is already made.
    """
    from ..images import open_photo
    from ..numbers import OptionError

    if not str(args.photo).endswith(".safetensors"):
        return open_photo(args.photo)
    from inversion import Inversion

    inversion = Inversion.load(Path(args.photo))
    made = {
        "--method": args.method is not None and args.method != inversion.method,
        "--method-option": bool(args.method_option),
        "--negative-prompt": bool(args.negative_prompt),
        "--steps": args.steps not in (50, inversion.steps),
    }
    for option, clashes in made.items():
        if clashes:
            raise OptionError(
                f"{option} belongs to the inversion, and {args.photo} is already made "
                f"({inversion.method}, {inversion.steps} steps): leave it out, or invert again"
            )
    return inversion
