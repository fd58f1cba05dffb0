"""Draw a picture from a seed, and the same edits on it.

Examples:
  p2p-real generate "a red ball on a wooden table at noon" --swap red=blue --out ball
  p2p-real generate "a cat on a mat" --model sd1.5 --add "in the snow" --count 4
  p2p-real generate "a cat and a dog" --model sd1.5 --excite cat,dog

The folder --out gets source.png, the picture of PROMPT; edited.png, the same picture under the edit
(the same one where no edit is asked for); strip.png and report.json. With --count each seed has its
own folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from . import masking, options
from .edit import command_of

LARGEST = 16 * 2**20  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to draw, in quotes")
    parser.add_argument("--out", default="out", metavar="DIR", help="folder to write to (out)")
    parser.add_argument(
        "--count", type=int, default=1, metavar="N", help="pictures of seeds S, S + 1, ... (1)"
    )
    parser.add_argument("--size", metavar="WxH", help="in pixels (default: the model's own)")
    options.add_edit(parser)
    options.add_also(parser, sweep=False)
    options.add_sampling(parser)
    options.add_model(parser, captioner=False)
    options.add_output(parser)


def size_of(text: str | None) -> tuple[int, int] | None:
    """(width, height) of ``WxH``.

    Raises:
        OptionError: not of that form.
    """
    from ..numbers import OptionError

    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if found is None or not 0 < int(found[1]) * int(found[2]) <= LARGEST:
        raise OptionError(
            f"--size {text!r}: give width x height in pixels, such as 512x768, "
            "at most 16 megapixels"
        )
    return int(found[1]), int(found[2])


def refuse_control(args: argparse.Namespace, control: dict[str, Any]) -> None:
    """Refuse options that say how an edit acts where none is asked for.

    Raises:
        OptionError: names the option.
    """
    from ..numbers import OptionError

    alone = ("excite", "edit_option", "strength", "explicit") if control["excite"] else ()
    for name in ("edit", "edit_option", "no_local", *control):
        if name in args.given and name not in alone:
            raise OptionError(
                f"--{name.replace('_', '-')} says how an edit acts, and none is asked for: give "
                "--swap, --add, --remove, --weight, --style or --target too"
            )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder
    from ..numbers import OptionError, check_edit_guidance
    from ..prompts import EditWords, PromptError

    options.check_sampling(args)
    if not 1 <= args.count <= 10000:
        raise OptionError(f"--count {args.count}: give a whole number from 1 to 10000")
    if args.seed + args.count > 2**63:
        raise OptionError(f"--seed {args.seed} and --count {args.count}: no seed is above 2^63 - 1")
    if not args.prompt.strip():
        raise PromptError("the prompt is empty: say what to draw")
    size = size_of(args.size)
    words, control = options.edit_words(args), options.edit_control(args)
    words["also"] = args.also
    wanted = EditWords(**words)
    options.check_model(args)
    if not wanted.any() and not args.also:
        refuse_control(args, control)
        wanted = dataclasses.replace(wanted, same=bool(control["excite"]))
    prompts = wanted.apply(args.prompt) if wanted.any() or args.also else None
    if wanted.any() and args.guidance is not None:
        check_edit_guidance(args.guidance)
    # what needs torch comes last: its import is the slowest of all these
    from ..steering import EditControl
    from .output import describe, keep_inputs, save

    how = EditControl(**control)
    if wanted.same:
        how = how.excite_alone()
    if prompts is not None:
        how.check_names()
        how.check_words(prompts)
        how.check_mask(*([size] if size else []))
    keep_inputs(Path(args.out), *masking.mask_files(args))
    folder = check_output_folder(args.out)

    reports = []
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        for i in range(args.count):
            seed = args.seed + i
            result = editor.generate(
                args.prompt,
                **words,
                steps=args.steps,
                guidance_scale=args.guidance,
                negative_prompt=args.negative_prompt,
                seed=seed,
                size=size,
                **control,
            )
            place = folder if args.count == 1 else check_output_folder(folder / f"seed_{seed}")
            one = argparse.Namespace(**{**vars(args), "seed": seed, "count": 1})
            command = command_of(one, "generate")
            reports.append(save(result, place, command, generated=True))
            if not args.json:
                bars.close()
                print(describe(reports[-1]))
    return reports[0] if args.count == 1 else {"pictures": reports}
