"""An edit of an inverted photo: words and options made into a plan, walked, and put back."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from PIL import Image

from edit import EditContext, Plan
from inversion import ClassifierFree, Inversion, inverters
from inversion.sampling import Progress

from . import defaults
from .backbones.base import Backbone
from .fitting import Fit
from .images import Photo
from .inverting import pixel_size, replay_of
from .masks.making import subject_of
from .moving import check_inversion, located
from .numbers import check_edit_guidance
from .prompts import Prompts
from .result import EditResult
from .steering import EditControl
from .walking import Walk, run_edit

if TYPE_CHECKING:
    from .editor import Editor, Watch

logger = logging.getLogger(__name__)


def context_of(
    backbone: Backbone,
    prompts: Prompts,
    steps: int,
    latent_size: tuple[int, int],
    first_step: int = 0,
) -> EditContext:
    """What edit methods may know: the tokens of all prompts, and sizes."""
    tokens = backbone.tokens
    targets = tuple(tokens(text) for text in prompts.targets)
    return EditContext(tokens(prompts.source), targets, steps, latent_size, first_step)


def plan_of(
    backbone: Backbone,
    prompts: Prompts,
    how: EditControl,
    steps: int,
    latent_size: tuple[int, int],
    fit: Fit | None,
    watch: Watch | None = None,
    first_step: int = 0,
) -> Plan:
    """All that acts in the walk of an edit; raises what is wrong with words and settings.

    Args:
        latent_size: (h, w).
        fit: how the photo was put on the model's grid, for masks.
        watch: makes controls that look on after the others.
        first_step: index of the first step that is walked.
    """
    context = context_of(backbone, prompts, steps, latent_size, first_step)
    plan = how.plan(context, prompts, preset=defaults.preset(backbone.name), fit=fit)
    more = () if watch is None else tuple(watch(context))
    return dataclasses.replace(plan, controls=(*plan.controls, *more))


def settings_of(
    backbone: Backbone,
    prompts: Prompts,
    how: EditControl,
    steps: int,
    latent_size: tuple[int, int],
    first_step: int = 0,
) -> dict[str, Any]:
    """The settings that each edit method really has, by its name."""
    context = context_of(backbone, prompts, steps, latent_size, first_step)
    return how.resolved(context, prompts, preset=defaults.preset(backbone.name))


def edit_inversion(
    editor: Editor,
    inversion: Inversion,
    prompts: Prompts,
    how: EditControl,
    guidance_scale: float | None,
    *,
    photo: Photo | None,
    progress: Progress,
    watch: Watch | None = None,
) -> EditResult:
    """The edit of a photo whose inversion and prompts are at hand.

    Args:
        guidance_scale: None is what the inversion was made for.
        photo: itself, where it is at hand; the result is laid back into it.
        watch: makes controls that look on after the others.
    """
    check_inversion(prompts, inversion.method)
    backbone = editor.backbone
    guidance = inversion.guidance_scale if guidance_scale is None else guidance_scale
    check_edit_guidance(guidance)
    if inversion.method == "null-text" and guidance != inversion.guidance_scale:
        logger.warning(
            "null-text was fitted at guidance %g; at %g the reconstruction is off",
            inversion.guidance_scale,
            guidance,
        )
    fit = Fit.from_json(inversion.photo["fit"])
    h, w = inversion.trajectory.shape[-2:]
    subject = subject_of(editor, inversion, photo, target=prompts.target, progress=progress)
    how, prompts = how.settled(subject), located(prompts, subject, how.mask_options)
    first = inversion.steps - inversion.inverter.start_level(inversion.steps)
    plan = plan_of(backbone, prompts, how, inversion.steps, (h, w), fit, watch, first)
    share = inverters.settings(inversion.inverter).get("share")
    # what a moved object took of the source's correction would be that of its new place
    if share is not None and not (prompts.moves and how.strength > 0):
        context = context_of(backbone, prompts, inversion.steps, (h, w))
        preset = {} if share else defaults.preset(backbone.name)  # one that was asked for stays
        share = max(share, how.source_share(context, preset))
    walk = Walk(
        replay=lambda: replay_of(backbone, inversion, share=share),
        schedule=inversion.schedule,
        size=pixel_size(backbone, inversion),
        guide=inversion.inverter.guide(ClassifierFree(guidance)),
        negative_prompt=inversion.extra.get("negative_prompt", ""),
    )
    outcomes = run_edit(backbone, walk, prompts, plan, how, progress)
    picture = inversion.picture
    fitted = None if picture is None else Image.fromarray(picture.numpy())
    extra = inversion.extra
    report = {
        "photo": inversion.photo["name"],
        "method": inversion.method,
        "method_settings": inversion.settings,
        "source_share": share,
        "guidance_scale": guidance,
        "fit": fit.mode,
        "moves": [str(one) for one in prompts.moves],
        "edit_settings": settings_of(backbone, prompts, how, inversion.steps, (h, w), first),
        "seed": extra.get("seed", 0),
        "ceiling_psnr": extra.get("ceiling_psnr"),
        "inversion_seconds": extra.get("seconds"),
        "inversion_from_cache": bool(extra.get("from_cache")),
        "auto": extra.get("auto"),
    }
    return joined(
        outcome.finish(
            fitted=fitted, fit=fit, photo=photo, paste_back=how.paste_back, report=report
        )
        for outcome in outcomes
    )


def joined(results: Iterable[EditResult]) -> EditResult:
    """The first result, with the others of the same walk behind it."""
    first, *others = results
    return dataclasses.replace(first, others=tuple(others))
