"""Show what the model looks at: for each word, where in the photo, at which step, in which layer.

Examples:
  p2p-real attention cat.jpg --model sd1.5 --out looks
  p2p-real attention cat.jpg --source "a cat on a mat" --words cat,mat --model sd1.5
  p2p-real attention cat.inv.safetensors --words "fluffy cat,mat" --model sd1.5
  p2p-real attention cat.jpg --swap cat=dog --local cat --model sd1.5

The photo is inverted and redrawn by its own words, or edited where an edit is asked for; then each
word of the edit stands below the word whose place it takes. Without --words all words are shown
that say more than "a" or "of"; word#2 is the second one where a word stands several times.

The folder --out gets words.png, a map for each word over the photo; time.png and time.gif, how
these maps come about step by step; layers.png, where in the network; self.png, which places of the
picture belong together; of an edit, alignment.png, which word takes whose place, and
difference.png, what it changed; report.json; and maps.npz with the numbers. In it, W words are seen
by F times and L groups of layers:
  words, maps [W, h, w]      mean share of each place's attention, over steps and layers
  rest [h, w]                what all other tokens get; with maps it sums to 1 before an edit
  by_time [F, W, h, w]       of step_counts [F] steps from steps [F] (0 = noise) at timesteps [F]
  by_layer [L, W, h, w]      of layer_counts [L] layers at places [L], scales [L] (latent side /
                             map side) and layer_sizes [L, 2]
  self_components [N, h, w]  patterns of the self-attention at self_scale, self_shares [N]
  target_words, ...          the same of an edit's own prompt; alignment: tokens of the source by
                             tokens of the target
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import masking, options
from .edit import command_of, known_of, open_subject
from .generate import refuse_control

if TYPE_CHECKING:
    from ..attention import Attention

PICTURES = ("words", "time", "layers", "self", "alignment", "difference")
NAMES = (*(f"{name}.png" for name in PICTURES), "time.gif", "maps.npz", "report.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photo", metavar="PHOTO_OR_INV", help="a photo, or an inversion that p2p-real invert saved"
    )
    parser.add_argument(
        "--out", default="attention", metavar="DIR", help="folder to write to (attention)"
    )
    parser.add_argument(
        "--words",
        metavar="W,W,...",
        help="words or phrases of the prompts, with commas between (default: all that say more "
        "than 'a' or 'of')",
    )
    parser.add_argument(
        "--source", metavar="PROMPT", help="what the photo shows (default: its caption)"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=4096,
        metavar="N",
        help="places of the largest map that is kept; larger ones are averaged down (4096 = 64x64)",
    )
    options.add_edit(parser)
    options.add_inversion(parser)
    options.add_sampling(parser)
    options.add_model(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder
    from ..numbers import OptionError, check_edit_guidance
    from ..prompts import EditWords, PromptError

    options.check_sampling(args)
    if args.guidance is not None:
        check_edit_guidance(args.guidance)
    if not 16 <= args.max_pixels <= 2**20:
        raise OptionError(f"--max-pixels {args.max_pixels}: give a whole number from 16 to 1048576")
    words, control = options.edit_words(args), options.edit_control(args)
    wanted = EditWords(**words)
    if wanted.any():
        wanted.check()
    else:
        refuse_control(args, {**control, "excite": ()})
    options.check_model(args)
    if args.source is not None and not args.source.strip():
        raise PromptError("--source is empty: say what the photo shows, or leave it out")
    subject = open_subject(args)
    source, sizes, made_of = known_of(subject, args)
    prompts = wanted.apply(source) if source is not None and wanted.any() else None
    # what needs torch comes last: its import is the slowest of all these
    from ..attention.naming import check_words, parse_words
    from ..steering import EditControl
    from .output import keep_inputs

    asked = parse_words(args.words)
    if prompts is not None:
        check_words(asked, [prompts.source, prompts.target])
    elif source is not None and not wanted.any():
        check_words(asked, [source])
    settings = options.check_inversion(args)
    more: dict[str, Any] = {}
    if wanted.any():
        how = EditControl(**control)
        how.check_names()
        if prompts is not None:
            how.check_words(prompts)
        how.check_mask(*sizes)
        more = {**words, **control}
    keep_inputs(Path(args.out), args.photo, *masking.mask_files(args), names=NAMES)
    folder = check_output_folder(args.out)
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        found = editor.attention(
            subject,
            asked,
            source=args.source,
            max_pixels=args.max_pixels,
            method=args.method,
            steps=args.steps,
            method_options=settings,
            guidance_scale=args.guidance,
            negative_prompt=args.negative_prompt,
            seed=args.seed,
            fit=args.fit,
            **more,
        )
    report = save(found, folder, command_of(args, "attention") | {"photo_sha256": made_of})
    if not args.json:
        print(describe(report))
    return report


def save(found: Attention, folder: Path, command: dict[str, Any]) -> dict[str, Any]:
    """Write all pictures, the film, the numbers and the report, all or none; the report."""
    import numpy as np

    from ..attention.gif import save_gif
    from ..files import atomic_file, plain, write_json
    from ..pictures import save_png
    from .output import together

    made = found.pictures()
    report = dict(plain(found.report))
    report["files"] = {name: str(folder / f"{name}.png") for name in made}
    report["files"] |= {"film": str(folder / "time.gif"), "maps": str(folder / "maps.npz")}
    report["command"] = command
    settings = {"command": command, "report": {"model": report["model"], "words": report["words"]}}
    with together(folder) as place:
        for name, picture in made.items():
            save_png(picture, place / f"{name}.png", settings)
        with atomic_file(place / "time.gif") as stream:
            save_gif(found.film(), stream)
        with atomic_file(place / "maps.npz") as stream:
            np.savez_compressed(stream, **found.numbers())  # type: ignore[arg-type]
        write_json(place / "report.json", report)
    return report


def describe(report: dict[str, Any]) -> str:
    """A few lines about what was seen."""
    rows = report["words"]
    edited = any(row["prompt"] == "target" for row in rows)
    lines = [f"source  {report['source']}"]
    lines += [f"target  {report['target']}"] if edited else []
    width = max(len(row["word"]) for row in rows) + 2
    lines.append(f"  {'word':<{width}}{'mean':>7}{'most':>8}  at (from left, from top)")
    for row in rows:
        x, y = row["most_at"]
        line = f"  {row['word']:<{width}}{row['mean']:>7.1%}{row['most']:>8.1%}  {x:.0%}, {y:.0%}"
        lines.append(f"{line}  {row['prompt']}" if edited else line)
    lines.append(f"{report['seconds']:.1f} s, {report['unet_rows']} UNet rows")
    lines += [f"{name:<12} {path}" for name, path in report["files"].items()]
    return "\n".join(lines)
