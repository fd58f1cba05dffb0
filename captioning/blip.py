"""Captions by BLIP through transformers.

Paper: BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding
and Generation, arXiv 2201.12086.
"""

from __future__ import annotations

from typing import Any

import torch

from captioning.pretrained import PretrainedCaptioner


class BlipCaptioner(PretrainedCaptioner):
    """BLIP with its language model, in float32; see `PretrainedCaptioner`."""

    kind = "blip"
    model_type = "blip"
    default = "Salesforce/blip-image-captioning-base"

    @staticmethod
    def model_class() -> Any:
        """The class in transformers."""
        from transformers import BlipForConditionalGeneration

        return BlipForConditionalGeneration

    def _prompt(self, prefix: str) -> torch.Tensor | None:
        """The prefix as ids [1, T], its start and end tokens included."""
        if not prefix:
            return None
        return self._tokenizer([prefix], return_tensors="pt")["input_ids"]

    def _room(self, prompt: torch.Tensor | None) -> int:
        used = prompt.shape[1] if prompt is not None else 2
        return self._model.config.text_config.max_position_embeddings - used

    def _say(
        self, pixels: torch.Tensor, prompt: torch.Tensor | None, prefix: str, how: dict[str, Any]
    ) -> list[str]:
        given: dict[str, torch.Tensor] = {}
        if prompt is not None:
            ids = prompt.repeat(len(pixels), 1).to(self.device)  # generate writes into it
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        out = self._model.generate(pixel_values=pixels, **given, **how)
        return self._tokenizer.batch_decode(out, skip_special_tokens=True)
