"""Prompts cut by the true CLIP tokenizer, as records."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from edit.words import Tokens
from p2p_real.backbones.clip import clip_tokenizer


@lru_cache
def _tokenizer() -> Any:
    return clip_tokenizer()


def cut(prompt: str) -> Tokens:
    """The tokens of a prompt with their character spans, not truncated."""
    tokenizer = _tokenizer()
    found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = tuple(found["input_ids"])
    spans = tuple((int(a), int(b)) for a, b in found["offset_mapping"])
    return Tokens(prompt, ids, spans, tuple(tokenizer.decode([i]) for i in ids))
