"""Find the latents that regenerate a photo, and save them for many edits.

Examples:
  p2p-real invert cat.jpg --model sd1.5 --out cat.inv.safetensors
  p2p-real edit cat.inv.safetensors --model sd1.5 --swap cat=dog
"""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    from ..editor import Editor
    from ..images import Photo

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO", help="a picture file, any size from 8 x 8")
    parser.add_argument(
        "--out",
        metavar="X.inv.safetensors",
        help="file to write (default: the photo's name with this ending, in the current folder)",
    )
    parser.add_argument(
        "--prompt", metavar="PROMPT", help="what the photo shows (default: its caption)"
    )
    options.add_inversion(parser)
    options.add_sampling(parser)
    options.add_model(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from safetensors import SafetensorError

    from ..files import OutputError, check_output_folder
    from ..images import open_photo
    from ..numbers import OptionError
    from ..prompts import PromptError
    from .output import decibel

    options.check_sampling(args)
    options.check_model(args)
    if args.prompt is not None and not args.prompt.strip():
        raise PromptError("--prompt is empty: say what the photo shows, or leave it out")
    photo = open_photo(args.photo)
    out = Path(args.out or f"{photo.name}.inv.safetensors")
    if out.is_dir() or not out.name.endswith(".safetensors"):
        raise OptionError(f"--out {out}: give a file name that ends in .inv.safetensors")
    settings = options.check_inversion(args)
    check_output_folder(out.parent)
    with options.bars(args) as bars:
        editor = options.load_editor(args, bars)
        planned = foreseen(editor, args, settings, photo)
        inversion = editor.invert(
            photo,
            args.prompt,
            method=args.method,
            steps=args.steps,
            guidance_scale=args.guidance,
            negative_prompt=args.negative_prompt,
            fit=args.fit,
            seed=args.seed,
            **dict[str, Any](settings),
        )
    try:
        inversion.save(out)
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OutputError(
            f"cannot write {out}: {reason}; make room or choose another folder"
        ) from None
    figures = inversion.extra
    if not args.json:
        cached = " (from the cache)" if figures.get("from_cache") else ""
        print(f"{out}: {inversion.method}, {inversion.steps} steps{cached}")
        print(f"prompt          {inversion.prompt}")
        for line in tries(figures.get("auto")):
            print(line)
        print(
            f"reconstruction  {decibel(figures['reconstruction_psnr'])} of "
            f"{decibel(figures['ceiling_psnr'])} possible (the autoencoder's own round trip)"
        )
        print(
            f"cost            {figures['seconds']:.1f} s, {figures['unet_forwards']} UNet rows "
            f"forward, {figures['unet_backwards']} backward"
        )
        if planned and not figures.get("from_cache"):
            from ..costs import told

            print(f"                {told(planned, figures)}")
        where = shlex.quote(str(out))
        print(f"next            p2p-real edit {where} --model {args.model} --swap OLD=NEW")
    return {
        "file": str(out),
        "prompt": inversion.prompt,
        "method": inversion.method,
        "settings": inversion.settings,
        "steps": inversion.steps,
        "guidance_scale": inversion.guidance_scale,
        "model": inversion.model,
        **{
            k: figures.get(k)
            for k in (
                "reconstruction_psnr",
                "ceiling_psnr",
                "seconds",
                "unet_forwards",
                "unet_backwards",
                "peak_memory_bytes",
            )
        },
        "from_cache": bool(figures.get("from_cache")),
        "auto": figures.get("auto"),
        "planned": planned,
        "versions": figures["versions"],
    }


def foreseen(
    editor: Editor, args: argparse.Namespace, settings: dict[str, Any], photo: Photo
) -> dict[str, Any] | None:
    """What the inversion will take here, said beforehand, where it takes long enough to ask."""
    from ..choosing import inversions
    from ..costs import plan
    from ..fitting import fit_photo
    from ..numbers import METHOD

    inverter = inversions.create(args.method or METHOD, **settings)
    if not inverter.needs_grad:
        return None
    grid, native = editor.backbone.multiple, editor.backbone.native_size
    _, fit = fit_photo(photo.image, multiple=grid, native=native, mode=args.fit)
    planned = plan(editor.backbone, inverter, args.steps, fit.fitted[::-1])
    logger.info(
        "%s takes about %.0f s here, at most %.0f s, and %.0f MiB",
        inverter.name,
        planned["seconds_likely"],
        planned["seconds_at_most"],
        planned["peak_memory_bytes"] / 2**20,
    )
    return planned


def tries(auto: dict[str, Any] | None) -> list[str]:
    """What `auto` tried, a line each, and why it stopped; nothing where a method was named."""
    if not auto:
        return []
    lines = []
    for row in auto["tried"]:
        if "psnr" not in row:
            lines.append(f"  not tried     {row['method']}: {row['why']}")
            continue
        lines.append(
            f"  tried         {row['method']}: {max(0.0, row['below_ceiling']):.2f} dB below the "
            f"best possible, {row['seconds']:.1f} s, {row['unet_forwards']} UNet rows"
        )
    return [*lines, f"chosen          {auto['why']}"]
