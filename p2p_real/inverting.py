"""Photos to inversions: encode, describe, invert together what has one size, measure, keep."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inversion import (
    ClassifierFree,
    Denoiser,
    Inversion,
    Inverter,
    NumericsError,
    Replay,
    Schedule,
    sample,
)
from inversion.inverter import Recording
from inversion.paths import Paths
from inversion.resuming import PartFile
from inversion.sampling import Progress

from . import defaults
from .backbones.base import Backbone
from .cache import InversionCache
from .fitting import Fit
from .images import Photo, psnr, to_image, to_tensor
from .measure import Meter, versions
from .numbers import finite

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A photo on its way: its prompt, what the model sees of it, and the way back."""

    photo: Photo
    prompt: str
    fitted: Image.Image
    fit: Fit

    def key(self, made_with: dict[str, Any]) -> str:
        """The cache key: everything that decides the inversion."""
        return InversionCache.key(
            photo=self.photo.sha256, fit=self.fit.to_json(), prompt=self.prompt, **made_with
        )


@dataclass
class Shared:
    """What methods that are tried one after the other on the same photos make once.

    Args:
        encoded: latents [1, C, h, w] and their decoded picture, by photo, place and size.
        paths: DDIM paths.
    """

    encoded: dict[str, tuple[Tensor, Image.Image]] = field(default_factory=dict)
    paths: Paths = field(default_factory=Paths)

    def encode(self, backbone: Backbone, jobs: list[Job]) -> tuple[Tensor, list[Image.Image]]:
        """Latents [B, C, h, w] of photos, and what the autoencoder makes of them."""
        keys = [job.key({}) for job in jobs]
        todo = [i for i, key in enumerate(keys) if key not in self.encoded]
        if todo:
            pixels = torch.cat([to_tensor(jobs[i].fitted) for i in todo]).to(backbone.device)
            x0 = backbone.encode(pixels)
            for n, (i, picture) in enumerate(zip(todo, decode(backbone, x0), strict=True)):
                self.encoded[keys[i]] = x0[n : n + 1], picture
        found = [self.encoded[key] for key in keys]
        return torch.cat([x for x, _ in found]), [picture for _, picture in found]


def guarded(backbone: Backbone, work: Callable[[], T]) -> T:
    """Run; where half precision overflowed, say so and run once more in float32."""
    try:
        return work()
    except NumericsError as e:
        if backbone.dtype == torch.float32:
            raise
        logger.warning("%s; trying again in float32", e)
        for module in backbone.modules:
            module.float()
        return work()


def decode(backbone: Backbone, latents: Tensor) -> list[Image.Image]:
    """Pictures of latents [B, C, h, w]."""
    return [to_image(p) for p in backbone.decode(latents).cpu()]


def pixel_size(backbone: Backbone, inversion: Inversion) -> tuple[int, int]:
    """(H, W) of the picture an inversion is of."""
    h, w = inversion.trajectory.shape[-2:]
    return h * backbone.vae_scale_factor, w * backbone.vae_scale_factor


def replay_of(backbone: Backbone, inversion: Inversion, *, share: float | None = None) -> Replay:
    """A fresh replay on the network's device.

    Args:
        backbone: the network.
        inversion: what is replayed.
        share: of the source's correction that the targets get, instead of the inversion's own;
            1 puts an unchanged prompt on the source's path.
    """
    tape = {k: v.to(backbone.device) for k, v in inversion.tape.items()}
    inverter: Any = inversion.inverter
    if share is not None:
        inverter = dataclasses.replace(inverter, share=share)
    replay: Replay = inverter.replay(inversion.trajectory.to(backbone.device), tape)
    return replay


def walk_back(backbone: Backbone, inversion: Inversion, progress: Progress) -> Tensor:
    """Clean latents [1, C, h, w] by the plain way back, at the inversion's guidance."""
    replay = replay_of(backbone, inversion)
    if inversion.inverter.exact and replay.pins_source:
        return replay.trajectory[:1]
    return _walk(backbone, inversion, 1, progress)


def free_walk(backbone: Backbone, inversion: Inversion, progress: Progress) -> Tensor:
    """Clean latents [1, C, h, w] of the row that an edit would change, walked with the photo's
    own prompt and no control."""
    return _walk(backbone, inversion, 2, progress)[1:]


def _walk(backbone: Backbone, inversion: Inversion, rows: int, progress: Progress) -> Tensor:
    """Clean latents of rows that all have the photo's prompt; row 0 is the source."""
    size = pixel_size(backbone, inversion)
    replay = replay_of(backbone, inversion)
    denoiser = Denoiser(
        backbone,
        backbone.encode_text([inversion.prompt] * rows, size),
        backbone.empty_text(size, inversion.extra.get("negative_prompt", "")),
        inversion.inverter.guide(ClassifierFree(inversion.guidance_scale)),
        backbone.prediction,
    )
    schedule = inversion.schedule
    return sample(denoiser, replay, schedule, progress=progress, stage="reconstruction")


def invert_together(
    backbone: Backbone,
    jobs: list[Job],
    inverter: Inverter,
    schedule: Schedule,
    made_with: dict[str, Any],
    *,
    verify: bool,
    progress: Progress,
    shared: Shared | None = None,
    part: PartFile | None = None,
) -> list[Inversion]:
    """Invert photos whose fitted pictures have one size.

    Args:
        backbone: the network.
        jobs: the photos.
        inverter: the method.
        schedule: the sampling schedule.
        made_with: method, settings, guidance_scale, negative_prompt, seed, model_hash.
        verify: walk back and measure.
        progress: called as it goes.
        shared: what earlier calls have made of these photos.
        part: where a method that can go on keeps what it has so far, or None.
    """
    size = jobs[0].fitted.size[::-1]
    shared = shared or Shared()
    with Meter(backbone.device) as meter:
        x0, ceilings = shared.encode(backbone, jobs)
        denoiser = Denoiser(
            backbone,
            backbone.encode_text([job.prompt for job in jobs], size),
            backbone.empty_text(size, made_with["negative_prompt"]),
            ClassifierFree(made_with["guidance_scale"]),
            backbone.prediction,
            paths=shared.paths,
        )

        def go() -> Recording:
            generator = torch.Generator().manual_seed(made_with["seed"])
            more: dict[str, Any] = {"keep": part} if inverter.resumable else {}
            return inverter.invert(
                x0, denoiser, schedule, generator=generator, progress=progress, **more
            )

        record = guarded(backbone, go)
    seconds = meter.seconds + (part.seconds if part is not None else 0.0)
    made = []
    for b, job in enumerate(jobs):
        ceiling = finite(psnr(ceilings[b], job.fitted))
        defaults.warn_if_foreign(backbone, job.photo.name, ceiling)
        trajectory, tape = record.photo(b)
        inversion = Inversion(
            trajectory=trajectory,
            tape=tape,
            schedule=schedule,
            method=made_with["method"],
            settings=made_with["settings"],
            prompt=job.prompt,
            guidance_scale=made_with["guidance_scale"],
            model=backbone.name,
            model_hash=made_with["model_hash"],
            photo={
                "name": job.photo.name,
                "sha256": job.photo.sha256,
                "size": list(job.photo.size),
                "fit": job.fit.to_json(),
            },
            extra={
                "negative_prompt": made_with["negative_prompt"],
                "seed": made_with["seed"],
                "ceiling_psnr": ceiling,
                "seconds": seconds / len(jobs),
                "unet_forwards": denoiser.rows_seen // len(jobs),
                "unet_backwards": denoiser.rows_backward // len(jobs),
                "peak_memory_bytes": meter.peak_memory_bytes,
                "versions": versions(),
            },
            picture=torch.from_numpy(np.array(job.fitted)),
        )
        if verify:
            back = decode(backbone, walk_back(backbone, inversion, progress))[0]
            inversion.extra["reconstruction_psnr"] = finite(psnr(back, job.fitted))
        made.append(inversion)
    return made
