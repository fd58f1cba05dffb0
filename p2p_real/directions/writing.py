"""Sentences about a word by a language model on this machine; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inversion.sampling import Progress, quiet

from .sentences import DirectionError, clean, fill

ROWS = 16  # sentences written at once
LONGEST = 24  # tokens of a sentence
ASKED = "Write a short caption of a photo that shows {a}:"


@dataclass(frozen=True)
class Writer:
    """A language model of transformers, decoder alone or encoder and decoder.

    Args:
        model, tokenizer: as transformers loads them.
        name: of the folder.
        weights_hash: hash of the weights.
    """

    model: Any
    tokenizer: Any
    name: str
    weights_hash: str

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Writer:
        """A model from a folder with its configuration, safetensors and tokenizer.

        Raises:
            DirectionError: no such folder, or no language model in it.
        """
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
        from transformers.models.auto.configuration_auto import AutoConfig

        from ..backbones.weights import hash_weights

        path = Path(folder).expanduser()
        if not (path / "config.json").is_file():
            raise DirectionError(
                f"--sentences-model {folder}: give the folder of a language model, with its "
                "config.json, tokenizer and .safetensors (nothing is fetched)"
            )
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(path, **local)
            both = getattr(config, "is_encoder_decoder", False)
            kind: Any = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
            model = kind.from_pretrained(path, use_safetensors=True, **local)
            tokenizer = AutoTokenizer.from_pretrained(path, **local)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise DirectionError(
                f"--sentences-model {folder} cannot be used as a language model: {line}"
            ) from None
        model.to(device).eval()
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right" if both else "left"
        return cls(model, tokenizer, path.resolve().name, hash_weights([model]))

    def write(self, word: str, count: int, seed: int = 0, progress: Progress = quiet) -> list[str]:
        """Sentences that hold the word, drawn from the model; equal for equal seeds.

        A sentence without the word gets it at its end, as published.
        """
        import torch

        asked = self.tokenizer(fill(ASKED, word), return_tensors="pt").to(self.model.device)
        known = asked["input_ids"].shape[1] if not self.model.config.is_encoder_decoder else 0
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        found: list[str] = []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            while len(found) < count:
                rows = min(ROWS, count - len(found))
                out = self.model.generate(
                    **asked,
                    do_sample=True,
                    top_p=0.95,
                    max_new_tokens=LONGEST,
                    num_return_sequences=rows,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
                texts = self.tokenizer.batch_decode(out[:, known:], skip_special_tokens=True)
                found += [sentence(text, word) for text in texts]
                progress("writing sentences", len(found), count)
        return found


def sentence(text: str, word: str) -> str:
    """The first line of what a model wrote, without its list number, and with the word in it."""
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()] or [""]
    first = clean(lines[0]).strip(" \"'")
    if re.search(rf"\b{re.escape(word)}\b", first, re.IGNORECASE):
        return first
    return " ".join(f"{first} {word}".split())
