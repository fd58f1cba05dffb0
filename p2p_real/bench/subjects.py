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
# SDXL's blocks, depths, heads, text and time ids, with half the channels of each head and layer
XL: dict[str, Any] = {
    "block_out_channels": (160, 320, 640),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # heads
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TINY: dict[str, Any] = {
    "block_out_channels": (8, 16, 32),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 16,
    "norm_num_groups": 8,
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
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
        pooled: [3, E] pooled text of the prompts (SDXL), or None.
        time_ids: [3, 6] size conditioning (SDXL), or None.
        stored_scale: the published code keeps maps of layers at this scale or coarser.
    """

    name: str
    unet: Any
    scheduler: DDIMScheduler
    latents: Tensor
    text: Tensor
    tokens: tuple[Tokens, Tokens]
    words: tuple[str, str]
    shape: str
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    stored_scale: int = 2

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        """The network, as the walk asks it."""
        kind = next(self.unet.parameters()).dtype
        out: Tensor = self.unet(
            x.to(kind),
            t,
            encoder_hidden_states=cond.embeds.to(kind),
            added_cond_kwargs=_added(cond.pooled, cond.time_ids),
            return_dict=False,
        )[0]
        return out.float()

    def added(self, rows: list[int]) -> dict[str, Tensor] | None:
        """What the network is told of some text rows besides the text."""
        if self.pooled is None or self.time_ids is None:
            return None
        return _added(self.pooled[rows], self.time_ids[rows])

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
        text = TextCond(self.text, self.pooled, self.time_ids)
        guide = ClassifierFree(GUIDANCE)
        return Denoiser(self, text.rows(rows), text.rows([0]), guide)


def _added(pooled: Tensor | None, time_ids: Tensor | None) -> dict[str, Tensor] | None:
    if pooled is None or time_ids is None:
        return None
    return {"text_embeds": pooled, "time_ids": time_ids}


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
    """Stable Diffusion 1.x with a quarter of its channels and heads, each head as wide as there.

    At a quarter of the positions, too, convolutions, projections and attention keep their shares of
    the arithmetic: 32 a side stands for pictures of 512 pixels.
    """
    shape = (
        f"Stable Diffusion 1.x with a quarter of its channels and heads: channels "
        f"{QUARTER['block_out_channels']}, 2 heads, latents {side} a side; random weights"
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


def half_sdxl(device: str, side: int) -> Subject:
    """SDXL's UNet with half of its channels and random weights.

    Args:
        device: where it computes.
        side: of the latents; 128 for pictures of 1024 pixels.
    """
    shape = (
        "SDXL's UNet with its own depths, heads and text and half of its channels; random weights"
    )
    return _xl("sdxl-half", device, side, XL, shape)


def sdxl_blocks(device: str, side: int) -> Subject:
    """SDXL's blocks, text and time ids, small: depths 1, 2 and 3."""
    shape = "SDXL's blocks at a fortieth of its channels; random weights"
    return _xl("sdxl-blocks", device, side, {**XL, **TINY}, shape)


def _xl(name: str, device: str, side: int, settings: dict[str, Any], shape: str) -> Subject:
    made = _random(name, device, side, settings, shape)
    inside = settings["projection_class_embeddings_input_dim"]
    width = inside - 6 * settings["addition_time_embed_dim"]
    pooled = torch.randn(3, width, generator=torch.Generator().manual_seed(1)).to(device)
    pixels = 8.0 * side
    ids = torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]], device=device)
    return dataclasses.replace(made, pooled=pooled, time_ids=ids.expand(3, -1), stored_scale=4)


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
