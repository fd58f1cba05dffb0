"""What the captioners of transformers share: a checkpoint that is checked, and one way to ask."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from captioning.captioner import CaptionerError, check_question
from captioning.checkpoints import model_type_of
from captioning.cleaning import tidy

_BATCH = 8  # pictures at a time
_NEEDED = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json"),
    ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model"),
    ("preprocessor_config.json", "processor_config.json"),
)


class PretrainedCaptioner(ABC):
    """A captioner from a local folder or from the hub.

    Args:
        checkpoint: A folder (read without the network), a hub id, or None for the default.
        device: A torch device; None takes CUDA, then MPS, then the CPU.

    Raises:
        CaptionerError: The checkpoint is missing, incomplete, or of another kind of model.
    """

    kind: ClassVar[str]  # the name in the registry
    model_type: ClassVar[str]  # what config.json calls it
    default: ClassVar[str]  # a hub id

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        source = os.fspath(checkpoint) if checkpoint is not None else self.default
        local = _check_checkpoint(source, self.model_type, self.default)
        self.device = torch.device(device) if device is not None else _best_device()
        self.name = f"{self.kind} ({Path(source).name if local else source})"
        with _quiet():
            self._processor, self._tokenizer, model = self._load(source, local)
        self._model = model.to(self.device).eval()

    @staticmethod
    @abstractmethod
    def model_class() -> Any:
        """The class in transformers."""

    @abstractmethod
    def _prompt(self, prefix: str) -> torch.Tensor | None:
        """The single-spaced prefix as ids [1, T]; None where nothing need be said."""

    @abstractmethod
    def _room(self, prompt: torch.Tensor | None) -> int:
        """How many tokens may follow the prompt."""

    @abstractmethod
    def _say(
        self, pixels: torch.Tensor, prompt: torch.Tensor | None, prefix: str, how: dict[str, Any]
    ) -> list[str]:
        """Captions, prefix included, of pixels [B, 3, H, W] on the device."""

    def _dtype(self) -> torch.dtype:
        return torch.float32

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
        check_question(images, num_beams, max_new_tokens)
        prefix = " ".join(prefix.split())
        prompt = self._prompt(prefix)
        room = self._room(prompt)
        if room < 1:
            raise CaptionerError(f"the prefix is too long for this captioner: {prefix[:60]!r}...")
        how: dict[str, Any] = {"max_new_tokens": min(max_new_tokens, room)}
        if sample:
            how |= {"do_sample": True, "top_p": 0.9, "top_k": 0, "num_beams": 1}
        else:
            how |= {"do_sample": False, "num_beams": num_beams}
        # Drawing one by one, each from the seed, makes a caption independent of its neighbours;
        # so does half precision, whose rounding depends on how many are multiplied together.
        size = 1 if sample or self._dtype() != torch.float32 else _BATCH
        captions: list[str] = []
        for start in range(0, len(images), size):
            pictures = [image.convert("RGB") for image in images[start : start + size]]
            pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.device, self._dtype())
            with torch.inference_mode(), self._seeded(seed) if sample else nullcontext():
                captions += [tidy(text) for text in self._say(pixels, prompt, prefix, how)]
        return captions

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """The global random state at this seed, and afterwards as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    def _load(self, source: str, local: bool) -> tuple[Any, Any, Any]:
        """Image processor, tokenizer and model of a checkpoint."""
        from transformers import AutoTokenizer

        where = str(Path(source).expanduser()) if local else source
        here = local or not _hub_answers(source)
        try:
            processor = _processor_class().from_pretrained(where, local_files_only=here)
            tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=here)
            model, report = self.model_class().from_pretrained(
                where,
                local_files_only=here,
                dtype=self._dtype(),
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises anything from OSError to SafetensorError
            if here and not local:
                raise CaptionerError(
                    f"the captioner {source} is not on this machine and the hub cannot be "
                    "reached: connect once, or give a local folder"
                ) from error
            reason = " ".join(str(error).split())[:200]
            remedy = "is the folder complete?" if local else "is it the right hub id?"
            raise CaptionerError(
                f"cannot load the captioner {source}: {remedy} ({reason})"
            ) from error
        lost = [key for key in report["missing_keys"] if key.endswith("weight")]
        if lost:
            raise CaptionerError(
                f"the weights of the captioner {source} are incomplete: {len(lost)} tensors are "
                f"missing, among them {min(lost)}"
            )
        return processor, tokenizer, model


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _hub_answers(source: str) -> bool:
    """Whether the hub can be asked; where not, its client would retry for a minute or more."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(source, timeout=10)
    except HfHubHTTPError:
        return True  # it answered; loading tells what is wrong
    except Exception:  # offline: many classes, by version of the hub's client
        return False
    return True


def _check_checkpoint(source: str, model_type: str, default: str) -> bool:
    """Whether the checkpoint is a local folder; CaptionerError when it cannot be used."""
    folder = Path(source).expanduser()
    if not folder.exists():
        if source.startswith(("/", ".", "~")) or source.count("/") != 1 or "\\" in source:
            raise CaptionerError(
                f"there is no captioner folder {source}; name a folder or a hub id like {default}"
            )
        return False
    if not folder.is_dir():
        raise CaptionerError(f"the captioner {source} is a file; name the folder it lies in")
    if (folder / "config.json").is_file() and (found := model_type_of(folder)) != model_type:
        raise CaptionerError(
            f"the captioner folder {source} holds a {found!r} model, not {model_type!r}"
        )
    missing = [
        " or ".join(names[:2])
        for names in _NEEDED
        if not any((folder / name).is_file() for name in names)
    ]
    if missing:
        pickled = any(folder.glob("pytorch_model*.bin"))
        raise CaptionerError(
            f"the captioner folder {source} lacks {'; '.join(missing)}"
            + (" (pickles are not read: save it as safetensors)" if pickled else "")
        )
    return True


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
