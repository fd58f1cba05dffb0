"""Measure: edits against their exact truth, or speed ratios of this machine, in one run.

Examples:
  p2p-real bench tabletop --out runs/truth
  p2p-real bench tabletop --limit 10 --methods all --out runs/methods
  p2p-real bench tabletop --kinds light,add --edits p2p,plain --guidance 2,3 --out runs/light
  p2p-real bench speed --out runs/speed
  p2p-real bench null-text --out runs/null-text
  p2p-real bench guidance --out runs/guidance
  p2p-real bench control --out runs/control
  p2p-real bench excite --limit 30 --out runs/excite
  p2p-real bench auto --limit 100 --out runs/auto

tabletop: the embedded world renders photos and the exact picture that each edit of them should
give. Every way asked for (inversions x edits x guidances) edits them; what is to be seen is read
off the pictures, and how far they are from the truth is measured inside and outside the change.
The folder gets results.csv, table.md, summary.json, manifest.json, plot.png and sheet.png. A run
that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    from ..editor import Editor

_OWN = {  # options of one benchmark alone
    "speed": ("quick",),
    "null-text": ("quick",),
    "guidance": ("quick",),
    "control": ("quick",),
    "excite": (
        *("limit", "seed", "guidance", "steps"),
        *("model", "lora", "device", "dtype", "offload"),
    ),
    "auto": (
        *("kinds", "limit", "seed", "steps", "batch"),
        *("model", "lora", "device", "dtype", "offload"),
    ),
    "tabletop": (
        *("kinds", "per_kind", "limit", "seed", "methods", "edits", "guidance"),
        *("plain_guidance", "local", "steps"),
        *("processes", "batch", "model", "lora", "device", "dtype", "offload"),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=tuple(_OWN),
        help="tabletop: edits against their truth; speed: ratios on this machine; null-text: that "
        "inversion against the published loop; guidance: pix2pix-zero's against its two passes; "
        "control: an edit against plain sampling of the same rows; excite: two objects in a "
        "prompt, without and with Attend-and-Excite; auto: the edits of tabletop, asked for in "
        "plain words",
    )
    parser.add_argument("--out", default="bench", metavar="DIR", help="where to write (bench)")
    speed = parser.add_argument_group("speed, null-text, guidance, control")
    speed.add_argument("--quick", action="store_true", help="fewer repetitions")
    truths = parser.add_argument_group("tabletop, auto, excite: which edits")
    truths.add_argument(
        "--kinds",
        metavar="K,K",
        help="of colour, object, material, background, light, add, remove, random (default: all)",
    )
    truths.add_argument(
        "--per-kind", type=int, default=40, metavar="N", help="edits of each kind (40)"
    )
    truths.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most so many edits in all (auto: 100); excite: prompts (30)",
    )
    truths.add_argument(
        "--seed", type=int, default=21, metavar="S", help="of the held-out scenes (21)"
    )
    ways = parser.add_argument_group("tabletop: how they are edited")
    ways.add_argument(
        "--methods",
        metavar="M,M:K=V,...",
        help="inversions, such as direct,null-text:inner_steps=5, or all (default: the default of "
        "p2p-real edit)",
    )
    ways.add_argument(
        "--edits",
        default="p2p",
        metavar="E,E:K=V,...",
        help="edits, such as p2p,p2p+local,p2p+pnp,direction+pix2pix-zero (p2p); local blends by "
        "the words of the change; excite makes the words that come be seen; direction adds the "
        "change to the photo's own words, world-direction does so in sentences of this world; "
        "plain on DDIM's path is always run beside them",
    )
    ways.add_argument(
        "--guidance",
        metavar="W,W",
        help="guidance_scale, one or several (default: what suits each inversion)",
    )
    ways.add_argument(
        "--plain-guidance",
        metavar="W,W",
        help="the same for plain regeneration alone; the best of several is the bound",
    )
    ways.add_argument(
        "--local",
        nargs="?",
        const="yes",
        default="no",
        choices=("no", "yes", "both"),
        help="change the picture only where the words of the change are seen; both: with and "
        "without",
    )
    ways.add_argument(
        "--steps", type=int, default=50, metavar="N", help="sampling steps, 1 to 1000 (50)"
    )
    ways.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="share the edits out to so many processes (1); under accelerate launch its own do",
    )
    ways.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="invert so many photos together (1): cheaper a photo, in more memory",
    )
    options.add_model(parser, captioner=False)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder
    from ..numbers import OptionError

    for name in sorted({n for names in _OWN.values() for n in names} - {*_OWN[args.what]}):
        if name in args.given:
            what = " and ".join(w for w, names in _OWN.items() if name in names)
            raise OptionError(f"--{name.replace('_', '-')} belongs to bench {what}; leave it out")
    if args.what == "tabletop":
        return _tabletop(args)
    if args.what == "excite":
        return _excite(args)
    if args.what == "auto":
        return _auto(args)
    folder = check_output_folder(args.out)
    from ..bench import control, guidance, null_text, speed

    measures = {
        "null-text": null_text.run,
        "guidance": guidance.run,
        "control": control.run,
        "speed": speed.run,
    }
    with options.bars(args) as bars:
        result = measures[args.what](folder, quick=args.quick, progress=bars)
    if not args.json:
        print((folder / "table.md").read_text(encoding="utf-8"))
        print(f"{folder}/results.csv, table.md, manifest.json")
    return result


def _loader(args: argparse.Namespace) -> Callable[[], Editor]:
    """What loads the models in each process; their options are checked."""
    from ..numbers import check_numbers

    check_numbers(steps=args.steps, seed=args.seed)
    options.check_model(args)
    options.calm_threads(args.model)
    from ..bench.tabletop.running import load_tabletop

    return functools.partial(
        load_tabletop,
        args.model,
        device=args.device,
        dtype=args.dtype,
        lora=args.lora,
        offload=args.offload,
    )


def _excite(args: argparse.Namespace) -> dict[str, Any]:
    load = _loader(args)
    from ..bench.excite import LIMIT, run

    with options.bars(args) as bars:
        found = run(
            args.out,
            limit=LIMIT if args.limit is None else args.limit,
            seed=args.seed,
            guidance=args.guidance,
            steps=args.steps,
            load=load,
            progress=bars,
        )
    return _shown(args, found)


def _auto(args: argparse.Namespace) -> dict[str, Any]:
    load = _loader(args)
    from ..bench.auto import BATCH, LIMIT, run

    with options.bars(args) as bars:
        found = run(
            args.out,
            kinds=args.kinds,
            limit=LIMIT if args.limit is None else args.limit,
            seed=args.seed,
            steps=args.steps,
            batch=args.batch if "batch" in args.given else BATCH,
            load=load,
            progress=bars,
        )
    return _shown(args, found)


def _tabletop(args: argparse.Namespace) -> dict[str, Any]:
    load = _loader(args)
    from ..bench.tabletop.running import run
    from ..numbers import METHOD

    with options.bars(args) as bars:
        found = run(
            args.out,
            kinds=args.kinds,
            per_kind=args.per_kind,
            limit=args.limit,
            seed=args.seed,
            methods=args.methods or METHOD,
            edits=args.edits,
            guidance=args.guidance,
            plain_guidance=args.plain_guidance,
            local=args.local,
            steps=args.steps,
            processes=args.processes,
            batch=args.batch,
            load=load,
            progress=bars,
        )
    if not found:  # the first process of accelerate launch speaks for all
        raise SystemExit(0)
    return _shown(args, found)


def _shown(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """What a run found, with its table and files on the screen."""
    if not args.json:
        from pathlib import Path

        print(Path(found["files"]["table.md"]).read_text(encoding="utf-8"))
        for name, path in found["files"].items():
            print(f"{name:<14} {path}")
    return {key: found[key] for key in ("manifest", "summary", "files")}
