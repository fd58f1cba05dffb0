"""Small random checkpoints of the real classes, built without any download."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizerFast,
)

WORDS = [
    "a", "an", "the", "of", "on", "in", "at", "and",
    "with", "photo", "painting", "sketch", "cat", "dog", "horse", "bird",
    "cup", "mat", "table", "grass", "snow", "red", "green", "blue",
    "black", "white", "big", "small", "fluffy", "sitting", "running", "two",
]  # fmt: skip


def small_tokenizer(*, pad: str = "<|endoftext|>") -> Any:
    """A CLIP tokenizer to which each of ``WORDS`` is one token; other words fall into pieces."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    merges: dict[tuple[str, str], int] = {}
    for word in WORDS:
        # a pair added late never comes before those that make the earlier words
        while len(pieces := _cut(word, merges)) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
    entries = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizerFast(
        vocab={e: i for i, e in enumerate(entries)},
        merges=list(merges),
        pad_token=pad,
        model_max_length=77,
    )


def _cut(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        ranks = [(merges.get(p, len(merges)), i) for i, p in enumerate(itertools.pairwise(pieces))]
        rank, i = min(ranks, default=(len(merges), 0))
        if rank == len(merges):
            return pieces
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> Any:
    """Weights that keep the size of what flows through, so that words and places matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(module.named_parameters()):
        draw = torch.randn(p.shape, generator=generator)
        if p.ndim > 1:
            gain = 5.0 if "embedding" in name and "linear" not in name else 1.0
            gain *= 1.5 if ".to_q" in name or ".to_k" in name else 1.0
            p.copy_(draw * gain / math.sqrt(p[0].numel()))
        elif name.endswith("weight"):
            p.copy_(1 + 0.1 * draw)
        else:
            p.copy_(0.05 * draw)
    return module.eval()


def small_text(kind: Any, tokenizer: Any, width: int, seed: int, **config: Any) -> Any:
    """A two-layer CLIP text encoder of ``width`` channels."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "projection_dim": width,
        "hidden_act": "quick_gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return randomise(kind(CLIPTextConfig(**settings | config)), seed)


def small_vae(seed: int, **config: Any) -> Any:
    """A VAE with a factor of 8."""
    settings: dict[str, Any] = {
        "sample_size": 128,
        "latent_channels": 4,
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "scaling_factor": 0.18215,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return randomise(AutoencoderKL(**settings | config), seed)


def small_scheduler(prediction: str = "epsilon", *, zero_snr: bool = False) -> DDIMScheduler:
    """The schedule of Stable Diffusion; with ``zero_snr`` the one that ends in pure noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
        timestep_spacing="trailing" if zero_snr else "leading",
        rescale_betas_zero_snr=zero_snr,
    )


def small_sd(
    folder: Path,
    prediction: str = "epsilon",
    *,
    zero_snr: bool = False,
    seed: int = 0,
    vae: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **unet: Any,
) -> Path:
    """Save a checkpoint in the shape of Stable Diffusion 1.x or, by its prediction, 2.x.

    Native size 128 pixels; attention at scales 1 and 2, and 4 in the middle.

    Args:
        folder: where to; made where it is missing.
        prediction: ``epsilon``, ``v_prediction`` or ``sample``.
        zero_snr: the zero-terminal-SNR schedule with trailing timesteps.
        seed: of the weights.
        vae: changes to the VAE's configuration.
        text: changes to the text encoder's configuration.
        unet: changes to the UNet's configuration.

    Returns:
        The folder.
    """
    settings: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    tokenizer = small_tokenizer()
    StableDiffusionPipeline(
        unet=randomise(UNet2DConditionModel(**settings | unet), seed),
        vae=small_vae(seed + 1, **(vae or {})),
        text_encoder=small_text(CLIPTextModel, tokenizer, 32, seed + 2, **(text or {})),
        tokenizer=tokenizer,
        scheduler=small_scheduler(prediction, zero_snr=zero_snr),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return Path(folder)


def small_sdxl(folder: Path, *, seed: int = 0, force_zeros: bool = True, **unet: Any) -> Path:
    """Save a checkpoint in the shape of SDXL: two text encoders, pooled text, time ids."""
    settings: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 16 + 32,
        "attention_head_dim": (2, 2, 4),
        "use_linear_projection": True,
        "norm_num_groups": 8,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 32 + 6 * 8,
    }
    one, two = small_tokenizer(), small_tokenizer(pad="!")
    StableDiffusionXLPipeline(
        unet=randomise(UNet2DConditionModel(**settings | unet), seed),
        vae=small_vae(seed + 1, scaling_factor=0.13025),
        text_encoder=small_text(CLIPTextModel, one, 16, seed + 2),
        text_encoder_2=small_text(
            CLIPTextModelWithProjection, two, 32, seed + 3, hidden_act="gelu"
        ),
        tokenizer=one,
        tokenizer_2=two,
        scheduler=small_scheduler(),
        force_zeros_for_empty_prompt=force_zeros,
        add_watermarker=False,
    ).save_pretrained(folder)
    return Path(folder)
