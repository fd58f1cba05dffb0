"""Edit a photo by changing the words that describe it.

Examples:
  p2p-real edit cat.jpg --swap cat=dog --model sd1.5 --out dog
  p2p-real edit cat.jpg --source "a cat on a mat" --swap cat=dog --local cat --model sd1.5
  p2p-real edit cat.jpg --swap cat=dog --mask-from "words:cat" --grow 8 --feather 4 --paste-back
  p2p-real edit cat.jpg --weight fluffy=2 --style "a watercolor painting" --model sd1.5
  p2p-real edit cat.inv.safetensors --add "wearing a hat" --model sd1.5
  p2p-real edit cat.jpg --source "a cat and a bird on a mat" --excite bird --model sd1.5
  p2p-real edit --again dog/edited.png --strength 0.7 --out softer

Without --source the photo is captioned; --swap and the others then work on that caption
(p2p-real caption shows it). The folder --out gets edited.png, of the photo's own size;
reconstruction.png, the photo as the model draws it without the edit; strip.png, all side by side;
and report.json, what acted and all settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

from . import masking, options

logger = logging.getLogger(__name__)

KEPT_APART = ("out", "json", "quiet", "again", "run", "verb", "given", "begin", "photo_before")
REWRITES = ("swap", "add", "remove", "style")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photo",
        nargs="?",
        metavar="PHOTO_OR_INV",
        help="a photo, or an inversion that p2p-real invert saved",
    )
    parser.add_argument("--out", default="out", metavar="DIR", help="folder to write to (out)")
    parser.add_argument(
        "--again",
        metavar="EDITED.png",
        help="repeat the edit that made a picture, bit for bit; options given beside it win",
    )
    parser.add_argument(
        "--source", metavar="PROMPT", help="what the photo shows (default: its caption)"
    )
    options.add_edit(parser)
    options.add_also(parser)
    options.add_inversion(parser)
    options.add_sampling(parser)
    options.add_model(parser)
    options.add_output(parser)


def recall(args: argparse.Namespace) -> argparse.Namespace:
    """The options of an earlier edit, with those given now on top.

    Raises:
        SettingsError, OptionError: the picture is none of ours, or of another verb.
    """
    from ..numbers import OptionError
    from ..pictures import read_settings

    command = read_settings(args.again).get("command")
    verb = command.get("verb") if isinstance(command, dict) else None
    if verb != "edit":
        raise OptionError(
            f"--again {args.again}: it was made by 'p2p-real {verb}'; only pictures of 'p2p-real "
            "edit' can be repeated"
        )
    assert isinstance(command, dict)
    earlier = _checked(command.get("options"), args.again)
    now = args.given
    if "target" in now:  # a whole prompt takes the place of rewrites, and the other way round
        earlier = {k: v for k, v in earlier.items() if k not in REWRITES}
    elif any(name in now for name in REWRITES):
        earlier.pop("target", None)
    if "source" in now:
        earlier.pop("captioner", None)
    photo = now.get("photo", earlier.get("photo"))
    if photo and not Path(photo).is_file() and "photo" not in now:
        raise OptionError(
            f"--again {args.again}: the photo it was made of, {photo}, is not there: name it, "
            f"p2p-real edit PHOTO --again {args.again}"
        )
    again = argparse.Namespace(**{**vars(args), **earlier, **now})
    again.photo_before = None if "photo" in now else command.get("photo_sha256")
    return again


def _checked(options: Any, where: str) -> dict[str, Any]:
    """Options read from a picture, each of the kind that the command line gives.

    Raises:
        OptionError: names the one that is not.
    """
    from ..numbers import OptionError

    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    known = {a.dest: a for a in parser._actions if a.dest not in KEPT_APART}
    if not isinstance(options, dict):
        raise OptionError(f"--again {where}: its settings are damaged (no options)")
    for name, value in options.items():
        action = known.get(name)
        if action is None:
            raise OptionError(f"--again {where}: it has an option {name!r} that is not known here")
        if isinstance(action.default, list):
            good = isinstance(value, list) and all(isinstance(v, str) for v in value)
        elif isinstance(action.default, bool):
            good = isinstance(value, bool)
        elif action.type in (int, float):
            kinds = (int,) if action.type is int else (int, float)
            empty = value is None and action.default is None
            good = empty or (isinstance(value, kinds) and not isinstance(value, bool))
        else:
            good = value is None if action.default is None else False
            good = good or (isinstance(value, str) and value in (action.choices or [value]))
        if not good:
            raise OptionError(f"--again {where}: its settings are damaged ({name} is {value!r})")
    return options


def command_of(args: argparse.Namespace, verb: str) -> dict[str, Any]:
    """What repeats this run."""
    kept = {k: v for k, v in vars(args).items() if k not in KEPT_APART}
    return {"verb": verb, "options": kept}


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder
    from ..numbers import OptionError, check_edit_guidance
    from ..prompts import EditWords, PromptError

    if args.again:
        args = recall(args)
    if not args.photo:
        raise OptionError("no photo given: p2p-real edit PHOTO --swap OLD=NEW")
    options.check_sampling(args)
    if args.guidance is not None:
        check_edit_guidance(args.guidance)
    words, control = options.edit_words(args), options.edit_control(args)
    words["also"] = args.also
    wanted = EditWords(**words)
    if not wanted.any() and control["excite"]:
        if "p2p" in options.listed(args.edit):
            raise OptionError(
                "--edit p2p carries changed words over, and --excite alone changes none: leave it "
                "out, or give --swap, --add or --target too"
            )
        wanted = dataclasses.replace(wanted, same=True)
    wanted.check()
    options.check_model(args)
    if args.source is not None and not args.source.strip():
        raise PromptError("--source is empty: say what the photo shows, or leave it out")
    subject = open_subject(args)
    source, sizes, made_of = known_of(subject, args)
    prompts = None if source is None else wanted.apply(source)
    # what needs torch comes last: its import is the slowest of all these
    from ..steering import EditControl
    from ..sweeping import Range
    from .output import NAMES, describe, describe_sweep, keep_inputs, save, save_sweep

    how = EditControl(**control)
    how = how.excite_alone() if wanted.same else how
    how.check_names()
    over = None if args.sweep is None else Range.read(args.sweep).checked(how)
    if over is not None and args.also:
        raise OptionError("--sweep shows one edit: leave --also out")
    settings = options.check_inversion(args)
    if prompts is not None:
        how.check_words(prompts)
    how.check_mask(*sizes)
    if getattr(args, "photo_before", None) not in (None, made_of):
        logger.warning("%s is not the photo that the first edit was made of", args.photo)
    names = [*NAMES, "sweep.png", *(f"edited_{n + 2}.png" for n in range(len(args.also)))]
    keep_inputs(Path(args.out), args.photo, *masking.mask_files(args), names=names)
    folder = check_output_folder(args.out)
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        asked = {
            **words,
            **control,
            "source": args.source,
            "method": args.method,
            "steps": args.steps,
            "method_options": settings,
            "guidance_scale": args.guidance,
            "negative_prompt": args.negative_prompt,
            "seed": args.seed,
            "fit": args.fit,
        }
        command = command_of(args, "edit") | {"photo_sha256": made_of}
        if over is not None:
            swept = editor.sweep(subject, args.sweep, **asked)
        else:
            result = editor.edit(subject, **asked)
    if over is not None:
        report = save_sweep(swept, folder, command)
        text = describe_sweep(report)
    else:
        report = save(result, folder, command)
        text = describe(report)
    if not args.json:
        print(text)
    return report


def known_of(
    subject: Any, args: argparse.Namespace
) -> tuple[str | None, list[tuple[int, int]], str | None]:
    """The source prompt as far as it is known, the sizes a mask may have, the photo's hash.

    Raises:
        InversionError: a saved inversion does not say how the photo was fitted.
    """
    if not str(args.photo).endswith(".safetensors"):
        return args.source, [subject.size], subject.sha256
    from inversion import InversionError

    from ..fitting import Fit

    try:
        fit = Fit.from_json(subject.photo.get("fit", {}))
    except ValueError:
        raise InversionError(
            f"{args.photo}: field 'photo' does not say how the photo was fitted: invert it again"
        ) from None
    return subject.prompt, [fit.original, fit.fitted], subject.photo.get("sha256")


def open_subject(args: argparse.Namespace) -> Any:
    """The photo or the saved inversion, checked before any weight is loaded.

    Raises:
        PhotoError, InversionError: says what is wrong with the file.
        OptionError: options of an inversion that is already made.
    """
    from ..images import open_photo
    from ..numbers import OptionError
    from ..prompts import PromptError

    if not str(args.photo).endswith(".safetensors"):
        return open_photo(args.photo)
    from inversion import Inversion

    inversion = Inversion.load(Path(args.photo))
    if args.source is not None and args.source != inversion.prompt:
        raise PromptError(
            f"{args.photo} was made for the prompt {inversion.prompt!r}, not {args.source!r}: "
            "leave --source out, or invert the photo again with that prompt"
        )
    made = {
        "method": inversion.method,
        "method_option": [],
        "negative_prompt": inversion.extra.get("negative_prompt", ""),
        "steps": inversion.steps,
        "seed": inversion.extra.get("seed", 0),
        "fit": inversion.photo.get("fit", {}).get("mode"),
        "captioner": None,
    }
    for name, value in made.items():
        if name in args.given and args.given[name] != value:
            raise OptionError(
                f"--{name.replace('_', '-')} belongs to the inversion, and {args.photo} is already "
                f"made ({inversion.method}, {inversion.steps} steps): leave it out, or invert again"
            )
    return inversion
