"""Ways timed in turns, and held to each other's numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


class Disagreement(RuntimeError):
    """Two ways that must give the same numbers did not; their speeds cannot be compared."""


@dataclass
class Timing:
    """Wall-clock and processor seconds of one way, one entry a round."""

    wall: list[float]
    cpu: list[float]


def in_turns(
    ways: Mapping[str, Callable[[], Tensor]],
    rounds: int,
    device: torch.device,
    tick: Callable[[str], None],
    warm: bool = True,
) -> tuple[dict[str, Timing], dict[str, Tensor]]:
    """Times of every way, taken in turns, and what each gave.

    Args:
        ways: by name.
        rounds: measured turns.
        device: where they compute.
        tick: called after each call.
        warm: take one unmeasured turn before.
    """
    times = {name: Timing([], []) for name in ways}
    results = {}
    for turn in range(0 if warm else 1, rounds + 1):
        for name, way in ways.items():
            wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = way()
            wait(device)
            if turn:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
            tick(name)
    return times, results


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def off(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def hold(what: str, apart: float, allowed: float) -> float:
    """``apart``, where no more is allowed.

    Raises:
        Disagreement: names the ways and both numbers.
    """
    if not apart <= allowed:
        raise Disagreement(f"{what}: off by {apart:.1e} of the scale, {allowed:.0e} is allowed")
    return apart
