"""Single checkpoint files: written here in the old layout, read back weight by weight."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from p2p_real.backbones import ModelError, load_backbone
from p2p_real.backbones.base import Backbone
from p2p_real.backbones.clip import clip_tokenizer
from p2p_real.backbones.single_file import (
    CONFIGS,
    Found,
    _config_folder,
    _scheduler,
    detect,
    shipped,
)
from tests.small import small_sd, small_sdxl

UNET_PARTS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_PARTS = {
    "mid_block.attentions.0.group_norm.": "mid.attn_1.norm.",
    "mid_block.attentions.0.to_q.": "mid.attn_1.q.",
    "mid_block.attentions.0.to_k.": "mid.attn_1.k.",
    "mid_block.attentions.0.to_v.": "mid.attn_1.v.",
    "mid_block.attentions.0.to_out.0.": "mid.attn_1.proj_out.",
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "conv_norm_out.": "norm_out.",
    "conv_shortcut.": "nin_shortcut.",
    "downsamplers.0.": "downsample.",
    "upsamplers.0.": "upsample.",
    "resnets.": "block.",
}
OPEN_CLIP_PARTS = {
    "embeddings.token_embedding.": "token_embedding.",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "self_attn.": "attn.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}


def renamed(key: str, parts: Mapping[str, str]) -> str:
    for ours, theirs in parts.items():
        key = key.replace(ours, theirs)
    return key


def old_unet(weights: Mapping[str, Tensor], layers: int, cross_up: list[bool]) -> dict[str, Tensor]:
    """UNet weights under the names of the first code; ``layers`` a block."""
    out = {}
    for key, value in weights.items():
        m = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
        if m:
            way, block, kind, j, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
            span = layers + 1
            if kind == "downsamplers":
                name = f"input_blocks.{(block + 1) * span}.0.op.{rest.removeprefix('conv.')}"
            elif kind == "upsamplers":
                name = f"output_blocks.{block * span + layers}.{1 + cross_up[block]}.{rest}"
            else:
                first = 1 + block * span + j if way == "down" else block * span + j
                side = "input_blocks" if way == "down" else "output_blocks"
                name = f"{side}.{first}.{int(kind == 'attentions')}.{rest}"
        else:
            name = next(
                (t + key.removeprefix(o) for o, t in UNET_PARTS.items() if key.startswith(o)), key
            )
        if "resnets" in key:
            name = renamed(name, RESNET_PARTS)
        out[f"model.diffusion_model.{name}"] = value
    return out


def old_vae(weights: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """VAE weights under the names of the first code."""
    out = {}
    for key, value in weights.items():
        name = re.sub(r"down_blocks\.(\d+)", r"down.\1", key)
        name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{blocks - 1 - int(m[1])}", name)
        name = renamed(name, VAE_PARTS)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            value = value[:, :, None, None]
        out[f"first_stage_model.{name}"] = value
    return out


def old_open_clip(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """An OpenCLIP text encoder: one matrix for q, k and v, the projection transposed."""
    out = {}
    for key, value in weights.items():
        name = renamed(key.removeprefix("text_model."), OPEN_CLIP_PARTS)
        if ".attn.q_proj." in name:
            qkv = [weights[key.replace("q_proj", f"{c}_proj")] for c in "qkv"]
            out[prefix + name.replace("q_proj.", "in_proj_")] = torch.cat(qkv)
        elif name == "text_projection.weight":
            out[prefix + "text_projection"] = value.T.contiguous()
        elif not re.search(r"attn\.[kv]_proj", name):
            out[prefix + name] = value
    return out


def write_single(folder: Path, path: Path, family: str, **more: Any) -> Path:
    """A diffusers folder as one file of ``sd1``, ``sd2`` or ``sdxl`` layout."""

    def weights(name: str, stem: str) -> dict[str, Tensor]:
        return load_file(folder / name / f"{stem}.safetensors")

    unet = json.loads((folder / "unet" / "config.json").read_text())
    crosses = ["Cross" in kind for kind in unet["up_block_types"]]
    out = old_unet(weights("unet", "diffusion_pytorch_model"), unet["layers_per_block"], crosses)
    out |= old_vae(weights("vae", "diffusion_pytorch_model"), 4)
    text = weights("text_encoder", "model")
    plain = {k.removeprefix("text_model."): v for k, v in text.items()}
    if family == "sd2":
        out |= old_open_clip(plain, "cond_stage_model.model.")
    else:
        lead = "conditioner.embedders.0" if family == "sdxl" else "cond_stage_model"
        out |= {f"{lead}.transformer.text_model.{k}": v for k, v in plain.items()}
    if family == "sdxl":
        second = weights("text_encoder_2", "model")
        out |= old_open_clip(second, "conditioner.embedders.1.model.")
    save_file({k: v.contiguous() for k, v in out.items()}, path, **more)
    return path


def config_only(folder: Path, to: Path) -> Path:
    """A copy of a folder's small files."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    return to


def assert_same(a: Backbone, b: Backbone) -> None:
    assert (a.family, a.prediction, a.native_size) == (b.family, b.prediction, b.native_size)
    for one, other in zip(a.modules, b.modules, strict=True):
        theirs = other.state_dict()
        assert one.state_dict().keys() == theirs.keys()
        for key, value in one.state_dict().items():
            assert torch.equal(value, theirs[key]), key
    assert a.weights_hash == b.weights_hash


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_round_trip(tmp_path: Path, family: str) -> None:
    folder = tmp_path / "model"
    if family == "sdxl":
        small_sdxl(folder)
    else:
        prediction = "v_prediction" if family == "sd2" else "epsilon"
        small_sd(folder, prediction, text={"hidden_act": "gelu"} if family == "sd2" else None)
    file = write_single(folder, tmp_path / "one.safetensors", family)
    config = config_only(folder, tmp_path / "config")
    expected = load_backbone(folder, device="cpu")
    got = load_backbone(file, device="cpu", config=config)
    assert_same(got, expected)
    assert got.name == "one"
    prompts = ["a photo of a cat", ""]
    assert torch.equal(
        got.encode_text(prompts, (64, 64)).embeds, expected.encode_text(prompts, (64, 64)).embeds
    )
    half = load_backbone(file, device="cpu", config=config, dtype="float16")
    assert (half.dtype, half.vae.dtype) == (torch.float16, torch.float32)
    assert half.weights_hash == expected.weights_hash


def test_a_folder_beside_the_file_is_its_configuration(tmp_path: Path) -> None:
    folder = small_sd(tmp_path / "model", "v_prediction")
    file = write_single(folder, tmp_path / "one.safetensors", "sd1")
    with pytest.raises(ModelError, match=r"does not fit the configuration 'sd1'"):
        load_backbone(file, device="cpu")
    config_only(folder, tmp_path / "one")
    assert_same(load_backbone(file, device="cpu"), load_backbone(folder, device="cpu"))
    with pytest.raises(ModelError, match="no configuration folder"):
        load_backbone(file, device="cpu", config=tmp_path / "nowhere")
    with pytest.raises(ModelError, match="is of another kind"):
        load_backbone(file, device="cpu", config="sdxl")


def test_a_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = small_sd(tmp_path / "model")
    file = write_single(folder, tmp_path / "one.safetensors", "sd1")
    config = config_only(folder, tmp_path / "config")
    weights = load_file(file)
    for lost in ("model.diffusion_model.out.2.bias", "first_stage_model.decoder.conv_in.bias"):
        save_file({k: v for k, v in weights.items() if k != lost}, tmp_path / "less.safetensors")
        with pytest.raises(ModelError, match=r"lacks 1 weights|does not fit"):
            load_backbone(tmp_path / "less.safetensors", device="cpu", config=config)


UNET = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
VAE = {"first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3)}
OPEN = {"cond_stage_model.model.ln_final.weight": (1024,)}
CLIP = {"cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,)}
XL = {"conditioner.embedders.1.model.ln_final.weight": (1280,)}


@pytest.mark.parametrize(
    ("keys", "metadata", "config", "prediction", "zero"),
    [
        (CLIP, {}, "sd1", None, False),
        (CLIP, {"modelspec.prediction_type": "v"}, "sd1", "v_prediction", False),
        (OPEN, {}, "sd2-v", None, False),
        (OPEN, {"modelspec.prediction_type": "epsilon"}, "sd2-base", None, False),
        (XL, {}, "sdxl", None, False),
        (XL | {"v_pred": (0,), "ztsnr": (0,)}, {}, "sdxl", "v_prediction", True),
    ],
)
def test_detection(
    keys: dict[str, tuple[int, ...]],
    metadata: dict[str, str],
    config: str,
    prediction: str | None,
    zero: bool,
) -> None:
    assert detect(UNET | VAE | keys, metadata, "x") == (config, prediction, zero)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora_unet_down.lora_up.weight": (1,)}, "is a LoRA"),
        ({"double_blocks.0.img_attn.qkv.weight": (1,)}, "Flux or SD3 .* SDXL are"),
        ({"down_blocks.0.resnets.0.conv1.weight": (1,)}, "one part of a model"),
        ({"anything": (1,)}, "no full checkpoint"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}, "reads 9 channels"),
        (UNET, "has no VAE"),
        (UNET | VAE, "has no text encoder"),
        (UNET | VAE | {"conditioner.embedders.0.model.ln_final.weight": (1,)}, "the SDXL refiner"),
    ],
)
def test_what_a_file_is_instead(keys: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        detect(keys, {}, "x.safetensors")
    assert "\n" not in str(error.value)


def test_marks_of_training_correct_a_shipped_schedule() -> None:
    marked = _scheduler(shipped("sdxl"), Found("sdxl", "v_prediction", True))
    marked.set_timesteps(10)
    assert marked.config.prediction_type == "v_prediction"
    assert marked.timesteps[0] == 999
    assert marked.alphas_cumprod[-1] == 0
    for name, prediction in {"sd2-v": "v_prediction", "sd2-base": "epsilon"}.items():
        plain = _scheduler(shipped(name), Found(name))
        assert plain.config.prediction_type == prediction
        assert plain.alphas_cumprod[-1] > 0


def test_an_undecided_sd2_file_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    path = Path("x.safetensors")
    assert _config_folder(path, None, Found("sd2-v")) == shipped("sd2-v")
    assert "config='sd2-base'" in caplog.text
    caplog.clear()
    assert _config_folder(path, Path("sd2-base"), Found("sd2-v")) == shipped("sd2-base")
    assert _config_folder(path, None, Found("sd2-v", "v_prediction")) == shipped("sd2-v")
    assert not caplog.text


#: Published parameter counts of UNet, text encoder(s); the VAE is one of 83,653,863.
COUNTS = {
    "sd1": (859_520_964, 123_060_480),
    "sd2-v": (865_910_724, 340_387_840),
    "sd2-base": (865_910_724, 340_387_840),
    "sdxl": (2_567_463_684, 123_060_480, 694_659_840),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configurations_have_the_published_sizes(name: str) -> None:
    def config(part: str) -> Any:
        return json.loads((shipped(name) / part / "config.json").read_text())

    with torch.device("meta"):
        modules: list[Any] = [
            UNet2DConditionModel.from_config(config("unet")),
            CLIPTextModel(CLIPTextConfig(**config("text_encoder"))),
        ]
        if name == "sdxl":
            second = CLIPTextConfig(**config("text_encoder_2"))
            modules.append(CLIPTextModelWithProjection(second))
        vae = AutoencoderKL.from_config(config("vae"))
    counts = tuple(sum(p.numel() for p in m.parameters()) for m in modules)
    assert counts == COUNTS[name]
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


def test_clip_tokenizer() -> None:
    one, two = clip_tokenizer(), clip_tokenizer(pad_with_zero=True)
    assert len(one) == 49408
    ids = [49406, 320, 1125, 539, 320, 2368, 49407]
    assert one("a photo of a cat").input_ids == ids
    padded = {"padding": "max_length", "max_length": 9}
    assert one("a photo of a cat", **padded).input_ids == [*ids, 49407, 49407]
    assert two("a photo of a cat", **padded).input_ids == [*ids, 0, 0]
    pieces = one("hippopotamus", add_special_tokens=False).input_ids
    assert [one.decode([i]) for i in pieces] == ["hippo", "potam", "us"]
