"""pix2pix-zero's inversion: DDIM inversion whose noise estimates are kept white.

On the way back the photo's prompt is the negative prompt, as published, unless guidance led the
way up.

``compat`` repeats the published scheduler: the first and the last timestep are skipped, the
network is asked at ``t`` and the latents are carried from level ``t - 1`` to level
``t + train steps // S - 1``; shifts come from Python's generator. The photo then stands for the
first two levels as well.

Paper: Zero-shot Image-to-Image Translation (arXiv 2302.03027), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..fixed_point import enter
from ..inverter import Cost, Recording, inverters
from ..registry import setting
from ..regularizers import Draw, draw_as_published, draw_with, whiten
from ..sampling import Progress, climb, quiet
from ..schedule import Level, Schedule, Step, both_ends
from .fixed_point import OwnGuidance

Watch = Callable[[Tensor, Tensor], None]


def unwatched(raw: Tensor, regularised: Tensor) -> None:
    """Nobody looks at the noise."""


@inverters.register("pix2pix-zero")
class Pix2PixZero(OwnGuidance):
    """Regularised DDIM inversion: noise that looks like noise, for edits that change much."""

    paper = "Zero-shot Image-to-Image Translation, arXiv 2302.03027"
    draws = True

    rounds: int = setting(5, "regularisation rounds a step; 0 is DDIM inversion", low=0, high=100)
    ac_rolls: int = setting(5, "auto-correlation steps a round", low=1, high=100)
    lambda_ac: float = setting(20.0, "weight of the auto-correlation", low=0, high=1000)
    lambda_kl: float = setting(20.0, "weight of the KL term", low=0, high=1000)
    compat: bool = setting(False, "the published levels and shifts, quirks included")

    def cost(self, steps: int) -> Cost:
        rows = max(0, steps - 2) if self.compat else steps
        return Cost(rows if self.inversion_guidance == 1 else 2 * rows)

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        return Recording(self.walk(x0, denoiser, schedule, generator=generator, progress=progress))

    @torch.no_grad()
    def walk(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
        watch: Watch = unwatched,
    ) -> Tensor:
        """The trajectory [S + 1, B, C, h, w].

        Args:
            x0: [B, C, h, w] clean latents.
            denoiser: network and text of the B photos.
            schedule: the sampling schedule.
            generator: of the shifts (``compat``: Python's generator with its seed).
            progress: called after each step.
            watch: told each step's noise before and after, [B, C, h, w] both.

        Raises:
            ValueError: ``compat`` on a schedule too short or without its table.
        """
        generator = generator or torch.Generator().manual_seed(0)
        draw = draw_as_published(generator.initial_seed()) if self.compat else draw_with(generator)
        up = self.upward(denoiser)
        shifted = shifted_levels(schedule) if self.compat else None

        def move(x: Tensor, step: Step) -> Tensor:
            if shifted is None:
                return self._step(x, step, step, up, draw, watch)
            if step.level not in shifted:
                return x
            asked, carried = shifted[step.level]
            return self._step(x, asked, carried, up, draw, watch)

        path = climb(x0, schedule, move, progress=progress, stage="pix2pix-zero inversion")
        denoiser.rows_seen += up.rows_seen
        return path

    def _step(
        self, x: Tensor, asked: Step, carried: Step, up: Denoiser, draw: Draw, watch: Watch
    ) -> Tensor:
        """Latents at ``carried.noisy``, by whitened noise of the network asked at ``asked``."""
        layout = up.full_layout()
        out = up.combine(up.predict(x, asked, layout), layout, asked, x)
        raw = both_ends(out, x, carried.clean, up.prediction).eps
        eps = whiten(
            raw,
            draw,
            rounds=self.rounds,
            ac_rolls=self.ac_rolls,
            lambda_ac=self.lambda_ac,
            lambda_kl=self.lambda_kl,
        )
        watch(raw, eps)
        return enter(eps, x, carried, "epsilon")


def shifted_levels(schedule: Schedule) -> dict[int, tuple[Step, Step]]:
    """The published steps by the level they land on: (asked at, carried between).

    Timesteps ascend without the first and the last; a step asked at ``t`` lands near the level of
    the next timestep, ``t + train steps // S - 1``.

    Raises:
        ValueError: fewer than 3 steps, or a schedule without its table.
    """
    if len(schedule) < 3 or not schedule.table:
        raise ValueError(
            "pix2pix-zero: compat skips the first and last timestep and takes levels between "
            "the others, so it needs 3 steps or more and a schedule made from a scheduler's table"
        )
    table, ratio = schedule.table, len(schedule.table) // len(schedule)
    steps = {}
    for step in schedule.up():
        if 1 < step.level < len(schedule):
            levels = [Level.of(table[max(0, i)]) for i in (step.t - 1, step.t + ratio - 1)]
            carried = Step(step.index, step.count, step.level, step.t, levels[1], levels[0])
            steps[step.level + 1] = (step, carried)
    return steps
