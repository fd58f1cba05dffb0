"""Stage `data`: scenes rendered beforehand, a file for each chunk, and reading them."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from p2p_real.tabletop.scene import Record, held_out_rng, sample_scene
from p2p_real.tabletop.train.renderer import chunk_file, chunk_records, render_chunk
from p2p_real.tabletop.train.settings import Settings
from p2p_real.tabletop.train.state import sweep, write_json

HELD_OUT = 9  # seed of the records that a run is measured on


def held_out_records(count: int) -> list[Record]:
    """Gives the records that a run is measured on."""
    rng = held_out_rng(HELD_OUT)
    return [sample_scene(rng) for _ in range(count)]


def make_data(settings: Settings) -> None:
    """Renders chunks of training scenes in processes of their own.

    Without a number of scenes it goes on until its share of the run's minutes is used up. A
    killed run loses the chunks it was at and no other.
    """
    folder = settings.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    if done.exists():
        return
    if not (folder / "held_out.safetensors").exists():
        render_chunk(folder / "held_out.safetensors", held_out_records(settings.held_out))
    last = 0 if settings.scenes is None else -(-settings.scenes // settings.chunk)
    if settings.scenes is not None and len(chunk_files(folder)) >= last:
        write_json(done, {"chunks": last})
        return
    command = [sys.executable, "-m", "p2p_real.tabletop.train.renderer", str(folder)]
    numbers = [str(number) for number in (settings.renderers, settings.chunk, last)]
    work = [subprocess.Popen([*command, str(rank), *numbers]) for rank in range(settings.renderers)]
    try:
        _watch(settings, folder, work)
    finally:
        for process in work:
            process.terminate()
            process.wait()
    sweep(folder)
    write_json(done, {"chunks": len(chunk_files(folder))})


def chunk_files(folder: Path) -> list[Path]:
    """Lists the files of a folder that hold a chunk each, from the first on, without a gap."""
    files: list[Path] = []
    while (path := chunk_file(folder, len(files))).exists():
        files.append(path)
    return files


class Scenes:
    """Training scenes, read from their files when they are asked for.

    Args:
        settings: The run.
    """

    def __init__(self, settings: Settings) -> None:
        self.chunk = settings.chunk
        paths = chunk_files(settings.out / "data")
        self.files = [safe_open(path, "pt") for path in paths]
        self.records = [r for k in range(len(paths)) for r in chunk_records(k, self.chunk)]

    def __len__(self) -> int:
        return len(self.records)

    def draw(self, rng: torch.Generator, count: int) -> Tensor:
        """Draws numbers of scenes, [count]."""
        return torch.randint(len(self), (count,), generator=rng)

    def images(self, numbers: Tensor) -> Tensor:
        """Reads pictures, uint8 [B, 3, 128, 128]."""
        return self._rows("images", numbers).permute(0, 3, 1, 2)

    def ids(self, numbers: Tensor) -> Tensor:
        """Reads which object stands where, int8 [B, 64, 64], -1 where there is none."""
        return self._rows("ids", numbers)

    def _rows(self, name: str, numbers: Tensor) -> Tensor:
        places = [divmod(number, self.chunk) for number in numbers.tolist()]
        return torch.cat([self.files[k].get_slice(name)[i : i + 1] for k, i in places])


def held_out_images(settings: Settings) -> Tensor:
    """Reads the pictures a run is measured on, uint8 [N, 3, 128, 128]."""
    with safe_open(settings.out / "data" / "held_out.safetensors", "pt") as file:
        return file.get_tensor("images").permute(0, 3, 1, 2)


def signed(images: Tensor) -> Tensor:
    """Brings uint8 pictures to [-1, 1]."""
    return images.float() / 127.5 - 1


def unsigned(x: Tensor) -> Tensor:
    """Brings [B, 3, H, W] in [-1, 1] to pictures, uint8 [B, H, W, 3]."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


def _watch(settings: Settings, folder: Path, work: Sequence[subprocess.Popen]) -> None:
    """Shows how far the renderers are, until they have ended or their time is over.

    The time that killed runs have spent counts.
    """
    limit = settings.seconds("data") if settings.scenes is None else float("inf")
    clock = folder / "seconds.json"
    used = float(clock.read_text()) if clock.exists() else 0.0
    start, total = time.monotonic(), settings.scenes
    with tqdm(total=total, desc="data", unit="scene") as bar:
        while any(process.poll() is None for process in work):
            time.sleep(0.2)
            bar.update(len(chunk_files(folder)) * settings.chunk - bar.n)
            seconds = used + time.monotonic() - start
            write_json(clock, round(seconds, 1))
            if seconds > limit and chunk_files(folder):
                return
    failed = [process.returncode for process in work if process.returncode]
    if failed:
        raise RuntimeError(f"a renderer ended with {failed[0]}; its words stand above")
