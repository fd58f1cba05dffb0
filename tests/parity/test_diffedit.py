"""DiffEdit against numbers of the published code: mask, guided inversion and edit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edit import ControlStack, FixedMask
from inversion import ClassifierFree, Denoiser, Replay, TextCond, sample
from inversion.sampling import ddim_invert
from p2p_real.backbones import load_backbone
from p2p_real.masks.sources.diffedit import above, noise_difference

from .goldens import Golden, model_folder, names


@pytest.fixture(scope="module")
def backbone() -> Any:
    return load_backbone(str(model_folder()), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", [n for n in names() if Golden.read(n).kind() == "diffedit"])
def test_golden(name: str, backbone: Any) -> None:
    golden = Golden.read(name)
    f, arrays = golden.fields, golden.arrays
    steps = f["num_inference_steps"]
    schedule = backbone.schedule(steps, compat=True)
    golden.same("in/timesteps", torch.tensor(schedule.timesteps))
    golden.close(
        "in/prompt_embeds", backbone.encode_text([f["source_prompt"], f["target_prompt"]]).embeds
    )
    golden.close("in/uncond_embeds", backbone.encode_text([""]).embeds)
    text, empty = TextCond(arrays["in/prompt_embeds"]), TextCond(arrays["in/uncond_embeds"])

    def denoiser(*rows: int) -> Denoiser:
        guide = ClassifierFree(float(f["guidance_scale"]))
        return Denoiser(backbone, text.rows(rows), empty, guide, backbone.prediction)

    # the mask; its noise is drawn after the noise of the posterior sample
    noise = arrays["in/mask_noise"]
    assert len(noise) == f["num_maps_per_mask"]
    generator = torch.Generator().manual_seed(f["seed"])
    torch.randn(noise.shape, generator=generator)
    assert torch.equal(torch.randn(noise.shape, generator=generator), noise)
    at = list(schedule.down())[steps - int(steps * f["mask_encode_strength"])]
    mask = above(noise_difference(denoiser(0, 1), arrays["in/mask_z0"], noise, at))
    golden.same("out/mask", mask)

    # the inversion, at the guidance of the edit as published
    level = int(steps * f["inpaint_strength"])
    path = ddim_invert(arrays["in/z0"], denoiser(0), schedule)[: level + 1, 0]
    golden.close("out/inverted_latents", path[1:].flip(0)[None])

    # the edit: outside the mask the latents of the level that each step starts from
    blend = FixedMask(arrays["out/mask"][None], path=path[1:])
    ends = sample(denoiser(0, 1), Replay(path), schedule, [ControlStack([blend])], all_rows=True)
    golden.close("out/latents", ends[1:])
