"""CLIP's tokenizer from the vocabulary shipped beside this file (see configs/clip/LICENSE.txt)."""

from __future__ import annotations

import gzip
import importlib.resources
from typing import Any

from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(*, pad_with_zero: bool = False) -> Any:
    """The tokenizer of all Stable Diffusion models, 49,408 entries.

    Args:
        pad_with_zero: pad with id 0 ("!") as OpenCLIP does, not with the end token.
    """
    files = importlib.resources.files("p2p_real.backbones")
    packed = (files / "configs" / "clip" / "merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    merges = [(a, b) for a, b in (line.split() for line in lines)]
    symbols = byte_symbols()
    entries = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in merges), START, END]
    return CLIPTokenizerFast(
        vocab={entry: i for i, entry in enumerate(entries)},
        merges=merges,
        pad_token="!" if pad_with_zero else END,
        model_max_length=77,
    )


def byte_symbols() -> list[str]:
    """One printable character for each byte, in the order of the vocabulary.

    Printable Latin-1 bytes stand for themselves and come first; the others follow from U+0100 on.
    """
    printable = [b for b in range(256) if 0x21 <= b <= 0x7E or (b >= 0xA1 and b != 0xAD)]
    return [*map(chr, printable), *(chr(256 + i) for i in range(256 - len(printable)))]
