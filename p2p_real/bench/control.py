"""What control costs: an edit against plain sampling of the same rows, and by explicit maps.

One step, in which everything is controlled (both windows and the local blend are open), at the
positions and heads of Stable Diffusion 1.5 and SDXL.

Paper: Prompt-to-Prompt (arXiv 2208.01626).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from inversion.sampling import Progress, quiet

from ..files import check_output_folder
from ..measure import tensor_peak
from .subjects import GUIDANCE, Subject, half_sdxl, quarter, sd15, sdxl_blocks, tabletop
from .swaps import PLAIN, ROWS, EditWays
from .timing import Disagreement, Timing, hold, in_turns, off
from .writing import circumstances, mebibytes, page, write

AIMS = ("at most 1.10 of plain sampling's time", "at most 1.15 of its memory")
AGREE = 1e-4  # of the largest value: latents after the step
EDIT, LOCAL, PUBLISHED = "edit", "edit, local", "edit by explicit maps, as published"
OPEN = {"cross_replace": 1.0, "self_replace": 1.0}
ROOM = 8 * 2**30  # bytes of maps that the published way may make on the CPU


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and how often it is timed."""

    make: Callable[[str], Subject]
    rounds: int


FULL = (
    Case(lambda device: half_sdxl(device, 64), 3),
    Case(lambda device: sd15(device, 64), 2),
    Case(lambda device: half_sdxl(device, 128), 2),
    Case(lambda device: quarter(device, 128), 2),
)
QUICK = (Case(tabletop, 1), Case(lambda device: sdxl_blocks(device, 16), 1))


class ControlWays(EditWays):
    """One step of a word swap; each way gives latents [2, C, h, w]."""

    def __init__(self, subject: Subject) -> None:
        late = DDIMScheduler.from_config(subject.scheduler.config, timestep_spacing="trailing")
        super().__init__(dataclasses.replace(subject, scheduler=late), 1, OPEN, start=0.0)
        self.name = f"{subject.name}, {self.size[0]} x {self.size[1]}"

    def controlled(self) -> dict[str, Callable[[], Tensor]]:
        return {PLAIN: self.diffusers, EDIT: self.ours, LOCAL: self.ours_local}

    def fits(self) -> bool:
        """Whether there is room for the maps of the published way."""
        device = self.subject.latents.device
        room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else ROOM
        return sum(self.map_bytes()) <= room

    def agreement(self, gave: Mapping[str, Tensor]) -> dict[str, float]:
        """What the ways gave, held to each other.

        Raises:
            Disagreement: ours is not the published edit, or the source changed, or nothing did.
        """
        name, plain, edit = self.name, gave[PLAIN], gave[EDIT]
        told = {"source: edit and plain sampling": off(edit[:1], plain[:1])}
        hold(f"{name}, source", told["source: edit and plain sampling"], AGREE)
        told["target: edit and plain sampling"] = off(edit[1:], plain[1:])
        if not told["target: edit and plain sampling"] > AGREE:
            raise Disagreement(f"{name}: the edit changed nothing")
        if PUBLISHED in gave:
            apart = off(edit, gave[PUBLISHED])
            told["edit: ours and the published"] = hold(f"{name}, edit", apart, AGREE)
        return told


def run(
    out: Path, *, quick: bool = False, progress: Progress = quiet, device: str = "cpu"
) -> dict[str, Any]:
    """Time a controlled step every way, and write the table anew after each network.

    Args:
        out: folder for ``results.csv``, ``table.md`` and ``manifest.json``.
        quick: small networks: a smoke test, not a measurement.
        progress: called after each call.
        device: where to compute.

    Returns:
        The manifest: rows of the table, agreement, shapes, versions.

    Raises:
        Disagreement: ways that must give the same numbers did not.
        OutputError: ``out`` cannot be written to.
    """
    folder = check_output_folder(out)
    cases = QUICK if quick else FULL
    total = sum(3 * (case.rounds + 1) + 2 for case in cases)
    count = 0

    def tick(name: str) -> None:
        nonlocal count
        count += 1
        progress("control", count, total, name)

    rows: list[dict[str, Any]] = []
    manifest: dict[str, Any] = {
        "benchmark": "control",
        "quick": quick,
        "guidance_scale": GUIDANCE,
        "aims": AIMS,
        "windows": OPEN,
        "unet_rows": len(ROWS),
        "subjects": {},
        "measurements": rows,
        "agreement": {},
        **circumstances(device),
    }
    for case in cases:
        ways = ControlWays(case.make(device))
        found, manifest["agreement"][ways.name] = measure(ways, case.rounds, tick)
        rows += found
        manifest["subjects"][ways.name] = _about(ways, case.rounds)
        write(folder, manifest, table(manifest))
        del ways  # the next network needs the room
    return manifest


def measure(
    ways: ControlWays, rounds: int, tick: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of the table for one network, and how well its ways agree."""
    where, gave = ways.subject.latents.device, dict[str, Tensor]()
    mine = ways.controlled()
    slow = {PUBLISHED: ways.published} if ways.fits() else {}
    peaks = {}
    for name, way in (mine | slow).items():

        def keep(name: str = name, way: Callable[[], Tensor] = way) -> None:
            gave[name] = way()

        peaks[name] = tensor_peak(keep, where)
        tick(name)
    told = ways.agreement(gave)
    times, _ = in_turns(mine, rounds, where, tick, warm=False)
    times |= in_turns(slow, 1, where, tick, warm=False)[0]
    weights = sum(p.numel() * p.element_size() for p in ways.subject.unet.parameters())
    found = [_row(ways.name, name, times, peaks, weights) for name in times]
    if not slow:
        tick(PUBLISHED)
        tick(PUBLISHED)
        largest, stored = ways.map_bytes()
        empty = dict.fromkeys(found[0])
        short = {"network": ways.name, "way": PUBLISHED, "rounds": 0}
        found.append({**empty, **short, "maps_bytes": largest, "stored_bytes": stored})
    return found, told


def _row(
    subject: str,
    way: str,
    times: Mapping[str, Timing],
    peaks: Mapping[str, int],
    weights: int,
) -> dict[str, Any]:
    """Seconds and peak memory of a way, and their shares of plain sampling's."""
    mine, plain = times[way], times[PLAIN]
    wall, cpu = statistics.median(mine.wall), statistics.median(mine.cpu)
    by_round = [a / b for a, b in zip(mine.cpu, plain.cpu, strict=False)]
    return {
        "network": subject,
        "way": way,
        "seconds": wall,
        "cpu_seconds": cpu,
        "rounds": len(mine.wall),
        "of_plain_time": wall / statistics.median(plain.wall),
        "of_plain_time_cpu": cpu / statistics.median(plain.cpu),
        "of_plain_time_cpu_least": min(by_round),
        "of_plain_time_cpu_most": max(by_round),
        "peak_tensor_bytes": peaks[way],
        "of_plain_memory": peaks[way] / peaks[PLAIN],
        "of_plain_memory_with_weights": (weights + peaks[way]) / (weights + peaks[PLAIN]),
        "maps_bytes": None,
        "stored_bytes": None,
    }


def _about(ways: ControlWays, rounds: int) -> dict[str, Any]:
    parameters = list(ways.subject.unet.parameters())
    return {
        "shape": ways.subject.shape,
        "parameters": sum(p.numel() for p in parameters),
        "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "rounds": rounds,
    }


def table(manifest: Mapping[str, Any]) -> str:
    """The measurements as Markdown."""
    rows = []
    for r in manifest["measurements"]:
        if r["seconds"] is None:
            need = f"{mebibytes(r['maps_bytes'])} of maps at once, {mebibytes(r['stored_bytes'])}"
            rows.append((r["network"], r["way"], "does not fit", "", f"{need} stored", ""))
            continue
        rows.append(
            (
                r["network"],
                r["way"],
                f"{r['seconds']:.1f} ({r['cpu_seconds']:.1f})",
                f"{r['of_plain_time']:.2f} ({r['of_plain_time_cpu']:.2f})",
                mebibytes(r["peak_tensor_bytes"]),
                f"{r['of_plain_memory']:.2f} ({r['of_plain_memory_with_weights']:.2f})",
            )
        )
    return page(
        "A controlled edit against plain sampling of the same rows",
        (
            f"One step of {manifest['unet_rows']} rows, everything controlled: words and",
            "self-attention replaced, local blend read and applied. Seconds are medians in turns,",
            "in brackets the processor's, which other work on the machine moves less; memory is",
            "the peak of tensors beside the weights, in brackets its share with the weights.",
        ),
        ("network", "way", "seconds", "of plain sampling", "peak memory", "of plain sampling"),
        rows,
        manifest,
        lambda s: (
            f"{s['shape']}; {s['parameters'] / 1e6:.0f} million parameters in {s['dtype']}; "
            f"{s['rounds']} rounds, one by explicit maps"
        ),
    )
