"""Draw a picture from a seed, and the same edits on it.

Example:
  p2p-real generate "a red ball on a wooden table at noon" --swap red=blue --out ball
  p2p-real generate "a cat on a mat" --model sd1.5 --add "in the snow" --count 4
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options
from .edit import command_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT")
    parser.add_argument("--out", default="out", metavar="DIR", help="where to write (out)")
    parser.add_argument(
        "--count", type=int, default=1, metavar="N", help="pictures of seeds S, S + 1, ... (1)"
    )
    parser.add_argument("--size", metavar="WxH", help="in pixels (default: the model's own)")
    options.add_edit(parser)
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
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise OptionError(f"--size {text!r}: give width x height in pixels, such as 512x768")
    return int(width), int(height)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder
    from ..numbers import OptionError
    from ..prompts import EditWords, PromptError
    from ..steering import EditControl

    options.check_sampling(args)
    if not 1 <= args.count <= 10000:
        raise OptionError(f"--count {args.count}: give a whole number from 1 to 10000")
    if not args.prompt.strip():
        raise PromptError("the prompt is empty: say what to draw")
    size = size_of(args.size)
    words, control = options.edit_words(args), options.edit_control(args)
    if EditWords(**words).any():
        EditWords(**words).apply(args.prompt)
    EditControl(**control).check_names()
    folder = check_output_folder(args.out)
    from .output import describe, save

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
            command = command_of(args, "generate") | {"seed": seed}
            reports.append(save(result, place, command, generated=True))
            if not args.json:
                bars.close()
                print(describe(reports[-1]))
    return reports[0] if args.count == 1 else {"pictures": reports}
