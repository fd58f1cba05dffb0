"""Stable Diffusion XL: two text encoders, pooled text, and the picture's size as conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversion.denoiser import TextCond

from .base import Backbone
from .names import ModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class StableDiffusionXL(Backbone):
    """SDXL base models.

    Args:
        force_zeros: the checkpoint's ``force_zeros_for_empty_prompt``: an empty negative prompt is
            zeros, not the encoding of "".
    """

    family = "sdxl"

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        tokenizers: Sequence[Any],
        text_encoders: Sequence[nn.Module],
        scheduler: Any,
        *,
        force_zeros: bool = True,
        **kwargs: Any,
    ) -> None:
        if len(tokenizers) != 2 or len(text_encoders) != 2:
            raise ModelError(
                f"{kwargs.get('name', '')!r} has {len(text_encoders)} text encoder(s) where SDXL "
                "needs two: the refiner is not supported, use the base model"
            )
        super().__init__(unet, vae, tokenizers, text_encoders, scheduler, **kwargs)
        self.force_zeros = force_zeros

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], size: tuple[int, int] | None = None) -> TextCond:
        """Penultimate states of both encoders, pooled text of the second, and the size.

        See :meth:`Backbone.encode_text`.

        Raises:
            ValueError: without ``size``.
        """
        if size is None:
            raise ValueError("SDXL conditions on the picture's size: give size=(height, width)")
        states: list[Tensor] = []
        for i, encoder in enumerate(self.text_encoders):
            ids, _ = self._ids(prompts, i)
            self._bring(encoder)
            out = encoder(ids, output_hidden_states=True)
            states.append(out.hidden_states[-2])
        embeds = torch.cat(states, dim=-1)
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self.device)
        # out is the second encoder's: its first field is the projected end token
        return TextCond(embeds.float(), out[0].float(), time_ids.repeat(len(embeds), 1))

    def empty_text(
        self, size: tuple[int, int] | None = None, negative_prompt: str = ""
    ) -> TextCond:
        """Zeros where the checkpoint asks for them, else the encoding."""
        text = self.encode_text([negative_prompt], size)
        if negative_prompt or not self.force_zeros or text.pooled is None:
            return text
        return TextCond(torch.zeros_like(text.embeds), torch.zeros_like(text.pooled), text.time_ids)

    def _added(self, cond: TextCond) -> dict[str, Tensor]:
        if cond.pooled is None or cond.time_ids is None:
            raise ValueError("SDXL needs pooled text and time_ids: make the text with encode_text")
        # time ids stay float32: they are sizes, and the network embeds them in float32
        return {
            "text_embeds": cond.pooled.to(self.device, self.dtype),
            "time_ids": cond.time_ids.to(self.device, torch.float32),
        }

    def pipeline(self) -> DiffusionPipeline:
        """See :meth:`Backbone.pipeline`."""
        from diffusers import StableDiffusionXLPipeline

        pipe: Any = StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=self.text_encoders[0],
            text_encoder_2=self.text_encoders[1],
            tokenizer=self.tokenizers[0],
            tokenizer_2=self.tokenizers[1],
            unet=self.unet,
            scheduler=self._own_scheduler(),
            force_zeros_for_empty_prompt=self.force_zeros,
            add_watermarker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe
