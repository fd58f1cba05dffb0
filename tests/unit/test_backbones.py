"""A backbone answers as diffusers' own parts do, for all three families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from edit.words import PromptTooLong
from inversion.denoiser import TextCond
from p2p_real.backbones import load_backbone
from p2p_real.backbones.base import Backbone
from p2p_real.backbones.placement import check_offload
from tests.small import small_sd, small_sdxl

KINDS = ("epsilon", "v-zero-snr", "sdxl")
SIZE = (72, 136)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "epsilon": small_sd(root / "epsilon"),
        "v-zero-snr": small_sd(root / "v", "v_prediction", zero_snr=True, seed=5),
        "sdxl": small_sdxl(root / "sdxl"),
    }


@pytest.fixture(scope="module")
def backbones(folders: dict[str, Path]) -> dict[str, Backbone]:
    return {k: load_backbone(f, device="cpu") for k, f in folders.items()}


@pytest.fixture(params=KINDS)
def backbone(request: pytest.FixtureRequest, backbones: dict[str, Backbone]) -> Backbone:
    return backbones[request.param]


def pixels(count: int = 2) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def text(backbone: Backbone, *prompts: str) -> TextCond:
    return backbone.encode_text(prompts, SIZE)


def test_what_it_is(backbones: dict[str, Backbone], folders: dict[str, Path]) -> None:
    assert [b.prediction for b in backbones.values()] == ["epsilon", "v_prediction", "epsilon"]
    assert [b.family for b in backbones.values()] == ["sd", "sd", "sdxl"]
    for kind, b in backbones.items():
        assert (b.native_size, b.multiple, b.vae_scale_factor, b.latent_channels) == (128, 8, 8, 4)
        assert b.name == folders[kind].name
        assert (b.device.type, b.dtype, b.text_length) == ("cpu", torch.float32, 77)
        for module in b.modules:
            assert not module.training
            assert not any(p.requires_grad for p in module.parameters())


def test_encode_is_the_scaled_mean_row_by_row(backbone: Backbone) -> None:
    x = pixels()
    z = backbone.encode(x)
    assert z.shape == (2, 4, 9, 17)
    assert z.dtype == torch.float32
    with torch.no_grad():
        mean = backbone.vae.encode(x[1:]).latent_dist.mean
    torch.testing.assert_close(z[1:], mean * backbone.vae.config.scaling_factor, rtol=0, atol=0)
    assert torch.equal(backbone.encode(x[1:]), z[1:])


def test_decode_undoes_the_scale_and_clamps(backbone: Backbone) -> None:
    z = backbone.encode(pixels())
    y = backbone.decode(z)
    assert y.shape == (2, 3, *SIZE)
    assert y.abs().max() <= 1
    with torch.no_grad():
        raw = backbone.vae.decode(z[:1] / backbone.vae.config.scaling_factor).sample
    torch.testing.assert_close(y[:1], raw.clamp(-1, 1))


def test_shift_means_and_deviations_are_read_from_the_configuration(tmp_path: Path) -> None:
    per_channel = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]}
    for changes in ({"shift_factor": 0.25}, per_channel):
        b = load_backbone(small_sd(tmp_path / "m", vae=changes), device="cpu")
        x = pixels(1)
        with torch.no_grad():
            mean = b.vae.encode(x).latent_dist.mean
        if changes is per_channel:
            shift, std = (torch.tensor(v).view(1, 4, 1, 1) for v in per_channel.values())
        else:
            shift, std = torch.tensor(0.25), torch.tensor(1.0)
        z = b.encode(x)
        torch.testing.assert_close(z, (mean - shift) * 0.18215 / std)
        with torch.no_grad():
            plain = b.vae.decode(mean).sample.clamp(-1, 1)
        torch.testing.assert_close(b.decode(z), plain, rtol=1e-4, atol=1e-4)


def test_wrong_shapes_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="multiples of 8 pixels, got 60 x 64"):
        backbone.encode(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match=r"pixels must be \[B, 3, H, W\]"):
        backbone.encode(torch.zeros(1, 4, 64, 64))
    with pytest.raises(ValueError, match=r"latents must be \[B, 4, h, w\]"):
        backbone.decode(torch.zeros(4, 8, 8))


def test_text_is_bit_equal_to_the_pipelines(backbone: Backbone) -> None:
    prompts = ["a photo of a fluffy cat", "two dogs, running on the snow"]
    pipe: Any = backbone.pipeline()
    cond, empty = text(backbone, *prompts), backbone.empty_text(SIZE)
    negative = backbone.empty_text(SIZE, "a blue table")
    if backbone.family == "sdxl":
        embeds, un, pooled, unpooled = pipe.encode_prompt(prompts, device="cpu")
        assert torch.equal(cond.pooled, pooled)  # type: ignore[arg-type]
        assert torch.equal(empty.pooled, unpooled[:1])  # type: ignore[arg-type]
        assert not empty.embeds.any()
        ids = pipe._get_add_time_ids(SIZE, (0, 0), SIZE, torch.float32, 32)
        assert torch.equal(cond.time_ids, ids.repeat(2, 1))  # type: ignore[arg-type]
        one = pipe.encode_prompt(prompts[0], device="cpu", negative_prompt="a blue table")
        assert torch.equal(negative.pooled, one[3])  # type: ignore[arg-type]
    else:
        embeds, un = pipe.encode_prompt(prompts, "cpu", 1, True)
        assert cond.pooled is cond.time_ids is None
        one = pipe.encode_prompt(prompts[0], "cpu", 1, True, negative_prompt="a blue table")
    assert torch.equal(cond.embeds, embeds)
    torch.testing.assert_close(empty.embeds, un[:1], rtol=0, atol=1e-6)  # one row, not two
    assert torch.equal(negative.embeds, one[1])


def test_sdxl_without_forced_zeros_encodes_the_empty_prompt(tmp_path: Path) -> None:
    b = load_backbone(small_sdxl(tmp_path / "m", force_zeros=False), device="cpu")
    assert torch.equal(b.empty_text(SIZE).embeds, text(b, "").embeds)
    with pytest.raises(ValueError, match="give size="):
        b.encode_text(["a cat"])
    with pytest.raises(ValueError, match="pooled text"):
        b.predict(torch.zeros(1, 4, 8, 8), 1, TextCond(torch.zeros(1, 77, 48)))


def test_attention_mask_only_where_the_configuration_asks(tmp_path: Path) -> None:
    folder = small_sd(tmp_path / "m", text={"use_attention_mask": True})
    b, plain = load_backbone(folder, device="cpu"), load_backbone(small_sd(tmp_path / "n"))
    expected = b.pipeline().encode_prompt(["a cat"], "cpu", 1, False)[0]
    assert torch.equal(text(b, "a cat").embeds, expected)
    assert not torch.equal(text(plain, "a cat").embeds, expected)


def test_tokens_have_spans_in_the_text_as_written(backbone: Backbone) -> None:
    prompt = "A  fluffy Cat, naïve zebra"
    tokens = backbone.tokens(prompt)
    assert tokens.text == prompt
    assert [prompt[a:b] for a, b in tokens.spans[:4]] == ["A", "fluffy", "Cat", ","]
    assert tokens.pieces[:4] == ("a", "fluffy", "cat", ",")
    assert tokens.find("cat") == (3,)
    assert len(tokens.find("zebra")) > 1
    padded = backbone.tokenizers[0](prompt).input_ids
    assert list(tokens.ids) == padded[1:-1]
    assert backbone.tokens("").ids == ()


def test_a_long_prompt_is_refused_not_cut(backbone: Backbone) -> None:
    prompt = "a cat " * 40
    assert len(backbone.tokens(prompt).ids) == 80
    with pytest.raises(PromptTooLong, match="80 tokens"):
        text(backbone, prompt)
    with pytest.raises(PromptTooLong):
        backbone.empty_text(SIZE, prompt)


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_schedule_is_the_schedulers_own(backbone: Backbone, steps: int) -> None:
    ddim = DDIMScheduler.from_config(backbone.scheduler.config)
    ddim.set_timesteps(steps)
    schedule = backbone.schedule(steps)
    shift = int(max(ddim.timesteps) > 999)  # offset 1 at 1000 steps points past the table
    assert list(schedule.timesteps) == (ddim.timesteps - shift).tolist()
    assert schedule.prediction == backbone.prediction
    for step in schedule.down():
        assert step.noisy.alpha == float(ddim.alphas_cumprod[step.t]) ** 0.5
    assert schedule.levels[0].alpha == float(ddim.final_alpha_cumprod) ** 0.5


def test_schedule_limits_and_zero_snr(backbones: dict[str, Backbone]) -> None:
    noisiest = backbones["v-zero-snr"].schedule(10).levels[-1]
    assert noisiest == (0.0, 1.0)
    for steps in (0, 1001, -3):
        with pytest.raises(ValueError, match="steps must be 1 to 1000"):
            backbones["epsilon"].schedule(steps)


@pytest.mark.parametrize("size", [(16, 16), (9, 17), (5, 3), (1, 2)])
def test_predict_is_the_unet_at_any_size(backbone: Backbone, size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(2))
    cond = text(backbone, "a cat", "a dog")
    added = None
    if backbone.family == "sdxl":
        added = {"text_embeds": cond.pooled, "time_ids": cond.time_ids}
    with torch.no_grad():
        out = backbone.predict(x, 500, cond)
        expected = backbone.unet(x, 500, cond.embeds, added_cond_kwargs=added).sample
    assert torch.equal(out, expected)
    assert out.shape == x.shape


def test_gradients_reach_text_and_latents(backbone: Backbone) -> None:
    cond = text(backbone, "a cat")
    embeds = cond.embeds.clone().requires_grad_(True)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    backbone.predict(x, 10, TextCond(embeds, cond.pooled, cond.time_ids)).square().sum().backward()
    assert embeds.grad is not None
    assert x.grad is not None
    assert embeds.grad.abs().sum() > 0
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in backbone.unet.parameters())


def test_float64_latents_are_cast_at_the_network_only(backbone: Backbone) -> None:
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    one = text(backbone, "a cat")
    with torch.no_grad():
        out = backbone.predict(x, 10, one)  # one row of text for both
    assert out.dtype == torch.float32
    assert out.shape == x.shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(folders: dict[str, Path], kind: str, dtype: str) -> None:
    b = load_backbone(folders[kind], device="cpu", dtype=dtype)
    assert str(b.dtype) == f"torch.{dtype}"
    assert b.vae.dtype == torch.float32  # force_upcast, or bfloat16
    z = b.encode(pixels(1))
    cond = text(b, "a cat")
    with torch.no_grad():
        out = b.predict(z, 500, cond)
    for value in (z, cond.embeds, out, b.decode(z)):
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()


def test_an_overflowing_vae_is_run_again_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = small_sd(tmp_path / "m", vae={"force_upcast": False})
    b = load_backbone(folder, device="cpu", dtype="float16")
    assert b.vae.dtype == torch.float16
    assert torch.isfinite(b.encode(pixels(1))).all()
    with torch.no_grad():
        b.vae.encoder.conv_in.weight.mul_(3e4)
        b.vae.encoder.conv_in.weight.clamp_(-6e4, 6e4)
    assert torch.isfinite(b.encode(pixels(1))).all()
    assert b.vae.dtype == torch.float32
    assert "overflowed" in caplog.text


def test_weights_hash(folders: dict[str, Path], backbones: dict[str, Backbone]) -> None:
    hashes = {k: b.weights_hash for k, b in backbones.items()}
    assert len(set(hashes.values())) == 3
    assert all(len(h) == 64 for h in hashes.values())
    b = load_backbone(folders["epsilon"], device="cpu", dtype="float16")
    assert b.weights_hash == hashes["epsilon"]
    for module in b.modules:
        other = load_backbone(folders["epsilon"], device="cpu")
        with torch.no_grad():
            next(other.modules[b.modules.index(module)].parameters()).flatten()[0] += 1
        assert other.weights_hash != hashes["epsilon"]


def test_noise_is_drawn_on_the_cpu_by_its_seed(backbone: Backbone) -> None:
    a = backbone.noise(SIZE, torch.Generator().manual_seed(3))
    assert a.shape == (1, 4, 9, 17)
    assert torch.equal(a, backbone.noise(SIZE, torch.Generator().manual_seed(3)))
    assert torch.equal(backbone.noise(SIZE), backbone.noise(SIZE))
    with pytest.raises(ValueError, match="multiples of 8"):
        backbone.noise((65, 64))


def test_the_pipeline_shares_the_modules_and_changes_nothing(backbone: Backbone) -> None:
    pipe: Any = backbone.pipeline()
    assert pipe.unet is backbone.unet
    assert pipe.vae is backbone.vae
    before = dict(backbone.scheduler.config)
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    x = backbone.noise((64, 64))
    pictures = [pipe("a cat", latents=x.clone(), **settings).images for _ in range(2)]
    assert (pictures[0] == pictures[1]).all()
    assert dict(backbone.scheduler.config) == before


def test_offload(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="offload needs an accelerator"):
        load_backbone(folders["epsilon"], device="cpu", offload="model")
    with pytest.raises(ValueError, match="unknown offload 'disk'"):
        check_offload("disk", torch.device("cuda"))
    assert check_offload("model", torch.device("cuda")) == "model"
    assert check_offload(None, torch.device("cpu")) == "none"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("kind", KINDS)
def test_offload_gives_the_same_and_keeps_one_module_on_the_device(
    folders: dict[str, Path], kind: str
) -> None:
    plain = load_backbone(folders[kind], device="cuda", dtype="float32")
    b = load_backbone(folders[kind], device="cuda", dtype="float32", offload="model")
    results = []
    for one in (plain, b):
        z = one.encode(pixels(1))
        with torch.no_grad():
            results.append(one.predict(z, 500, text(one, "a cat")))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    assert [m.device.type for m in b.modules].count("cuda") == 1
