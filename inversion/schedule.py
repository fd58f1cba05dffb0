"""The algebra of a deterministic diffusion path: levels, the network's estimate, and one move.

Every step, up or down, is the same line: turn the network's output into a guess at both ends,
``Estimate(x0, eps)``, and mix those two anew at another level, ``x = alpha * x0 + sigma * eps``.

Paper: Denoising Diffusion Implicit Models (arXiv 2010.02502), equation 12 with eta = 0;
v-prediction after Progressive Distillation (arXiv 2202.00512), appendix D.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Level(NamedTuple):
    """How much of the picture and of the noise a latent holds: ``x = alpha * x0 + sigma * eps``."""

    alpha: float
    sigma: float

    @classmethod
    def of(cls, alpha_cumprod: float) -> Level:
        """The level of a value of the cumulative product table (in [0, 1])."""
        a = float(alpha_cumprod)
        return cls(a**0.5, max(0.0, 1.0 - a) ** 0.5)


class Estimate(NamedTuple):
    """The network's guess at both ends of the path: the clean latents and the noise."""

    x0: Tensor
    eps: Tensor


@dataclass(frozen=True)
class Step:
    """One sampling step: from ``noisy`` (where the network is asked at ``t``) to ``clean``.

    ``index`` counts from 0 at the noisiest step; ``level`` counts from ``count`` down to 1, so that
    ``trajectory[level]`` is where the step starts and ``trajectory[level - 1]`` where it lands.
    """

    index: int
    count: int
    level: int
    t: int
    noisy: Level
    clean: Level


@dataclass(frozen=True)
class Schedule:
    """Timesteps and the levels between them, listed, never guessed by a division.

    Args:
        timesteps: descending timesteps of sampling, length S, integers in [0, train steps).
        starts: the level each step starts from, length S, same order.
        ends: the level each step lands on, length S, same order. Without ``compat`` the end of a
            step is the start of the next.
        prediction: what the network gives: ``epsilon``, ``v_prediction`` or ``sample``.
        table: the cumulative product over all training timesteps, for published code that takes
            levels between the listed ones; empty where it is not known (a schedule read back).
    """

    timesteps: tuple[int, ...]
    starts: tuple[Level, ...]
    ends: tuple[Level, ...]
    prediction: str = "epsilon"
    table: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def make(
        cls,
        timesteps: Sequence[int] | Tensor,
        alphas_cumprod: Sequence[float] | Tensor,
        final_alpha_cumprod: float | Tensor,
        prediction: str = "epsilon",
        *,
        compat: bool = False,
    ) -> Schedule:
        """The schedule of a scheduler's own tables.

        Args:
            timesteps: descending, as the scheduler's ``set_timesteps`` made them.
            alphas_cumprod: the table over the training timesteps, values in [0, 1].
            final_alpha_cumprod: the value of the level after the last step.
            prediction: one of ``PREDICTIONS``.
            compat: let every step end at ``t - train_steps // S`` as diffusers' DDIMScheduler and
                the published code do. That is the next step's start only for leading spacing (or
                where S divides the train steps); otherwise it jumps between levels.

        Raises:
            ValueError: no timesteps, one out of range, not descending, or an unknown prediction.
        """
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction {prediction!r}: use one of {list(PREDICTIONS)}")
        steps = [int(t) for t in timesteps]
        if steps and steps[-1] == -1:  # trailing spacing: rounding gives 62 counts a step too many
            steps.pop()
        table = [float(a) for a in alphas_cumprod]
        if not steps:
            raise ValueError("a schedule needs at least one timestep")
        if max(steps) >= len(table):  # leading spacing with an offset at S = train steps
            excess = max(steps) - len(table) + 1
            steps = [t - excess for t in steps]
        if min(steps) < 0 or any(a <= b for a, b in itertools.pairwise(steps)):
            raise ValueError(
                f"timesteps must descend within [0, {len(table)}), got {steps[:3]} ..."
            )
        starts = [Level.of(table[t]) for t in steps]
        final = Level.of(float(final_alpha_cumprod))
        ends = [*starts[1:], final]
        if compat:
            ratio = len(table) // len(steps)
            ends = [Level.of(table[t - ratio]) if t >= ratio else final for t in steps]
        return cls(tuple(steps), tuple(starts), tuple(ends), prediction, tuple(table))

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def levels(self) -> tuple[Level, ...]:
        """S + 1 levels, 0 = photo, S = noisiest, in the order of a trajectory."""
        return (self.ends[-1], *reversed(self.starts))

    def down(self, level: int | None = None) -> Iterator[Step]:
        """The sampling steps from ``level`` (default: the noisiest) to the clean end."""
        count = len(self)
        for i in range(count - (count if level is None else level), count):
            yield Step(i, count, count - i, self.timesteps[i], self.starts[i], self.ends[i])

    def up(self) -> Iterator[Step]:
        """The same steps from the photo to the noise; go from ``step.clean`` to ``step.noisy``."""
        yield from reversed(list(self.down()))


def both_ends(out: Tensor, x: Tensor, at: Level, prediction: str) -> Estimate:
    """The guess at clean latents and noise that a network's output at ``x`` amounts to.

    Args:
        out: network output, same shape as ``x``.
        x: the latents that were fed to the network.
        at: the level of ``x`` (not that of the timestep, where the two differ).
        prediction: ``epsilon``, ``v_prediction`` or ``sample``.
    """
    if prediction == "epsilon":
        return Estimate((x - at.sigma * out) / at.alpha, out)
    if prediction == "v_prediction":
        return Estimate(at.alpha * x - at.sigma * out, at.alpha * out + at.sigma * x)
    if prediction == "sample":
        return Estimate(out, (x - at.alpha * out) / at.sigma)
    raise ValueError(f"unknown prediction {prediction!r}: use one of {list(PREDICTIONS)}")


def mix(est: Estimate, to: Level) -> Tensor:
    """The latents at another level: ``alpha * x0 + sigma * eps``."""
    return torch.add(to.alpha * est.x0, est.eps, alpha=to.sigma)
