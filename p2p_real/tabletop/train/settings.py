"""What a training run is to do."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from p2p_real.tabletop.models import FULL, TINY, Widths

# how a run's minutes are shared out; what is not named here takes what it needs
SHARES = {
    "data": 0.22,
    "vae": 0.10,
    "unet": 0.45,
    "decoder": 0.06,
    "captioner": 0.13,
    "reader": 0.04,
}
SHARES_ON = {"data": 0.2, "unet": 0.6, "decoder": 0.2}  # of a run that starts from a checkpoint


@dataclass(frozen=True)
class Settings:
    """One training run.

    Attributes:
        out: Folder of the run; everything that is resumed lies in it.
        minutes: How long the whole run may take, shared out by `SHARES`.
        steps: Instead of minutes: how many steps each network is trained.
        scenes: Instead of minutes: how many scenes are rendered.
        chunk: Scenes in a data file.
        held_out: Scenes kept for measuring; they come from the stream no training scene is from.
        batch: Scenes in a step of the UNet; other stages take a share of it.
        size: `full`, or `tiny` for trying out the command.
        device: `cpu` or `cuda`.
        workers: Threads that each take a part of a batch.
        renderers: Processes that render.
        precision: `float32`, `bfloat16` or `auto`, which takes what is faster here.
        save_every: Seconds between saved states.
        log_every: Seconds between measurements.
        start_from: A checkpoint whose UNet, text encoder and autoencoder are trained on; its
            tokenizer and latent scale stay. Without it everything starts from nothing.
        lr_scale: What the highest learning rates are multiplied with, above 0.
    """

    out: Path
    minutes: float = 120.0
    steps: int | None = None
    scenes: int | None = None
    chunk: int = 500
    held_out: int = 128
    batch: int = 32
    size: str = "full"
    device: str = "cpu"
    workers: int = 2
    renderers: int = 2
    precision: str = "float32"
    save_every: float = 60.0
    log_every: float = 120.0
    start_from: Path | None = None
    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.size not in ("full", "tiny"):
            raise ValueError(f"no size {self.size!r}; there are: full, tiny")
        if self.batch < self.workers:
            raise ValueError(f"a batch of {self.batch} cannot be shared by {self.workers} workers")
        if not self.lr_scale > 0:
            raise ValueError(f"--lr-scale is {self.lr_scale}; give a number above 0")
        if self.start_from is not None and not (self.start_from / "model_index.json").is_file():
            raise ValueError(f"--start-from: {self.start_from} is no checkpoint folder")

    @property
    def widths(self) -> Widths:
        """How wide the networks are."""
        return FULL if self.size == "full" else TINY

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def seconds(self, stage: str) -> float:
        """How long a stage may take."""
        shares = SHARES if self.start_from is None else SHARES_ON
        return 60 * self.minutes * shares[stage]


def pick_device(name: str) -> str:
    """Gives `cuda` where there is one and `auto` was asked for, else what was asked for."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_precision(name: str, device: str) -> str:
    """Gives the faster precision where `auto` was asked for.

    On a CPU it is measured: with bfloat16 units it wins, without them it loses by a factor of two.
    """
    if name != "auto":
        return name
    if device != "cpu":
        return "bfloat16"
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, w = torch.randn(2048, 256).to(dtype), torch.randn(256, 256).to(dtype)
        for rounds in (2, 20):  # the first two only warm up
            start = time.perf_counter()
            for _ in range(rounds):
                x @ w
            times[dtype] = time.perf_counter() - start
    return "bfloat16" if times[torch.bfloat16] < 0.8 * times[torch.float32] else "float32"


def pick_workers(device: str) -> int:
    """Gives one worker on a GPU, and up to two on a CPU."""
    return 1 if device != "cpu" else max(1, min(2, os.cpu_count() or 1))
