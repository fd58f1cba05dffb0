"""One renderer process of stage `data`; it imports little, so that it starts at once."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from p2p_real.tabletop.render import render_with_ids
from p2p_real.tabletop.scene import Record, sample_scene, train_rng
from p2p_real.tabletop.train.state import write_tensors


def chunk_records(chunk: int, count: int) -> list[Record]:
    """Gives the records of a chunk of training scenes; they need not be stored."""
    rng = train_rng(chunk)
    return [sample_scene(rng) for _ in range(count)]


def chunk_file(folder: Path, chunk: int) -> Path:
    """Says where a chunk lies."""
    return folder / f"{chunk:05d}.safetensors"


def render_chunk(path: Path, records: Sequence[Record]) -> None:
    """Renders records into a file: `images` uint8 [N, 128, 128, 3], `ids` int8 [N, 64, 64]."""
    pictures = [render_with_ids(record) for record in records]
    images = torch.stack([image for image, _ in pictures])
    ids = torch.stack([ids[::2, ::2].to(torch.int8) for _, ids in pictures])
    write_tensors(path, {"images": images, "ids": ids}, {})


def render_chunks(folder: Path, rank: int, workers: int, count: int, last: int) -> None:
    """Renders every chunk that is this process's own and not there yet.

    Args:
        folder: Where chunks lie.
        rank: Which of the renderers this is.
        workers: How many there are.
        count: Scenes in a chunk.
        last: How many chunks there shall be; 0 to go on until stopped.
    """
    torch.set_num_threads(1)
    parent, chunk = os.getppid(), rank
    # a killed command must not leave its renderers behind
    while (not last or chunk < last) and os.getppid() == parent:
        if not chunk_file(folder, chunk).exists():
            render_chunk(chunk_file(folder, chunk), chunk_records(chunk, count))
        chunk += workers


if __name__ == "__main__":
    render_chunks(Path(sys.argv[1]), *map(int, sys.argv[2:]))
