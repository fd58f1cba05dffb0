"""Edit photos by saying in plain words what to do: no prompts, no settings.

Examples:
  p2p-real auto cup.png --do "make the cup blue"
  p2p-real auto holiday/ --do "at night" --model sdxl --out night
  p2p-real auto a.png b.png --do "turn the cube into a cylinder and make it green"
  p2p-real auto cup.png --do "remove the mug" --dry-run
  p2p-real auto --do-file jobs.csv --out edited

Each photo is captioned, the instruction is understood by that caption, the photo is inverted and
edited, and the result is checked: did the picture change where it was to change, is the rest kept,
and does the captioner say the new thing of the result. Where a check fails, the photo is edited
once more with other settings, chosen by what failed, and the better try is kept. Each photo ends as
done, done after a retry, could not (its picture is written all the same, and its name, or for one
photo the report, says so), or skipped (it cannot be read, or the instruction does not fit what it
shows).

What can be said:
{forms}

One photo gets the files of p2p-real edit in --out; several get a picture each under the photo's
name, and sheet.png (before, after). report.json holds every decision and figure. A run that was
stopped goes on where it was when the same command is given again. The exit code is 0 also where
some photos could not be edited: the last line counts them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from captioning.instructions import FORMS

from . import options
from .edit import command_of

logger = logging.getLogger(__name__)
_SAID = "\n".join(f"  {form:<52}{example}" for form, example in FORMS)
__doc__ = (__doc__ or "").format(forms=_SAID)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="photos, or folders of photos")
    parser.add_argument("--do", metavar="TEXT", help="what to do, in one or several clauses")
    parser.add_argument(
        "--do-file",
        metavar="FILE",
        help="instead of both: a .csv with the columns photo,instruction, or a .jsonl of objects "
        "with these two; photos are named from where the file lies",
    )
    parser.add_argument("--out", default="auto", metavar="DIR", help="folder to write to (auto)")
    parser.add_argument(
        "--caption",
        "--source",
        "--prompt",
        dest="caption",
        metavar="TEXT",
        help="what the photos show, for all of them (default: each one's caption)",
    )
    parser.add_argument(
        "--no-retry", action="store_true", help="keep the first try, whatever the checks say"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what is understood and what would be done; only the captioner is loaded",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=4,
        metavar="N",
        help="caption and invert so many photos together (4): less is less memory",
    )
    options.add_inversion(parser)
    options.add_sampling(parser)
    options.add_model(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..auto.asked import AutoError, read_asked
    from ..auto.report import describe, keep_photos, line_of
    from ..files import check_output_folder
    from ..images import open_photo

    options.check_sampling(args)
    photos, texts = _photos_and_texts(args)
    asked = read_asked(photos, texts)
    single = len(asked) == 1 and not any(Path(p).is_dir() for p in photos)
    if len(asked) == 1:
        open_photo(asked[0].photo)  # of several, those that cannot be read are told at the end
    options.check_model(args)
    method_options = options.check_inversion(args)
    # what needs torch comes last: its import is the slowest of all these
    from ..auto.report import Writer
    from ..auto.running import pipeline
    from ..auto.settings import Settings

    settings = Settings(
        caption=args.caption,
        method=args.method,
        method_options=method_options,
        steps=args.steps,
        guidance_scale=args.guidance,
        negative_prompt=args.negative_prompt,
        seed=args.seed,
        fit=args.fit,
        retry=not args.no_retry,
        batch=args.batch,
    )
    settings.check()
    if args.dry_run:
        return _dry_run(args, asked)
    keep_photos(Path(args.out), asked, single=single)
    folder = check_output_folder(args.out)
    writer = Writer(folder, command_of(args, "auto"), single=single)
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        for result in pipeline(editor, settings, out=folder, progress=bars).each(asked):
            writer.add(result)
    report = writer.end()
    found = report["summary"]
    if found["skipped"] == found["photos"]:
        more = "" if single else f" ({folder / 'report.json'} has all reasons), the first"
        raise AutoError(f"no photo could be edited{more}: {report['photos'][0]['why']}")
    if not args.json:
        print(describe(report))
    elif found["could not"] or found["skipped"]:
        logger.warning("%s", line_of(found))
    return report


def _photos_and_texts(args: argparse.Namespace) -> tuple[list[Any], list[str]]:
    """What is asked for, of the options or of a file.

    Raises:
        OptionError: both or neither; AutoError: a file that cannot be read.
    """
    from ..auto.asked import read_file
    from ..numbers import OptionError

    if args.do_file is not None:
        if args.photos or args.do is not None:
            raise OptionError("--do-file names photos and instructions: leave PHOTO and --do out")
        photos, texts = read_file(args.do_file)
        return list(photos), texts
    if args.do is None:
        raise OptionError("what is to be done? give --do, such as --do 'make the ball blue'")
    return list(args.photos), [args.do]


def _dry_run(args: argparse.Namespace, asked: list[Any]) -> dict[str, Any]:
    from ..auto.asked import AutoError
    from ..auto.dry import describe, dry_run
    from ..backbones.placement import pick_device
    from ..captions import captioner_for

    def captioner() -> Any:
        options.calm_threads(args.model)
        return captioner_for(args.captioner, args.model, str(pick_device(args.device)))

    report = dry_run(asked, args.caption, captioner, retry=not args.no_retry)
    if all("why" in row for row in report["photos"]):
        raise AutoError(f"no photo could be edited: {report['photos'][0]['why']}")
    if not args.json:
        print(describe(report))
    return report
