"""pix2pix-zero's edit: every golden of it, through the public classes in compat mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edit import ControlStack, EditContext, edits, sites_of
from inversion import ClassifierFree, Denoiser, Replay, TextCond, sample
from p2p_real.backbones import load_backbone
from p2p_real.directions import Direction

from .goldens import Golden, model_folder, names

MINE = [n for n in names() if n.startswith("c_") and Golden.read(n).has("out/edit_latents")]


@pytest.fixture(scope="module")
def backbone() -> Any:
    return load_backbone(str(model_folder()), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", MINE)
def test_golden(name: str, backbone: Any) -> None:
    golden = Golden.read(name)
    f = golden.fields
    assert golden.name == f["name"]
    assert f["dtype"] == "float32"
    for key, shape in f["arrays"].items():
        assert list(golden.arrays[key].shape) == shape, key
    steps = f["num_inference_steps"]
    schedule = backbone.schedule(steps, compat=True)
    golden.same("in/timesteps", torch.tensor(schedule.timesteps))
    cross = [s.name.removesuffix(".processor") for s in sites_of(backbone.unet).values() if s.cross]
    assert f["layers"] == cross
    assert f["ref_map_layer"] in cross

    text = backbone.encode_text([f["prompt"]])
    golden.close("in/prompt_embeds", text.embeds)
    direction = Direction.between(backbone, f["source_sentences"], f["target_sentences"])
    golden.close("in/edit_dir", direction.embeds[None])

    source = TextCond(golden.arrays["in/prompt_embeds"])
    target = TextCond(source.embeds + golden.arrays["in/edit_dir"])
    uncond = backbone.encode_text([f["negative_prompt"]])
    if golden.has("in/uncond_embeds"):
        golden.close("in/uncond_embeds", uncond.embeds)
        uncond = TextCond(golden.arrays["in/uncond_embeds"])
    guide = ClassifierFree(float(f["guidance_scale"]))
    cond = TextCond.cat([source, target])
    x = golden.arrays["in/x_T"][0]

    gradients: list[Tensor] = []
    tokens = backbone.tokens(f["prompt"])
    context = EditContext(tokens, (tokens,), steps, (x.shape[-2], x.shape[-1]))
    method = edits.create("pix2pix-zero", guidance_amount=f["guidance_amount"], compat=True)
    (control,) = method.controls(context)
    control.watch = gradients.append
    replay = Replay(x.expand(steps + 1, *x.shape))
    stack = ControlStack([control])
    ours = sample(Denoiser(backbone, cond, uncond, guide), replay, schedule, [stack])
    (report,) = stack.report()
    golden.close("out/reconstruction", ours[:1])
    golden.close("out/losses", torch.tensor(report["losses"]))
    golden.close("out/x_in_grad", torch.stack(gradients))
    golden.close("out/edit_latents", ours[1:])
