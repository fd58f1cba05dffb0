"""See the main job work, on a shipped photo and the embedded model; nothing is downloaded.

Example:
  p2p-real demo --out demo

A photo is captioned by BLIP, inverted by null-text inversion, and edited by prompt-to-prompt four
ways: a word swapped, a word re-weighted, a word swapped with local blend, a phrase swapped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from . import options

PHOTO = "red_ball.png"
GUIDANCE = 1.5
EDITS: dict[str, dict[str, Any]] = {
    "swap": {"swap": {"red": "blue"}},
    "reweight": {"weight": {"red": 3.0}},
    "local": {"swap": {"ball": "cone"}, "local": {"ball": "cone"}},
    "background": {"swap": {"wooden table": "checkered cloth"}},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder to write to (demo)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="sampling steps (50)")
    parser.add_argument(
        "--guidance",
        type=float,
        default=GUIDANCE,
        metavar="W",
        help=f"guidance_scale, also of the inversion ({GUIDANCE})",
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="of the network (auto = float16 on a GPU, float32 on CPU)",
    )
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..files import check_output_folder, plain, write_json
    from ..numbers import check_numbers
    from ..pictures import save_png, strip
    from .output import together

    check_numbers(steps=args.steps, guidance_scale=args.guidance)
    folder = check_output_folder(args.out)
    from ..editor import Editor
    from ..tabletop import PHOTOS

    options.calm_threads("tabletop")
    began = time.perf_counter()
    with options.bars(args) as bars:
        editor = Editor.load(
            "tabletop", device=args.device, dtype=args.dtype, cache=False, progress=bars
        )
        photo = editor.open(Path(PHOTOS) / PHOTO)
        caption = editor.caption(photo)
        inversion = editor.invert(
            photo, caption, method="null-text", steps=args.steps, guidance_scale=args.guidance
        )
        results = {name: editor.edit(inversion, **how) for name, how in EDITS.items()}
    seconds = time.perf_counter() - began
    first = next(iter(results.values()))
    pictures, labels = [first.source, first.reconstruction], [f"photo: {caption}", "reconstruction"]
    for name, result in results.items():
        pictures.append(result.image)
        what = EDITS[name].get("swap") or EDITS[name]["weight"]
        said = ", ".join(_said(k, v) for k, v in what.items())
        labels.append(f"{name}: {said}")
    settings = {"command": {"verb": "demo", "options": {"steps": args.steps}}, "caption": caption}
    report = {
        "caption": caption,
        "method": inversion.method,
        "guidance_scale": args.guidance,
        "steps": args.steps,
        "reconstruction_psnr": inversion.extra["reconstruction_psnr"],
        "ceiling_psnr": inversion.extra["ceiling_psnr"],
        "inversion_seconds": inversion.extra["seconds"],
        "seconds": seconds,
        "edits": {name: plain(result.report) for name, result in results.items()},
        "versions": inversion.extra["versions"],
    }
    with together(folder) as place:
        save_png(strip(pictures, labels), place / "strip.png", settings)
        save_png(first.source, place / "photo.png", settings)
        save_png(first.reconstruction, place / "reconstruction.png", settings)
        for name, result in results.items():
            save_png(result.image, place / f"{name}.png", settings)
        write_json(place / "report.json", report)
    report["strip"] = str(folder / "strip.png")
    if not args.json:
        _say(report, results, folder)
    return report


def _said(key: str, value: str | float) -> str:
    return f"{key} -> {value}" if isinstance(value, str) else f"{key} x {value:g}"


def _say(report: dict[str, Any], results: dict[str, Any], folder: Path) -> None:
    from .output import decibel, steps_text

    print(f"caption         {report['caption']}")
    print(
        f"reconstruction  {decibel(report['reconstruction_psnr'])} of "
        f"{decibel(report['ceiling_psnr'])} possible, by {report['method']} in "
        f"{report['inversion_seconds']:.0f} s"
    )
    print(f"\n{'edit':<12}{'control':<18}{'layers':>6}  {'steps':<7}{'mask':>6}  {'seconds':>7}")
    for name, result in results.items():
        for i, row in enumerate(result.report["controls"]):
            coverage = row.get("mask_coverage")
            shown = f"{coverage[0]:.0%}" if coverage else "-"
            seconds = f"{result.report['seconds']:.1f}" if i == 0 else ""
            print(
                f"{name if i == 0 else '':<12}{row['control']:<18}"
                f"{sum(row['layers_hooked'].values()):>6}  {steps_text(row['steps_injected']):<7}"
                f"{shown:>6}  {seconds:>7}"
            )
    print(f"\n{report['seconds']:.0f} s in all; look at {folder / 'strip.png'}")
