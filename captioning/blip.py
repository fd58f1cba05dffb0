"""Captions by BLIP through transformers.

Paper: BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding
and Generation, arXiv 2201.12086.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from captioning.captioner import CaptionerError
from captioning.cleaning import tidy

DEFAULT_CHECKPOINT = "Salesforce/blip-image-captioning-base"
_BATCH = 8  # pictures at a time
_NEEDED = (
    ("config.json",),
    ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"),
    ("tokenizer.json", "vocab.txt"),
    ("preprocessor_config.json", "processor_config.json"),
)


class BlipCaptioner:
    """BLIP with its language model, from a local folder or from the hub.

    Args:
        checkpoint: A folder (read without the network), a hub id, or None for the base model.
        device: A torch device; None takes CUDA, then MPS, then the CPU.

    Raises:
        CaptionerError: The checkpoint is missing, incomplete, or not a BLIP captioner.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Loads the weights in float32."""
        source = os.fspath(checkpoint) if checkpoint is not None else DEFAULT_CHECKPOINT
        local = _check_checkpoint(source)
        self.device = torch.device(device) if device is not None else _best_device()
        self.name = f"blip ({Path(source).name if local else source})"
        with _quiet():
            self._processor, self._tokenizer, model = _load(source, local)
        self._model = model.to(self.device).eval()

    def caption(
        self,
        images: Sequence[Image.Image],
        prefix: str = "",
        *,
        num_beams: int = 3,
        sample: bool = False,
        seed: int = 0,
        max_new_tokens: int = 30,
    ) -> list[str]:
        """One tidy caption a picture; see `Captioner.caption`.

        Raises:
            CaptionerError: A number below 1, or a prefix that fills the whole text.
        """
        if isinstance(images, Image.Image):
            raise CaptionerError("caption takes a list of pictures; put the one into a list")
        if num_beams < 1 or max_new_tokens < 1:
            raise CaptionerError(
                f"beams ({num_beams}) and new tokens ({max_new_tokens}) must be at least 1"
            )
        prompt = self._prompt(prefix)
        room = self._model.config.text_config.max_position_embeddings
        room -= prompt.shape[1] if prompt is not None else 2
        if room < 1:
            raise CaptionerError(f"the prefix is too long for this captioner: {prefix[:60]!r}...")
        how: dict[str, Any] = {"max_new_tokens": min(max_new_tokens, room)}
        if sample:
            how |= {"do_sample": True, "top_p": 0.9, "top_k": 0, "num_beams": 1}
        else:
            how |= {"do_sample": False, "num_beams": num_beams}
        # Drawing one by one, each from the seed, makes a caption independent of its neighbours.
        size = 1 if sample else _BATCH
        captions: list[str] = []
        for start in range(0, len(images), size):
            with torch.inference_mode(), self._seeded(seed) if sample else nullcontext():
                captions += self._generate(images[start : start + size], prompt, how)
        return captions

    def _prompt(self, prefix: str) -> torch.Tensor | None:
        """The prefix as ids [1, T], its start and end tokens included."""
        if not prefix.strip():
            return None
        return self._tokenizer([" ".join(prefix.split())], return_tensors="pt")["input_ids"]

    def _generate(
        self, images: Sequence[Image.Image], prompt: torch.Tensor | None, how: dict[str, Any]
    ) -> list[str]:
        pictures = [image.convert("RGB") for image in images]
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        given: dict[str, torch.Tensor] = {}
        if prompt is not None:
            ids = prompt.repeat(len(pictures), 1).to(self.device)  # generate writes into it
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        out = self._model.generate(pixel_values=pixels.to(self.device), **given, **how)
        return [tidy(text) for text in self._tokenizer.batch_decode(out, skip_special_tokens=True)]

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """The global random state at this seed, and afterwards as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _check_checkpoint(source: str) -> bool:
    """Whether the checkpoint is a local folder; CaptionerError when it cannot be used."""
    folder = Path(source).expanduser()
    if not folder.exists():
        if source.startswith(("/", ".", "~")) or source.count("/") != 1 or "\\" in source:
            raise CaptionerError(
                f"there is no captioner folder {source}; name a folder or a hub id like "
                f"{DEFAULT_CHECKPOINT}"
            )
        return False
    if not folder.is_dir():
        raise CaptionerError(f"the captioner {source} is a file; name the folder it lies in")
    missing = [
        " or ".join(names[:2])
        for names in _NEEDED
        if not any((folder / name).is_file() for name in names)
    ]
    if missing:
        raise CaptionerError(f"the captioner folder {source} lacks {'; '.join(missing)}")
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise CaptionerError(f"{folder / 'config.json'} cannot be read as JSON") from None
    if kind != "blip":
        raise CaptionerError(f"the captioner folder {source} holds a {kind!r} model, not 'blip'")
    return True


def _load(source: str, local: bool) -> tuple[Any, Any, Any]:
    """Image processor, tokenizer and model of a checkpoint."""
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    where = str(Path(source).expanduser()) if local else source
    try:
        processor = _processor_class().from_pretrained(where, local_files_only=local)
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local)
        model, report = BlipForConditionalGeneration.from_pretrained(
            where, local_files_only=local, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers raises anything from OSError to SafetensorError
        reason = " ".join(str(error).split())[:200]
        remedy = (
            "is the folder complete?"
            if local
            else "is the network there? Else give a local folder as the checkpoint"
        )
        raise CaptionerError(f"cannot load the captioner {source}: {remedy} ({reason})") from error
    lost = [key for key in report["missing_keys"] if key.endswith("weight")]
    if lost:
        raise CaptionerError(
            f"the weights of the captioner {source} are incomplete: {len(lost)} tensors are "
            f"missing, among them {min(lost)}"
        )
    return processor, tokenizer, model


def _processor_class() -> Any:
    """The image processor that needs no torchvision: under its own name in transformers 5."""
    import transformers

    own = getattr(transformers, "BlipImageProcessorPil", None)
    return own if own is not None else transformers.BlipImageProcessor


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar while weights of a few files are read."""
    import transformers

    logging: Any = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
