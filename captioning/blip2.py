"""Captions by BLIP-2 through transformers.

Paper: BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large
Language Models, arXiv 2301.12597.
"""

from __future__ import annotations

from typing import Any

import torch

from captioning.captioner import CaptionerError
from captioning.pretrained import PretrainedCaptioner

_UNBOUND = 512  # tokens where the language model has no table of positions (T5)


class Blip2Captioner(PretrainedCaptioner):
    """BLIP-2 with its language model; see `PretrainedCaptioner`.

    float16 on CUDA, where the smallest published one is 8 GB so, else float32.
    """

    kind = "blip2"
    model_type = "blip-2"
    default = "Salesforce/blip2-opt-2.7b"

    @staticmethod
    def model_class() -> Any:
        """The class in transformers."""
        from transformers import Blip2ForConditionalGeneration

        return Blip2ForConditionalGeneration

    def _dtype(self) -> torch.dtype:
        return torch.float16 if self.device.type == "cuda" else torch.float32

    def _load(self, source: str, local: bool) -> tuple[Any, Any, Any]:
        """As the others, and it must say which token stands for the picture."""
        loaded = super()._load(source, local)
        if loaded[2].config.image_token_index is None:
            raise CaptionerError(
                f"the config.json of the captioner {source} names no image_token_index; "
                "take a newer revision of the checkpoint"
            )
        return loaded

    def _prompt(self, prefix: str) -> torch.Tensor | None:
        """The places of the picture, then the prefix, as ids [1, T]."""
        config = self._model.config
        picture = torch.full((1, config.num_query_tokens), config.image_token_index)
        words = self._tokenizer([prefix], return_tensors="pt")["input_ids"].long()
        return torch.cat([picture, words], dim=1)

    def _room(self, prompt: torch.Tensor | None) -> int:
        text = self._model.config.text_config
        room = getattr(text, "max_position_embeddings", _UNBOUND)
        return room - (prompt.shape[1] if prompt is not None else 0)

    def _say(
        self, pixels: torch.Tensor, prompt: torch.Tensor | None, prefix: str, how: dict[str, Any]
    ) -> list[str]:
        assert prompt is not None
        ids = prompt.repeat(len(pixels), 1).to(self.device)
        out = self._model.generate(
            pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), **how
        )
        if not self._model.language_model.config.is_encoder_decoder:
            out = out[:, ids.shape[1] :]  # a decoder repeats what it was given
        said = self._tokenizer.batch_decode(out, skip_special_tokens=True)
        return [f"{prefix} {text.strip()}" for text in said]
