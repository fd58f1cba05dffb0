"""Pictures without a photo: drawn from a seed, and edited as photos are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from inversion import ClassifierFree
from inversion.sampling import FromNoise, Progress

from . import defaults
from .directions.applying import settled
from .editing import joined, plan_of, settings_of
from .fitting import Fit
from .masks.making import drawn_subject
from .moving import located
from .numbers import check_edit_guidance
from .prompts import EditWords, PromptError
from .result import EditResult
from .steering import EditControl, excited
from .walking import Walk, draw, run_edit

if TYPE_CHECKING:
    from .editor import Editor


def generate(
    editor: Editor,
    prompt: str,
    words: EditWords,
    how: EditControl,
    *,
    steps: int,
    guidance_scale: float | None,
    negative_prompt: str,
    seed: int,
    size: tuple[int, int] | None,
    progress: Progress,
) -> EditResult:
    """A picture from a seed and, if an edit is asked for, the same picture edited.

    Args:
        prompt: what to draw.
        words, how: the edit, and how it acts.
        size: (width, height) in pixels; None is the model's own.
        steps, guidance_scale, negative_prompt, seed: of the walk.

    Raises:
        PromptError, OptionError, NothingActed: one line each.
    """
    backbone = editor.backbone
    words = settled(words, backbone)
    guidance = defaults.guidance(backbone, guidance_scale)
    defaults.check_numbers(steps=steps, guidance_scale=guidance, seed=seed)
    if not prompt.strip():
        raise PromptError("the prompt is empty: say what to draw")
    backbone.tokens(prompt).check_length()
    width, height = size or (backbone.native_size, backbone.native_size)
    generator = torch.Generator().manual_seed(seed)
    noise = backbone.noise((height, width), generator).to(backbone.device)
    walk = Walk(
        replay=lambda: FromNoise(noise, steps),
        schedule=backbone.schedule(steps),
        size=(height, width),
        guide=ClassifierFree(guidance),
        negative_prompt=negative_prompt,
    )
    report: dict[str, Any] = {"guidance_scale": guidance, "seed": seed}
    words, how = excited(words, how)
    if not words.any():
        return draw(backbone, walk, prompt, progress).finish(report=report)
    prompts = words.apply(prompt)
    check_edit_guidance(guidance)
    latent_size = (noise.shape[-2], noise.shape[-1])
    whole = Fit("resize", (width, height), (0, 0, width, height), (width, height), (width, height))
    subject = drawn_subject(editor, walk, prompt, whole, prompts.target, progress)
    how, prompts = how.settled(subject), located(prompts, subject, how.mask_options)
    plan = plan_of(backbone, prompts, how, steps, latent_size, whole)
    report["edit_settings"] = settings_of(backbone, prompts, how, steps, latent_size)
    report["moves"] = [str(one) for one in prompts.moves]
    outcomes = run_edit(backbone, walk, prompts, plan, how, progress)
    return joined(o.finish(report=report, paste_back=how.paste_back) for o in outcomes)
