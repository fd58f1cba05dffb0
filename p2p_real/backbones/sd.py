"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, its last hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from inversion.denoiser import TextCond

from .base import Backbone

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class StableDiffusion(Backbone):
    """Stable Diffusion 1.x and 2.x, whatever the network predicts."""

    family = "sd"

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], size: tuple[int, int] | None = None) -> TextCond:
        """Last hidden states [B, T, D]; see :meth:`Backbone.encode_text`."""
        encoder = self.text_encoders[0]
        ids, mask = self._ids(prompts, 0)
        self._bring(encoder)
        masked = getattr(encoder.config, "use_attention_mask", False)
        embeds = encoder(ids, attention_mask=mask if masked else None)[0]
        return TextCond(embeds.float())

    def pipeline(self) -> DiffusionPipeline:
        """See :meth:`Backbone.pipeline`."""
        from diffusers import StableDiffusionPipeline

        pipe: Any = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoders[0],
            tokenizer=self.tokenizers[0],
            unet=self.unet,
            scheduler=self._own_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.scheduler = self._own_scheduler()  # the constructor rewrites an offset of 0
        pipe.set_progress_bar_config(disable=True)
        return pipe
