"""The way back of an inversion, watched: how far it drifts from the record, and other curves."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from inversion import ClassifierFree, Denoiser, Inversion, sample
from inversion.sampling import Intervention, Progress
from inversion.schedule import Step

from ..backbones.base import Backbone
from ..inverting import decode, guarded, pixel_size, replay_of


class Drift(Intervention):
    """RMS distance of the walked source row from the record at each level.

    Attributes:
        distances: by level, 0 = the photo; None where the walk did not come by.
    """

    def __init__(self, trajectory: Tensor) -> None:
        self.trajectory = trajectory
        self.distances: list[float | None] = [None] * len(trajectory)

    def before(self, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        if self.distances[step.level] is None:  # the level the walk starts from
            self._see(x, step.level)
        return x

    def after(self, x: Tensor, step: Step) -> Tensor:
        self._see(x, step.level - 1)
        return x

    def _see(self, x: Tensor, level: int) -> None:
        record = self.trajectory[level].to(x)
        if x.shape[1:] == record.shape:
            self.distances[level] = float((x[0] - record).square().mean().sqrt())


def walk_back(
    backbone: Backbone, inversion: Inversion, progress: Progress
) -> tuple[Image.Image, list[float | None]]:
    """The reconstruction (at the size the model sees), and its drift by level.

    A method whose source row is its record is not walked: its drift is 0 at every level.
    """
    made = replay_of(backbone, inversion)
    if inversion.inverter.exact and made.pins_source:
        return decode(backbone, made.trajectory[:1])[0], [0.0] * len(inversion.trajectory)
    size = pixel_size(backbone, inversion)
    denoiser = Denoiser(
        backbone,
        backbone.encode_text([inversion.prompt], size),
        backbone.empty_text(size, inversion.extra.get("negative_prompt", "")),
        inversion.inverter.guide(ClassifierFree(inversion.guidance_scale)),
        backbone.prediction,
    )

    def go() -> tuple[Tensor, Drift]:
        drift, replay = Drift(inversion.trajectory), replay_of(backbone, inversion)
        x = sample(
            denoiser,
            replay,
            inversion.schedule,
            [drift],
            progress=progress,
            stage="reconstruction",
        )
        return x, drift

    latents, drift = guarded(backbone, go)
    return decode(backbone, latents)[0], drift.distances


def curves(tape: dict[str, Tensor]) -> dict[str, list[float | None]]:
    """Losses and residuals of a tape, one number a sampling step (noisiest first).

    Of several numbers a step the last counts, and negative ones mean "not run"; of residual
    latents the RMS is taken.
    """
    found = {}
    for name, values in tape.items():
        if name == "losses" or "residual" in name:
            found[name] = [_number(row) for row in values]
    return found


def _number(row: Tensor) -> float | None:
    if row.ndim > 1:
        return float(row.double().square().mean().sqrt())
    run = row.flatten().double()
    run = run[torch.isfinite(run) & (run >= 0)]
    return float(run[-1]) if len(run) else None


def summary(drift: list[float | None]) -> dict[str, Any]:
    """The largest drift, and that at the photo's own level."""
    walked = [d for d in drift if d is not None]
    return {"drift_max": max(walked, default=None), "drift_end": drift[0] if drift else None}
