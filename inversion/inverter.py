"""The base of inversion methods, and what one of them records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .denoiser import Denoiser, Guide
from .registry import Registry, check_settings
from .sampling import Progress, Replay, quiet
from .schedule import Schedule


@dataclass(frozen=True)
class Recording:
    """What inverting ``B`` photos recorded.

    Args:
        trajectory: [S + 1, B, C, h, w], float32, level 0 = the photos' latents.
        tape: whatever else the way back needs, each [S, B, ...], row 0 = the noisiest step.
    """

    trajectory: Tensor
    tape: dict[str, Tensor] = field(default_factory=dict)

    def photo(self, b: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Trajectory [S + 1, C, h, w] and tape of photo ``b``."""
        return self.trajectory[:, b], {k: v[:, b] for k, v in self.tape.items()}


class Cost(NamedTuple):
    """What inverting one photo costs at most, in rows of the UNet.

    Args:
        forward: rows evaluated.
        backward: those of them through which a gradient goes.
        least: rows evaluated at least; None where that is ``forward``.
        likely: the share of the gradient rows that a photo is likely to need.
    """

    forward: int
    backward: int = 0
    least: int | None = None
    likely: float = 1.0

    def __str__(self) -> str:
        if self.backward:
            plain = self.forward - self.backward
            return f"{plain} + up to {self.backward} forward and backward"
        if self.least in (None, self.forward):
            return f"{self.forward}"
        return f"{self.least} to {self.forward}"


class Inverter:
    """An inversion method; subclasses are frozen dataclasses whose fields are their settings.

    Attributes:
        name: how it is called.
        paper: title and arXiv id.
        exact: whether the photo's latents come back to rounding, at any guidance.
        needs_grad: whether it takes gradients through the network.
        owns_uncond: whether it decides the unconditional text (no negative prompt then).
        draws: whether it draws random numbers, so that a seed matters.
        resumable: whether ``invert`` also takes ``keep``, a :class:`resuming.PartFile` or None, and
            goes on from what an earlier run left there.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    exact: ClassVar[bool] = False
    needs_grad: ClassVar[bool] = False
    owns_uncond: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    resumable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_settings(self)

    def cost(self, steps: int) -> Cost:
        """What inverting one photo costs (default: a row a step)."""
        return Cost(steps)

    def forwards(self, steps: int) -> str:
        """Cost of the inversion in UNet row evaluations, for tables."""
        return str(self.cost(steps))

    def start_level(self, steps: int) -> int:
        """The level at which the way back starts, 1 to ``steps`` (default: the noisiest)."""
        return steps

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        """Record the way of photos to noise.

        Args:
            x0: [B, C, h, w] clean latents.
            denoiser: network, the photos' prompts, and the guidance of the edits to come.
            schedule: the sampling schedule.
            generator: source of every random draw.
            progress: called as the work goes on.
        """
        raise TypeError(f"{type(self).__name__} is abstract: it does not say how to invert")

    def guide(self, guide: Guide) -> Guide:
        """The guidance of the way back (default: as asked)."""
        return guide

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        """How one photo's recording is played back (default: plainly)."""
        return Replay(trajectory)


inverters: Registry[Inverter] = Registry("inversion", "inversion.methods")


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """No gradient on the weights of ``model.unet`` while inside; the flags are put back."""
    module = getattr(model, "unet", model)
    weights = (
        [p for p in module.parameters() if p.requires_grad] if hasattr(module, "parameters") else []
    )
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)
