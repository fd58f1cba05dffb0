"""Edits shared out over processes: own ones, or those that ``accelerate launch`` started.

Each process keeps its cells in the same folder; who is left at the end makes what is missing and
reads the rest, so a process that dies costs time and nothing else.
"""

from __future__ import annotations

import datetime
import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inversion.sampling import Progress, quiet

from ...compare.cells import Cells
from .truths import TruthEdit
from .ways import Way

if TYPE_CHECKING:
    from ...editor import Editor
    from .running import Bench

logger = logging.getLogger(__name__)
_PATIENCE = datetime.timedelta(days=7)  # until the last process is done with its share


@dataclass(frozen=True)
class Part:
    """What each process needs to do its share.

    Args:
        folder: the output folder.
        load: makes the editor.
        ways: what is measured.
        steps: sampling steps.
        batch: photos that are inverted together.
    """

    folder: Path
    load: Callable[[], Editor]
    ways: tuple[Way, ...]
    steps: int
    batch: int

    def bench(self, progress: Progress, count: int) -> Bench:
        """A bench of this process.

        Args:
            progress: called before each cell.
            count: of edits.
        """
        from .running import Bench

        total = count * (len(self.ways) + 1)
        cells = Cells(self.folder)
        return Bench(self.load(), cells, self.ways, self.steps, self.batch, progress, total)


def share(
    part: Part, truths: Sequence[TruthEdit], processes: int, progress: Progress
) -> tuple[int, bool]:
    """Let several processes fill the cells, if there are several.

    Returns:
        How many there are, and whether this process is the one that makes the tables.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState(timeout=_PATIENCE)
        with state.split_between_processes(list(truths)) as mine:
            _fill(part, mine, progress if state.is_main_process else quiet)
        state.wait_for_everyone()
        return int(state.num_processes), bool(state.is_main_process)
    count = min(processes, len(truths))
    if count > 1:
        _own(part, truths, count, progress)
    return count, True


def _own(part: Part, truths: Sequence[TruthEdit], count: int, progress: Progress) -> None:
    """Processes of our own; each takes every so-manieth edit."""
    context = multiprocessing.get_context("spawn")
    done: Any = context.Value("i", 0)
    workers = [
        context.Process(target=_work, args=(part, truths[n::count], done, os.getpid()), daemon=True)
        for n in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.2)
            progress("edits", min(done.value, len(truths)), len(truths), f"{count} processes")
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    for worker in workers:
        if worker.exitcode:
            logger.warning("a process ended with code %d; its edits are made here", worker.exitcode)


def _work(part: Part, truths: Sequence[TruthEdit], done: Any, parent: int) -> None:
    """One of our own processes."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:  # threads of several processes would stand in line
        torch.set_num_threads(1)

    def count(more: int) -> None:
        with done.get_lock():
            done.value += more

    _fill(part, truths, quiet, count, parent)


def _fill(
    part: Part,
    truths: Sequence[TruthEdit],
    progress: Progress,
    count: Callable[[int], None] = lambda more: None,
    parent: int | None = None,
) -> None:
    """Make the cells of some edits."""
    if not truths:
        return
    bench = part.bench(progress, len(truths))
    for start in range(0, len(truths), part.batch):
        if parent is not None and os.getppid() != parent:
            return  # nobody waits any more
        some = truths[start : start + part.batch]
        bench.rows(some)
        count(len(some))
