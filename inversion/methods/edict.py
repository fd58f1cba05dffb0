"""EDICT: two latents that move each other, so that every step can be undone exactly.

Each latent is moved by what the network says of the other one, and the two are then drawn together
a little. Every one of these moves is linear in what it changes, so going up is the same moves
solved for their input: nothing is approximated, whatever the network, at any guidance.

The partner lives in the replay and no edit hears of it: controls act in both of a step's calls, a
local blend changes the first latent only.

Paper: EDICT: Exact Diffusion Inversion via Coupled Transformations (arXiv 2211.12446), equations 9
to 15.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Denoiser, Guide, Layout
from ..inverter import Cost, Inverter, Recording, inverters
from ..registry import setting
from ..sampling import NumericsError, Progress, Replay, quiet
from ..schedule import Schedule, Step, both_ends, mix
from .edit_friendly import SourceGuided

LONG = 100  # steps of a walk whose rounding float64 still hides


def linear(step: Step, prediction: str) -> tuple[float, float]:
    """A step down as ``x_clean = A x_noisy + B out``: A and B.

    The step is linear in the latents and in the network's output whatever that predicts, so A and B
    are what it makes of (1, 0) and of (0, 1). For noise predictions they are the paper's.

    Raises:
        ValueError: the step forgets the latents (A = 0), so that nothing could undo it.
    """
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64).unbind()
    a = float(mix(both_ends(zero, one, step.noisy, prediction), step.clean))
    b = float(mix(both_ends(one, zero, step.noisy, prediction), step.clean))
    if a == 0 or not abs(a) + abs(b) < float("inf"):
        raise ValueError(
            f"no exact inversion of step {step.index + 1} of {step.count}: under this schedule its "
            f"end does not depend on its start ({prediction}, signal {step.noisy.alpha:.3g} to "
            f"{step.clean.alpha:.3g}); use --method direct"
        )
    return a, b


def float64(x: Tensor) -> Tensor:
    """The latents in double precision, which exactness over many steps needs.

    Raises:
        ValueError: the device has none.
    """
    if x.device.type == "mps":
        raise ValueError("this inversion needs float64 latents, which mps lacks: use --device cpu")
    return x.double()


def output(x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
    """Guided network output [B, C, h, w] in float64; the network itself sees float32."""
    x = x.float()
    return denoiser.combine(denoiser.predict(x, step, layout), layout, step, x).double()


class Coupled(Replay):
    """The two latents, moved together; only the first is shown.

    In company the source row is its record, which is where its own moves lead to rounding.
    """

    def __init__(self, method: Edict, trajectory: Tensor, pair: Tensor) -> None:
        super().__init__(trajectory)
        self.method, self.pair = method, pair  # pair [S, 2, C, h, w] float64
        self.partner = pair[:0, 1]

    def level(self) -> int:
        return self.method.start_level(len(self.pair))

    def start(self, branches: int) -> Tensor:
        self.pins_source = branches > 1
        x, y = self.pair[len(self.pair) - self.level()]
        self.partner = y.expand(branches, *y.shape)
        return x.expand(branches, *x.shape).clone()

    def step(self, x: Tensor, step: Step, denoiser: Denoiser, layout: Layout) -> Tensor:
        x, y = self.method.down(x, self.partner, step, denoiser, layout)
        if len(x) > 1:
            last = step.level == 1
            record = self.trajectory[:1].double().expand(2, -1, -1, -1)
            x_own, y_own = record if last else self.pair[step.index + 1]
            x, y = torch.cat([x_own[None], x[1:]]), torch.cat([y_own[None], y[1:]])
        self.partner = y
        return x


@inverters.register("edict")
class Edict(Inverter):
    """EDICT: exact for any network and guidance; two evaluations a step, latents in float64."""

    paper = "EDICT, arXiv 2211.12446"
    exact = True

    mixing: float = setting(
        0.93,
        "share of itself that a latent keeps when the two are drawn together; nearer to 1 in walks "
        "of more than 100 steps",
        low=0.5,
        high=1,
    )
    leapfrog: bool = setting(True, "let the two latents take turns at moving first")
    source_guidance: float = setting(
        0.0, "guidance_scale of the source, up and down; 0: that of the edit", low=0, high=50
    )
    skip: float = setting(
        0.0, "fraction of the walk that the way back leaves out at the noisy end", low=0, high=1
    )

    def start_level(self, steps: int) -> int:
        """The level at which the way back starts, 1 to ``steps``."""
        return max(1, steps - round(self.skip * steps))

    def cost(self, steps: int) -> Cost:
        return Cost(2 * steps if self.source_guidance == 1 else 4 * steps)

    def guide(self, guide: Guide) -> Guide:
        return SourceGuided(self.source_guidance, guide) if self.source_guidance else guide

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return Coupled(self, trajectory, tape["pair"])

    def share(self, step: Step) -> float:
        """The mixing of a step. Undoing it multiplies rounding by 1 / share, twice a step, so a
        long walk mixes as much as one of 100 steps does in all."""
        return self.mixing ** min(1.0, LONG / step.count)

    def swapped(self, step: Step) -> bool:
        """Whether the second latent moves first; told by the level, so up and down agree."""
        return self.leapfrog and step.level % 2 == 1

    def down(
        self, x: Tensor, y: Tensor, step: Step, denoiser: Denoiser, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Both latents one level cleaner, each [B, C, h, w] float64."""
        a, b = linear(step, denoiser.prediction)
        p = self.share(step)
        if self.swapped(step):
            x, y = y, x
        x = a * x + b * output(y, step, denoiser, layout)
        y = a * y + b * output(x, step, denoiser, layout)
        if self.swapped(step):
            x, y = y, x
        x = p * x + (1 - p) * y
        return x, p * y + (1 - p) * x

    def up(
        self, x: Tensor, y: Tensor, step: Step, denoiser: Denoiser, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """:meth:`down`, undone."""
        a, b = linear(step, denoiser.prediction)
        p = self.share(step)
        y = (y - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        if self.swapped(step):
            x, y = y, x
        y = (y - b * output(x, step, denoiser, layout)) / a
        x = (x - b * output(y, step, denoiser, layout)) / a
        return (y, x) if self.swapped(step) else (x, y)

    @torch.no_grad()
    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        guide = denoiser.guide
        own = denoiser.with_guide(
            ClassifierFree(self.source_guidance) if self.source_guidance else guide
        )
        layout = own.full_layout()
        x = y = float64(x0)
        path, pairs = [x0.float()], []
        for done, step in enumerate(schedule.up(), 1):
            x, y = self.up(x, y, step, own, layout)
            if not torch.isfinite(x + y).all():
                raise NumericsError(
                    f"edict inversion: values are not finite at step {done} of {step.count}: "
                    "run in float32 (--dtype float32) or lower the guidance"
                )
            path.append(x.float())
            pairs.append(torch.stack([x, y], dim=1))
            progress("edict inversion", done, len(schedule))
        denoiser.rows_seen += own.rows_seen
        return Recording(torch.stack(path), {"pair": torch.stack(pairs[::-1])})
