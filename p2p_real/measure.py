"""What a run cost: seconds and peak memory, and the versions it was made with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
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


def resident() -> int:
    """The process's resident size now, in bytes; its largest, where the system tells only that."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resident_peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def tensor_peak(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that some work holds at most, beyond what was there before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _hush(), torch.profiler.profile(profile_memory=True) as profiler:
        work()
    found = profiler.profiler
    assert found is not None
    assert found.kineto_results is not None
    events = [e for e in found.kineto_results.events() if e.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


@contextlib.contextmanager
def _hush() -> Iterator[None]:
    """No standard error while inside: torch's profiler writes there below Python."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


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
