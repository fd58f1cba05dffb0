"""The one loop down, the plain way up, and the two seams: replay and intervention.

A :class:`Replay` is what an inversion method needs on the way back; an :class:`Intervention` is
what an edit changes. The loop knows neither attention nor any method by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from .denoiser import COND, UNCOND, Denoiser, Layout, TextCond
from .schedule import Schedule, Step, both_ends, mix


class NumericsError(RuntimeError):
    """Latents stopped being finite numbers."""


class Cancelled(Exception):
    """Raised by a progress callable to stop; everything installed is put back."""


class Progress(Protocol):
    """Called after each unit of work; raising :class:`Cancelled` stops the work."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


def quiet(stage: str, done: int, total: int, note: str = "") -> None:
    """No progress shown."""


class Replay:
    """How a recorded path is walked back. One per walk; may hold state.

    Args:
        trajectory: [S + 1, C, h, w], level 0 = photo.

    Attributes:
        pins_source: the source row is overwritten after each step, so its unconditional row is
            never needed, and its conditional row only while an edit reads it.
        source_unguided: the source's two halves are equal, so one of them is enough.
    """

    pins_source = False
    source_unguided = False

    def __init__(self, trajectory: Tensor) -> None:
        self.trajectory = trajectory

    def level(self) -> int:
        """The level to start from."""
        return self.trajectory.shape[0] - 1

    def start(self, branches: int) -> Tensor:
        """[B, C, h, w]: every branch starts from the same latents."""
        x = self.trajectory[self.level()]
        return x.expand(branches, *x.shape).clone()

    def uncond(self, step: Step, denoiser: Denoiser) -> TextCond:
        """The unconditional text of this step, for all branches."""
        return denoiser.uncond

    def step(self, x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
        """The latents after this step, [B, C, h, w]."""
        est = denoiser(x, step, layout=layout, uncond=self.uncond(step, denoiser))
        return mix(est, step.clean)


class FromNoise(Replay):
    """No record: a picture from noise.

    Args:
        noise: [1, C, h, w] at the noisiest level.
        steps: number of sampling steps.
    """

    def __init__(self, noise: Tensor, steps: int) -> None:
        super().__init__(noise)
        self.steps = steps

    def level(self) -> int:
        return self.steps

    def start(self, branches: int) -> Tensor:
        return self.trajectory.expand(branches, *self.trajectory.shape[1:]).clone()


class Intervention:
    """What an edit may do to a walk: all that the loop knows of edits."""

    def attach(self, denoiser: Denoiser) -> AbstractContextManager[object]:
        """Install whatever is needed for the walk; undone on exit."""
        return nullcontext()

    def reads_source(self, step: Step) -> bool:
        """Whether this step needs the network's pass over the source row."""
        return False

    def reads_source_uncond(self, step: Step) -> bool:
        """Whether this step needs the unconditional half of the source, too. Where a replay has
        its halves equal, the conditional one stands for both."""
        return False

    def before(self, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        """Change the latents before the network is asked."""
        return x

    def after(self, x: Tensor, step: Step) -> Tensor:
        """Change the latents after the step (the source row is final by now)."""
        return x


def rows_needed(
    step: Step, denoiser: Denoiser, replay: Replay, interventions: Sequence[Intervention]
) -> Layout:
    """The rows of this step: those nobody reads are left out of the batch.

    Rows do not interact, so leaving one out changes no other.
    """
    layout = denoiser.full_layout()
    drop: set[tuple[str, int]] = set()
    if denoiser.branches > 1 and replay.pins_source:
        uncond = any(i.reads_source_uncond(step) for i in interventions)
        if not uncond:
            drop.add((UNCOND, 0))
        stands_for_both = uncond and replay.source_unguided
        if not stands_for_both and not any(i.reads_source(step) for i in interventions):
            drop.add((COND, 0))
    if replay.source_unguided:
        drop.add((UNCOND, 0))
    return Layout(tuple(r for r in layout.rows if r not in drop))


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    replay: Replay,
    schedule: Schedule,
    interventions: Sequence[Intervention] = (),
    *,
    all_rows: bool = False,
    progress: Progress = quiet,
    stage: str = "sampling",
) -> Tensor:
    """Walk from noise to clean latents.

    Args:
        denoiser: network, text of the B branches (0 = source) and guidance.
        replay: where to start and how each step is made.
        schedule: the steps.
        interventions: acted on in order, before and after every step.
        all_rows: evaluate also the rows that nobody reads (as published code does).
        progress: called after each step.

    Returns:
        [B, C, h, w] clean latents, float32.

    Raises:
        NumericsError: latents became NaN or infinite; names the step.
    """
    with ExitStack() as stack:
        for one in interventions:
            stack.enter_context(one.attach(denoiser))
        x = replay.start(denoiser.branches)
        steps = list(schedule.down(replay.level()))
        for done, step in enumerate(steps, 1):
            for one in interventions:
                x = one.before(x, step, denoiser)
            layout = denoiser.full_layout()
            if not all_rows:
                layout = rows_needed(step, denoiser, replay, interventions)
            x = replay.step(x, step, denoiser, layout)
            for one in interventions:
                x = one.after(x, step)
            if not torch.isfinite(x).all():
                raise NumericsError(
                    f"latents are not finite after sampling step {step.index + 1} of {step.count} "
                    f"(timestep {step.t}): run in float32 (--dtype float32) or lower the guidance"
                )
            progress(stage, done, len(steps))
    return x.float()


def climb(
    x0: Tensor,
    schedule: Schedule,
    move: Callable[[Tensor, Step], Tensor],
    *,
    progress: Progress = quiet,
    stage: str = "inversion",
) -> Tensor:
    """The way up, level by level: ``move`` gives the latents of the level that is entered.

    Args:
        x0: [B, C, h, w] clean latents.
        schedule: the sampling schedule.
        move: (latents at ``step.clean``, step) -> latents at ``step.noisy``, both [B, C, h, w].
        progress: called after each step.
        stage: what is going on, for progress and errors.

    Returns:
        trajectory [S + 1, B, C, h, w], float32, 0 = ``x0``.

    Raises:
        NumericsError: latents became NaN or infinite; names the step.
    """
    path = [x0.float()]
    for done, step in enumerate(schedule.up(), 1):
        path.append(move(path[-1], step))
        if not torch.isfinite(path[-1]).all():
            raise NumericsError(
                f"latents are not finite after inversion step {done} of {len(schedule)} "
                f"(timestep {step.t}): run in float32 (--dtype float32)"
            )
        progress(stage, done, len(schedule))
    return torch.stack(path)


@torch.no_grad()
def ddim_invert(
    x0: Tensor,
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    departure: bool = False,
    progress: Progress = quiet,
    stage: str = "ddim inversion",
) -> Tensor:
    """The plain way up: the path of a photo's latents to noise.

    Exact only for an estimate that does not change along a step: the network is asked at the
    latents that are left, not at those that are reached.

    Args:
        x0: [B, C, h, w] clean latents.
        denoiser: network, text and guidance of the B photos.
        schedule: the sampling schedule.
        departure: ask at the timestep that is left instead of the one that is entered.
        progress: called after each step.
        stage: what is going on, for progress and errors.

    Returns:
        trajectory [S + 1, B, C, h, w], float32, 0 = ``x0``.

    Paper: Denoising Diffusion Implicit Models (arXiv 2010.02502), section 4.3.
    """
    left: list[int] = []  # timesteps entered so far

    def move(x: Tensor, step: Step) -> Tensor:
        asked = dataclasses.replace(step, t=left[-1]) if departure and left else step
        left.append(step.t)
        layout = denoiser.full_layout()
        out = denoiser.combine(denoiser.predict(x, asked, layout), layout, asked, x)
        return mix(both_ends(out, x, step.clean, denoiser.prediction), step.noisy)

    return climb(x0, schedule, move, progress=progress, stage=stage)
