"""The shapes of tabletop's networks; every one is a real diffusers or transformers class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from p2p_real.tabletop.vocabulary import DECODE

PICTURE = 128  # pixels, the side of a rendered picture
LATENT = 16  # the side of its latents


@dataclass(frozen=True)
class Widths:
    """How wide the networks are.

    Attributes:
        vae: Channels of the autoencoder's four scales.
        text: Width of the text encoder.
        unet: Channels of the UNet's three scales.
        heads: Attention heads at these scales.
        captioner: Width of the captioner, vision and text.
        layers: Layers of the text encoder and of the captioner's vision half.
        groups: Groups of the normalisations: the autoencoder's, the UNet's.
    """

    vae: tuple[int, ...] = (16, 32, 64, 128)
    text: int = 128
    unet: tuple[int, ...] = (64, 128, 192)
    heads: tuple[int, ...] = (2, 4, 6)
    captioner: int = 128
    layers: int = 4
    groups: tuple[int, int] = (8, 16)


FULL = Widths()
TINY = Widths(
    vae=(16, 16, 16, 16),
    text=16,
    unet=(16, 16, 16),
    heads=(1, 1, 1),
    captioner=16,
    layers=1,
    groups=(4, 4),
)


def make_vae(widths: Widths = FULL) -> AutoencoderKL:
    """Gives the autoencoder: 8 x 8 pixels to a latent of four channels, 2.6 M parameters."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=widths.vae,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=widths.groups[0],
        mid_block_add_attention=False,
        sample_size=PICTURE,
    )
    _zero(vae, ("conv2.weight",))
    return vae


def make_text_encoder(tokenizer: CLIPTokenizer, widths: Widths = FULL) -> CLIPTextModel:
    """Gives the text encoder, 0.9 M parameters; it learns jointly with the UNet."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=widths.text,
        intermediate_size=4 * widths.text,
        projection_dim=widths.text,
        num_hidden_layers=widths.layers,
        num_attention_heads=max(1, widths.text // 32),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def make_unet(widths: Widths = FULL) -> UNet2DConditionModel:
    """Gives the UNet, 8.8 M parameters; text acts at three scales from the latents' own on.

    Residual branches start at nothing, so that the first steps only learn the easy part.
    """
    unet = UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=widths.unet,
        attention_head_dim=widths.heads,
        cross_attention_dim=widths.text,
        norm_num_groups=widths.groups[1],
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    _zero(unet, ("conv2.weight", "conv2.bias", "proj_out.weight", "proj_out.bias"))
    return unet


def make_scheduler() -> DDIMScheduler:
    """Gives Stable Diffusion's own schedule, for DDIM."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def make_captioner(tokenizer: BertTokenizer, widths: Widths = FULL) -> BlipForConditionalGeneration:
    """Gives the captioner, 1.7 M parameters; it looks at 96 x 96 pixels in patches of 8.

    Two defaults of BLIP's configuration do not fit: its token ids point into BERT's vocabulary,
    and its vision weights would start at 1e-10.
    """
    width, heads = widths.captioner, max(1, widths.captioner // 32)
    shared: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "projection_dim": 64,
    }
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": width,
        "num_hidden_layers": max(1, widths.layers - 1),
        "max_position_embeddings": tokenizer.model_max_length,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": tokenizer.convert_tokens_to_ids(DECODE),
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        **shared,
        "num_hidden_layers": widths.layers,
        "image_size": 96,
        "patch_size": 8,
        "initializer_range": 0.02,
    }
    config = BlipConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=64,
        image_text_hidden_size=64,
        label_smoothing=0.0,
    )
    return BlipForConditionalGeneration(config)


def _zero(module: nn.Module, ends: Sequence[str]) -> None:
    for name, parameter in module.named_parameters():
        if name.endswith(tuple(ends)):
            torch.nn.init.zeros_(parameter)
