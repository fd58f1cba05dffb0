"""Which captioner a checkpoint is for, told from its files before anything heavy is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from captioning.captioner import CaptionerError

_TYPES = {"blip": "blip", "blip-2": "blip2"}
VOCABULARY = "bert-base-uncased"  # the folder that LAVIS's tokenizer is read from


def kind_of(checkpoint: str) -> str:
    """The captioner's name for a folder or hub id; "blip" where nothing tells.

    A folder is told by the `model_type` of its config.json, or by LAVIS's vocabulary folder in it;
    a hub id by its config.json if that is in the local cache, else by its name.

    Raises:
        CaptionerError: The folder's config.json cannot be read.
    """
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return _TYPES.get(model_type_of(folder), "blip")
        return "lavis" if (folder / VOCABULARY).is_dir() else "blip"
    config = cached_file(checkpoint, "config.json") if checkpoint.count("/") == 1 else None
    if config is not None:
        return _TYPES.get(model_type_of(config.parent), "blip")
    name = checkpoint.lower()
    return "blip2" if "blip2" in name or "blip-2" in name else "blip"


def model_type_of(folder: Path) -> str:
    """What the config.json of a folder calls its model; "unnamed" where it does not.

    Raises:
        CaptionerError: The file cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config.get("model_type", "unnamed"))
    except (OSError, ValueError, AttributeError):
        raise CaptionerError(f"{folder / 'config.json'} cannot be read as JSON") from None


def cached_file(repository: str, name: str) -> Path | None:
    """A file of a hub repository, if it lies in the local cache; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, name)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
