"""What an inversion will take here: one UNet row is measured, the rest is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from inversion.checkpointing import checkpointed
from inversion.denoiser import TextCond
from inversion.inverter import Cost, Inverter, frozen

from .backbones.base import Backbone
from .measure import resident, resident_peak, tensor_peak


@dataclass(frozen=True)
class Row:
    """Seconds of one UNet row, and bytes of tensors that it holds at most beside the weights."""

    seconds: float
    held: int


@dataclass(frozen=True)
class Rates:
    """What rows take on this machine.

    Args:
        forward: a row without gradient.
        gradient: forward and backward to the text; None where it was not measured.
        checkpointed: the same with checkpointing.
        base: bytes that the process (on CUDA: the device) holds with the model loaded.
    """

    forward: Row
    gradient: Row | None = None
    checkpointed: Row | None = None
    base: int = 0


def measure_rates(backbone: Backbone, size: tuple[int, int], *, gradient: bool) -> Rates:
    """Run a few rows and look.

    Args:
        backbone: the network.
        size: (H, W) of the picture in pixels.
        gradient: whether rows with a gradient are needed, too.
    """
    x = backbone.noise(size, torch.Generator().manual_seed(0)).to(backbone.device)
    text = backbone.empty_text(size)
    cuda = backbone.device.type == "cuda"

    def row(slope: bool) -> None:
        embeds = text.embeds.clone().requires_grad_(slope)
        with torch.set_grad_enabled(slope):
            out = backbone.predict(x, 500, TextCond(embeds, text.pooled, text.time_ids))
        if slope:
            torch.autograd.grad(out.square().mean(), embeds)
        if cuda:
            torch.cuda.synchronize(backbone.device)

    def measured(slope: bool, save: bool = False) -> Row:
        def work() -> None:
            row(slope)

        with frozen(backbone), checkpointed(backbone, save):
            work()
            seconds = min(_seconds(work) for _ in range(2))
            return Row(seconds, tensor_peak(work, backbone.device))

    forward = measured(False)
    base = int(torch.cuda.memory_allocated(backbone.device)) if cuda else resident()
    if not gradient:
        return Rates(forward, base=base)
    return Rates(forward, measured(True), measured(True, save=True), base)


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def estimate(rates: Rates, cost: Cost, *, checkpointing: bool = False) -> dict[str, Any]:
    """What inverting one photo takes, as plain data; nothing is run.

    Args:
        rates: what a row takes.
        cost: rows, as the method tells them.
        checkpointing: whether the gradient's rows are checkpointed.

    Returns:
        ``seconds_at_most``, ``seconds_likely`` and ``peak_memory_bytes``.
    """
    plain, sloped = cost.forward - cost.backward, 0.0
    held = rates.forward.held
    if cost.backward:
        row = rates.checkpointed if checkpointing else rates.gradient
        if row is None:
            raise ValueError("this method needs gradients: measure the rates with gradient=True")
        sloped, held = cost.backward * row.seconds, max(held, row.held)
    least = plain if cost.least is None else cost.least
    return {
        "seconds_at_most": plain * rates.forward.seconds + sloped,
        "seconds_likely": (least + cost.likely * (plain - least)) * rates.forward.seconds
        + cost.likely * sloped,
        "peak_memory_bytes": max(rates.base + held, 0),
    }


def plan(
    backbone: Backbone, inverter: Inverter, steps: int, size: tuple[int, int]
) -> dict[str, Any]:
    """What inverting one photo will take, as plain data, before it is done.

    Args:
        backbone: the network; a few of its rows are run.
        inverter: the method with its settings.
        steps: sampling steps.
        size: (H, W) of the picture in pixels.

    Returns:
        What :func:`estimate` gives, with ``seconds_a_row`` and, for a method with gradients,
        ``checkpointed``: the same with checkpointing.
    """
    loading = 0 if backbone.device.type == "cuda" else resident_peak()  # before rows are run
    cost = inverter.cost(steps)
    rates = measure_rates(backbone, size, gradient=cost.backward > 0)
    chosen = bool(getattr(inverter, "checkpointing", False))
    found = estimate(rates, cost, checkpointing=chosen)
    found |= {"seconds_a_row": rates.forward.seconds, "unet_rows": str(cost)}
    both = [found]
    if cost.backward and hasattr(inverter, "checkpointing"):
        found["checkpointed"] = estimate(rates, cost, checkpointing=True)
        both.append(found["checkpointed"])
    for one in both:
        one["peak_memory_bytes"] = max(one["peak_memory_bytes"], loading)
    return found


def told(planned: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """One line: what was predicted and what it took.

    Args:
        planned: what :func:`plan` gave.
        extra: of the inversion, with ``seconds`` and ``peak_memory_bytes``.
    """
    most, likely = planned["seconds_at_most"], planned["seconds_likely"]
    span = f"{likely:.1f} s" if likely >= most else f"{likely:.1f} s, at most {most:.1f} s"
    return (
        f"predicted {span}, {_mib(planned['peak_memory_bytes'])}; took {extra['seconds']:.1f} s, "
        f"{_mib(extra['peak_memory_bytes'])}"
    )


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
