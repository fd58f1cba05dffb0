"""One request to invert: photos, numbers and a method; what the cache knows is not made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inversion import Inversion, inverters
from inversion.sampling import Progress

from . import defaults
from .backbones.base import Backbone
from .cache import InversionCache
from .inverting import Job, Shared, invert_together
from .numbers import check_negative


@dataclass(frozen=True)
class Request:
    """What all photos of one call share.

    Args:
        backbone: the network.
        cache: where inversions are kept, or None.
        steps, guidance_scale, negative_prompt, seed: as in :meth:`p2p_real.Editor.invert`; a
            guidance_scale of None is the method's own.
        progress: called as it goes.
        shared: what methods that are tried one after the other need not make again.
    """

    backbone: Backbone
    cache: InversionCache | None
    steps: int
    guidance_scale: float | None
    negative_prompt: str
    seed: int
    progress: Progress
    shared: Shared = field(default_factory=Shared)

    def made_with(self, method: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Everything besides the photo that decides an inversion, as plain data.

        Raises:
            UnknownMethod, SettingError, OptionError: names what cannot be used.
        """
        inverter = inverters.create(method, **settings)
        check_negative(inverter, self.negative_prompt)
        return {
            "method": method,
            "settings": inverters.settings(inverter),
            "model": self.backbone.name,
            "model_hash": self.backbone.weights_hash,
            "dtype": str(self.backbone.dtype),
            "guidance_scale": defaults.guidance(self.backbone, self.guidance_scale, method),
            "negative_prompt": self.negative_prompt,
            "timesteps": self.backbone.schedule(self.steps).timesteps,
            "seed": self.seed,
        }

    def make(
        self, jobs: Sequence[Job], method: str, settings: dict[str, Any], *, verify: bool
    ) -> list[Inversion]:
        """Inversions of all photos by one method, in their order; those of one size together.

        Args:
            jobs: the photos.
            method: its name; settings: those that differ from its defaults.
            verify: walk back once and measure the reconstruction.
        """
        made_with = self.made_with(method, settings)
        found = [self._cached(job, made_with, verify) for job in jobs]
        sizes = {job.fitted.size for job, have in zip(jobs, found, strict=True) if have is None}
        for size in sorted(sizes):
            todo = [i for i, j in enumerate(jobs) if found[i] is None and j.fitted.size == size]
            keys = [jobs[i].key(made_with) for i in todo]
            part = None if self.cache is None else self.cache.part(keys)
            made = invert_together(
                self.backbone,
                [jobs[i] for i in todo],
                inverters.create(method, **settings),
                self.backbone.schedule(self.steps),
                made_with,
                verify=verify,
                progress=self.progress,
                shared=self.shared,
                part=part,
            )
            for i, key, inversion in zip(todo, keys, made, strict=True):
                found[i] = inversion
                if self.cache is not None:
                    self.cache.put(key, inversion)
            if part is not None:
                part.remove()
        return [inversion for inversion in found if inversion is not None]

    def _cached(self, job: Job, made_with: dict[str, Any], verify: bool) -> Inversion | None:
        if self.cache is None:
            return None
        found = self.cache.get(job.key(made_with))
        if found is None or (verify and "reconstruction_psnr" not in found.extra):
            return None
        defaults.warn_if_foreign(self.backbone, job.photo.name, found.extra["ceiling_psnr"])
        return dataclasses.replace(
            found,
            extra={**found.extra, "from_cache": True},
            photo={**found.photo, "name": job.photo.name},
        )
