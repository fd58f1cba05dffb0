"""The training command: `python -m p2p_real.tabletop.train --out runs/tabletop --minutes 120`."""

import argparse
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import BertTokenizer, CLIPTokenizer

from p2p_real.tabletop.train.captioner import CaptionerTask
from p2p_real.tabletop.train.data import Scenes, make_data
from p2p_real.tabletop.train.latents import make_latents
from p2p_real.tabletop.train.loop import is_done, train
from p2p_real.tabletop.train.pack import pack
from p2p_real.tabletop.train.reading import ReaderTask
from p2p_real.tabletop.train.settings import (
    Settings,
    pick_device,
    pick_precision,
    pick_workers,
)
from p2p_real.tabletop.train.state import sweep, write_json
from p2p_real.tabletop.train.unet import UnetTask
from p2p_real.tabletop.train.vae import DecoderTask, VaeTask
from p2p_real.tabletop.vocabulary import make_bert_tokenizer, make_clip_tokenizer

NOT_OF_A_CHECKPOINT = ("vae", "captioner", "reader")  # stages left out with --start-from
STAGES = (
    "data",
    "tokenizer",
    "vae",
    "latents",
    "unet",
    "decoder",
    "captioner",
    "reader",
    "pack",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages that are not done yet."""
    args = _parser().parse_args(arguments)
    device = pick_device(args.device)
    settings = Settings(
        out=args.out,
        minutes=args.minutes,
        steps=args.steps,
        scenes=args.scenes,
        chunk=args.chunk,
        held_out=args.held_out,
        batch=args.batch,
        size=args.size,
        device=device,
        workers=args.workers or pick_workers(device),
        renderers=args.renderers or os.cpu_count() or 1,
        precision=pick_precision(args.precision, device),
        save_every=args.save_every,
        log_every=args.log_every,
        start_from=args.start_from,
        lr_scale=args.lr_scale,
    )
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    settings.out.mkdir(parents=True, exist_ok=True)
    run(settings, STAGES[: STAGES.index(args.until) + 1])
    return 0


def run(settings: Settings, stages: Sequence[str] = STAGES) -> None:
    """Runs stages in their order; each one goes on from where it was, or is left out if done.

    Args:
        settings: The run.
        stages: Names from `STAGES`.
    """
    _remember(settings)
    sweep(settings.out / "state")
    if "data" in stages:
        make_data(settings)
    if "tokenizer" in stages:
        _make_tokenizers(settings)
    scenes = Scenes(settings)
    clip, bert = settings.out / "tokenizer" / "clip", settings.out / "tokenizer" / "bert"
    makers: dict[str, Callable[[], object]] = {
        "vae": lambda: train(VaeTask(settings, scenes)),
        "latents": lambda: make_latents(settings),
        "unet": lambda: train(UnetTask(settings, scenes, CLIPTokenizer.from_pretrained(clip))),
        "decoder": lambda: train(DecoderTask(settings, scenes)),
        "captioner": lambda: train(
            CaptionerTask(settings, scenes, BertTokenizer.from_pretrained(bert))
        ),
        "reader": lambda: train(ReaderTask(settings, scenes)),
        "pack": lambda: pack(
            settings, CLIPTokenizer.from_pretrained(clip), BertTokenizer.from_pretrained(bert)
        ),
    }
    kept = () if settings.start_from is None else NOT_OF_A_CHECKPOINT
    for name, make in makers.items():
        if name in stages and name not in kept and not is_done(settings.out, name):
            torch.manual_seed(zlib.crc32(name.encode()))  # of the weights a network starts with
            make()


def _make_tokenizers(settings: Settings) -> None:
    """Learns the tokenizers, unless a run before this one has."""
    folder = settings.out / "tokenizer"
    if settings.start_from is not None and not (folder / "clip").exists():
        shutil.copytree(settings.start_from / "tokenizer", folder / "clip.tmp", dirs_exist_ok=True)
        (folder / "clip.tmp").rename(folder / "clip")
    makers = {"clip": make_clip_tokenizer, "bert": make_bert_tokenizer}
    for name, make in makers.items():
        if not (folder / name).exists():
            beside = folder / f"{name}.tmp"
            make().save_pretrained(beside)
            beside.rename(folder / name)


def _remember(settings: Settings) -> None:
    """Keeps what a later run must not change.

    Raises:
        ValueError: The folder was begun with other settings.
    """
    path = settings.out / "settings.json"
    fixed = {name: getattr(settings, name) for name in ("size", "chunk", "held_out")}
    if settings.start_from is not None:
        fixed["start_from"] = str(settings.start_from)
    if not path.exists():
        write_json(path, fixed)
    before = json.loads(path.read_text())
    if before != fixed:
        raise ValueError(f"{settings.out} was begun with {before}, not with {fixed}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2p_real.tabletop.train",
        description="Train tabletop from nothing, or on from a checkpoint. Kill it at any moment; "
        "the same command goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the run")
    add("--minutes", type=float, default=120.0, help="time for the whole run, shared by its stages")
    add("--steps", type=int, help="steps for each network, instead of its share of the minutes")
    add("--scenes", type=int, help="scenes to render, instead of what the minutes allow")
    add("--until", choices=STAGES, default=STAGES[-1], help="last stage to run")
    add("--size", choices=("full", "tiny"), default="full", help="tiny only tries the command out")
    add("--batch", type=int, default=32, help="scenes in a step of the UNet")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--workers", type=int, help="threads that share a batch; 2 on a CPU, 1 on a GPU")
    add("--renderers", type=int, help="processes that render; one for each core")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of networks")
    add("--chunk", type=int, default=500, help="scenes in a data file")
    add("--held-out", type=int, default=128, help="scenes to measure on")
    add("--start-from", type=Path, help="checkpoint to train on; its encoder and tokenizer stay")
    add("--lr-scale", type=float, default=1.0, help="factor of the highest learning rates")
    add("--save-every", type=float, default=60.0, help="seconds between saved states")
    add("--log-every", type=float, default=120.0, help="seconds between measurements")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
