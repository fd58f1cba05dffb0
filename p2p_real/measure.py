"""What a run cost: seconds and peak memory, and the versions it was made with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import resource
import sys
import time
from pathlib import Path
from types import TracebackType

import torch


class Meter:
    """Seconds and peak memory of a block.

    On CUDA the peak is that of the block, of tensors on the device. On the CPU it is the process's
    largest resident size so far, libraries included: the system keeps no other.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def __enter__(self) -> Meter:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._start

    @property
    def peak_memory_bytes(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return resident_peak()


def resident_peak() -> int:
    """The process's largest resident size so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def forget_peak() -> None:
    """Let the system's peak of this process's memory start anew, where it can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def versions() -> dict[str, str]:
    """Versions of this program and of the libraries that decide its numbers."""
    names = ("p2p-real", "torch", "diffusers", "transformers")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            from . import __version__

            found[name] = __version__ if name == "p2p-real" else "?"
    return found
