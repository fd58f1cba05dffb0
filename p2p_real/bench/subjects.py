"""Networks that ways are timed on, each with a word swap to do."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from edit import Tokens
from inversion import ClassifierFree, Denoiser, Schedule, TextCond

from ..backbones import load_backbone
from ..backbones.clip import clip_tokenizer

GUIDANCE = 7.5
QUARTER: dict[str, Any] = {
    "block_out_channels": (80, 160, 320, 320),
    "layers_per_block": 2,
    "attention_head_dim": 2,  # heads: 40, 80 and 160 channels each, as in Stable Diffusion 1.x
    "cross_attention_dim": 192,
    "norm_num_groups": 16,
}
FULL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,  # heads
    "cross_attention_dim": 768,
}


@dataclass(frozen=True)
class Subject:
    """A network with a word swap to do.

    Args:
        name: in tables.
        unet: the network.
        scheduler: its scheduler; predicts epsilon, spacing leading.
        latents: [1, C, h, w].
        text: [3, T, D] of the empty prompt, the source and the target.
        tokens: of source and target.
        words: the swapped pair.
        shape: the network in a few words.
    """

    name: str
    unet: Any
    scheduler: DDIMScheduler
    latents: Tensor
    text: Tensor
    tokens: tuple[Tokens, Tokens]
    words: tuple[str, str]
    shape: str

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        """The network, as the walk asks it."""
        kind = next(self.unet.parameters()).dtype
        out: Tensor = self.unet(
            x.to(kind), t, encoder_hidden_states=cond.embeds.to(kind), return_dict=False
        )[0]
        return out.float()

    def to(self, dtype: torch.dtype) -> Subject:
        """The same with a copy of the network in another precision."""
        return dataclasses.replace(self, unet=copy.deepcopy(self.unet).to(dtype=dtype))

    def timed(self, steps: int) -> DDIMScheduler:
        """A fresh scheduler with its timesteps set."""
        made = DDIMScheduler.from_config(self.scheduler.config)
        made.set_timesteps(steps)
        return made

    def schedule(self, steps: int) -> Schedule:
        s = self.timed(steps)
        return Schedule.make(s.timesteps, s.alphas_cumprod, s.final_alpha_cumprod, compat=True)

    def denoiser(self, rows: tuple[int, ...]) -> Denoiser:
        """Text rows as branches, under guidance."""
        text = TextCond(self.text)
        guide = ClassifierFree(GUIDANCE)
        return Denoiser(self, text.rows(rows), text.rows([0]), guide)


def tabletop(device: str) -> Subject:
    """The embedded model."""
    backbone = load_backbone("tabletop", device=device, dtype="float32")
    prompts = ("a red ball on a wooden table", "a blue ball on a wooden table")
    empty, cond = backbone.empty_text(), backbone.encode_text(prompts)
    side = backbone.native_size
    return Subject(
        "tabletop",
        backbone.unet,
        backbone.scheduler,
        backbone.noise((side, side)),
        torch.cat([empty.embeds, cond.embeds]),
        (backbone.tokens(prompts[0]), backbone.tokens(prompts[1])),
        ("red", "blue"),
        f"the embedded model, latents {side // backbone.vae_scale_factor} a side",
    )


def quarter(device: str, side: int) -> Subject:
    """Stable Diffusion 1.x at 512 pixels with a quarter of its channels, heads and positions.

    Convolutions, projections and attention keep their shares of the arithmetic.
    """
    shape = (
        f"Stable Diffusion 1.x at 512 pixels with a quarter of its channels, heads and positions: "
        f"channels {QUARTER['block_out_channels']}, 2 heads, latents {side} a side; random weights"
    )
    return _random("sd-shaped", device, side, QUARTER, shape)


def sd15(device: str, side: int) -> Subject:
    """Stable Diffusion 1.5's own UNet with random weights.

    Args:
        device: where it computes.
        side: of the latents; 64 for pictures of 512 pixels.
    """
    shape = f"Stable Diffusion 1.5's UNet, latents {side} a side; random weights"
    return _random("sd-1.5", device, side, FULL, shape)


def _random(name: str, device: str, side: int, settings: dict[str, Any], shape: str) -> Subject:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet: Any = UNet2DConditionModel(sample_size=side, **settings)
    unet.eval().requires_grad_(False).to(device)
    tokenizer = clip_tokenizer()
    prompts = ("a photo of a cat sitting on a mat", "a photo of a dog sitting on a mat")
    text = torch.randn(3, 77, settings["cross_attention_dim"], generator=generator)
    text[2] = torch.lerp(text[1], text[2], 0.5)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return Subject(
        name,
        unet,
        scheduler,
        torch.randn(1, 4, side, side, generator=generator).to(device),
        text.to(device),
        (_tokens(tokenizer, prompts[0]), _tokens(tokenizer, prompts[1])),
        ("cat", "dog"),
        shape,
    )


def _tokens(tokenizer: Any, prompt: str) -> Tokens:
    found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    ids = tuple(found["input_ids"])
    spans = tuple((int(a), int(b)) for a, b in found["offset_mapping"])
    return Tokens(prompt, ids, spans, tuple(tokenizer.decode([i]) for i in ids))
