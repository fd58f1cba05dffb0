"""`auto`: the cheapest inversion whose measured reconstruction is near enough to the best possible.

Methods are tried in order of cost. Those that begin with the plain DDIM path share it, so a second
try costs its own part only; a photo that is reached leaves the tries, the others go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from inversion import Inversion, Inverter, inverters
from inversion.registry import Registry, SettingError, setting

from .images import psnr
from .inverting import Job, decode, free_walk, guarded
from .making import Request
from .numbers import AUTO, OptionError, finite

LADDER = ("direct", "negative-prompt", "belm", "edict", "null-text")  # by measured cost


class _Methods(Registry[Inverter]):
    """The inversion methods and `auto`."""

    def _find(self) -> dict[str, type[Inverter]]:
        found = {name: inverters[name] for name in inverters}
        return {AUTO: Auto, **found}


@dataclasses.dataclass(frozen=True)
class Auto(Inverter):
    """The cheapest of some methods whose reconstruction, measured, is near the best possible."""

    name = AUTO
    paper = "Chooses among the others; what it tried is in the report"

    target: float = setting(
        0.3, "how many dB below the autoencoder's own round trip is near enough", low=0, high=60
    )
    judge: str = setting(
        "photo",
        "what is measured: the photo's own reconstruction, or the row that an edit would change, "
        "walked with the photo's prompt (direct leaves that row free)",
        choices=("photo", "edited"),
    )
    methods: str = setting("+".join(LADDER), "what is tried, cheapest first, joined by +")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.names
        for name in names:
            if name == AUTO:
                raise SettingError("auto: methods: auto cannot try itself")
            inverters.create(name)
        if not names or len(set(names)) < len(names):
            raise SettingError(f"auto: methods={self.methods!r}: give each method once")

    @property
    def names(self) -> list[str]:
        """The methods in the order in which they are tried."""
        return [part.strip() for part in self.methods.split("+") if part.strip()]

    def forwards(self, steps: int) -> str:
        return f"{inverters.create(self.names[0]).forwards(steps)}, more where it does not reach"


inversions: Registry[Inverter] = _Methods("inversion", "inversion.methods")


def choose(request: Request, jobs: Sequence[Job], auto: Auto, *, verify: bool) -> list[Inversion]:
    """For each photo the first method that reaches, else the best of those tried.

    ``extra["auto"]`` of each inversion says what was tried and why it stopped; its seconds and
    rows are those of all tries, without the measuring.

    Args:
        request: the numbers of the call.
        jobs: the photos.
        auto: the choice's settings.
        verify: measure the photo's own reconstruction also where another row is judged.

    Raises:
        OptionError: no method of the list can be used with the other options.
    """
    best: list[Inversion | None] = [None] * len(jobs)
    tried: list[list[dict[str, Any]]] = [[] for _ in jobs]
    for name in auto.names:
        todo = [i for i in range(len(jobs)) if not (tried[i] and tried[i][-1]["reached"])]
        if not todo:
            break
        try:
            request.made_with(name, {})
        except OptionError as error:
            for i in todo:
                tried[i].append({"method": name, "reached": False, "why": str(error)})
            continue
        measured = verify or auto.judge == "photo"
        found = request.make([jobs[i] for i in todo], name, {}, verify=measured)
        for i, made in zip(todo, found, strict=True):
            row = _judged(request, jobs[i], made, auto)
            tried[i].append(row)
            if best[i] is None or row["psnr"] > _figure(tried[i], best[i]):
                best[i] = made
    return [_told(made, rows, auto) for made, rows in zip(best, tried, strict=True)]


def _judged(request: Request, job: Job, made: Inversion, auto: Auto) -> dict[str, Any]:
    """One try as plain data: what it reached and what it cost."""
    ceiling = made.extra["ceiling_psnr"]
    reached = made.extra.get("reconstruction_psnr")
    if auto.judge == "edited":
        backbone = request.backbone
        latents = guarded(backbone, lambda: free_walk(backbone, made, request.progress))
        reached = finite(psnr(decode(backbone, latents)[0], job.fitted))
    # equal pictures have no finite PSNR: nothing is nearer
    below = 0.0 if ceiling is None or reached is None else ceiling - reached
    return {
        "method": made.method,
        "psnr": 99.0 if reached is None else reached,
        "below_ceiling": below,
        "reached": below <= auto.target,
        "seconds": made.extra["seconds"],
        "unet_forwards": made.extra["unet_forwards"],
        "unet_backwards": made.extra["unet_backwards"],
        "from_cache": bool(made.extra.get("from_cache")),
    }


def _figure(rows: list[dict[str, Any]], made: Inversion | None) -> float:
    """What the method of an inversion had reached."""
    return max((r["psnr"] for r in rows if made and r["method"] == made.method), default=-1.0)


def _told(made: Inversion | None, rows: list[dict[str, Any]], auto: Auto) -> Inversion:
    """The chosen inversion with the story of the choice."""
    if made is None:
        raise OptionError(f"--method auto: {rows[-1]['why']}")
    last = rows[-1]
    if last["reached"]:
        why = (
            f"{made.method} is {max(0.0, last['below_ceiling']):.2f} dB below the best possible, "
            f"within {auto.target:g}"
        )
    else:
        why = (
            f"none came within {auto.target:g} dB of the best possible; {made.method} came nearest"
        )
    story = {"target_db": auto.target, "judge": auto.judge, "tried": rows, "why": why}
    whole = ("seconds", "unet_forwards", "unet_backwards")
    cost = {key: sum(row.get(key, 0) for row in rows) for key in whole}
    return dataclasses.replace(made, extra={**made.extra, **cost, "auto": story})
