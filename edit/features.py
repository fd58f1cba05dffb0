"""Features of residual blocks, places in a network, and controls that read the source's rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from inversion.denoiser import COND, UNCOND, Layout
from inversion.registry import SettingError
from inversion.schedule import Step

from .control import Block, BlockCall, Control, NothingActed, Site

if TYPE_CHECKING:
    from .attention import ControlStack

HALVES = ("own", "cond")


def blocks_of(unet: nn.Module) -> dict[Block, nn.Module]:
    """The residual blocks of a UNet with their last convolutions, in the order of their calls."""
    down, up = (list(getattr(unet, f"{side}_blocks", ())) for side in ("down", "up"))
    levels = [("down", f"down_blocks.{i}", b, 2**i) for i, b in enumerate(down)]
    if getattr(unet, "mid_block", None) is not None:
        levels.append(("mid", "mid_block", unet.mid_block, 2 ** (len(down) - 1)))
    levels += [("up", f"up_blocks.{i}", b, 2 ** (len(up) - 1 - i)) for i, b in enumerate(up)]
    found: dict[Block, nn.Module] = {}
    for place, name, level, scale in levels:
        for number, resnet in enumerate(getattr(level, "resnets", ())):
            if hasattr(resnet, "conv2"):
                block = Block(f"{name}.resnets.{number}", place, len(found), scale, number)
                found[block] = resnet.conv2
    return found


class Hooked:
    """The forward hook on the last convolution of one watched residual block."""

    def __init__(self, block: Block, controls: list[Control], stack: ControlStack) -> None:
        self.block, self.controls, self.stack = block, controls, stack

    def __call__(self, module: nn.Module, args: Any, h: Tensor) -> Tensor:
        denoiser, step, now = self.stack.now(self.controls)
        if denoiser is None or step is None:
            return h
        for control in now:
            changed = control.features(h, BlockCall(self.block, step, denoiser.layout))
            if changed is not None:
                self.stack.count(control, self.block, step)
                h = changed
        return h


@dataclass(frozen=True)
class Places:
    """Layers or blocks by part of the network, scale, and number in their level.

    Args:
        parts: (place, scale or 0 for any, number or -1 for any).
    """

    parts: tuple[tuple[str, int, int], ...]

    @classmethod
    def read(cls, text: str, what: str) -> Places:
        """Places from text: ``up/4.1+up/2`` is number 1 of the decoder's level at scale 4, and all
        of its level at scale 2; ``all`` is every place.

        Raises:
            SettingError: not of that form; ``what`` names the setting.
        """
        if text == "all":
            return cls((("down", 0, -1), ("mid", 0, -1), ("up", 0, -1)))
        parts = []
        for part in text.split("+"):
            found = re.fullmatch(r"(down|mid|up)(?:/(\d+)(?:\.(\d+))?)?", part.strip())
            if found is None:
                raise SettingError(
                    f"{what}={text!r}: give auto, all, or places such as up/4.1+up/2 (part of the "
                    "network / latent side over map side . number in that level)"
                )
            parts.append((found[1], int(found[2] or 0), int(found[3] or -1)))
        return cls(tuple(parts))

    def has(self, one: Site | Block) -> bool:
        """Whether a layer or block is among them."""
        return any(
            one.place == place and scale in (0, one.scale) and number in (-1, one.number)
            for place, scale, number in self.parts
        )


def decoder_levels(sites: dict[str, Site]) -> list[int]:
    """Scales of the decoder's levels that have attention, coarsest first.

    Raises:
        NothingActed: there are none.
    """
    scales = {s.scale for s in sites.values() if s.place == "up"}
    if not scales:
        raise NothingActed(
            "this network has no attention in its decoder: name places with --edit-option"
        )
    return sorted(scales, reverse=True)


class FromSource(Control):
    """A control that gives the targets something of the source, within a window.

    Args:
        window: first and last-plus-one step.
        half: ``own``: each half of a target reads the same half of the source; ``cond``: both read
            its conditional half.
    """

    needs_layers = True

    def __init__(self, window: tuple[int, int], half: str = "own") -> None:
        self.window, self.half = window, half

    def active(self, step: Step) -> bool:
        return self.window[0] <= step.index < self.window[1]

    def reads_source(self, step: Step) -> bool:
        return self.active(step)

    def reads_source_uncond(self, step: Step) -> bool:
        return self.half == "own" and self.active(step)

    def taken(self, layout: Layout) -> list[int]:
        """For each row, the row that it takes from; the source's take from themselves."""
        index = list(range(len(layout)))
        for half in (UNCOND, COND):
            source = layout.index(half, 0) if self.half == "own" else None
            if source is None:  # asked for, or the source's halves are equal and one is left out
                source = layout.index(COND, 0)
            for row, _ in layout.targets(half):
                if source is None:
                    raise RuntimeError("the source's row was left out of a step that reads it")
                index[row] = source
        return index


def fractions(name: str, window: Sequence[float], what: str) -> None:
    """Refuse a window that ends before it begins.

    Raises:
        SettingError: names the method and the window.
    """
    if window[0] > window[1]:
        raise SettingError(f"{name}: {what}_start is later than {what}_stop")
