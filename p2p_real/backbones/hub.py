"""Fetching a model from the hub: configuration and the safetensors that will be read, no more."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from .folder import choose_variant, component_names, stem
from .names import ALIASES, ModelError


def fetch(hub_id: str, dtype: torch.dtype, variant: str | None = None) -> Path:
    """The local folder of a hub model, fetched or from the hub's own cache.

    Args:
        hub_id: owner/name.
        dtype: float16 takes fp16 files where the model has them.
        variant: the variant asked for.

    Raises:
        ModelError: no such model, no access to it, no network, or pickles only.
    """
    try:
        # list_repo_files would retry for 20 seconds without a network
        found = HfApi().model_info(hub_id, timeout=10).siblings or []
    except GatedRepoError:
        raise ModelError(
            f"{hub_id} asks you to accept its terms on the hub first, then: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        near = difflib.get_close_matches(hub_id, ALIASES.values(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelError(f"the hub has no model {hub_id!r} (or it is private){hint}") from None
    except Exception:  # offline: many classes, by version of the hub's client
        return _cached(hub_id)
    wanted = wanted_files([f.rfilename for f in found], hub_id, dtype, variant)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{hub_id} could not be fetched: {line}") from error


def wanted_files(
    names: Sequence[str], hub_id: str, dtype: torch.dtype, variant: str | None = None
) -> list[str]:
    """Which files of a model to fetch.

    Raises:
        ModelError: it is no diffusers model, or has no safetensors.
    """
    if "model_index.json" not in names:
        raise ModelError(f"{hub_id} has no model_index.json, so it is not a diffusers model")
    xl = any(n.startswith("text_encoder_2/") for n in names)
    wanted = [n for n in names if n in ("model_index.json", "README.md")]
    for component in component_names(xl):
        inside = [n for n in names if n.startswith(f"{component}/")]
        wanted += [n for n in inside if n.endswith((".json", ".txt")) and ".index." not in n]
        if component.startswith(("tokenizer", "scheduler")):
            continue
        try:
            chosen = choose_variant(inside, component, dtype, variant)
        except ModelError as error:
            raise ModelError(f"{hub_id}: {error}") from None
        lead = f"{component}/{stem(component)}"
        middle = f".{chosen}" if chosen else ""
        wanted += [n for n in inside if n == f"{lead}{middle}.safetensors"]
        wanted += [n for n in inside if n == f"{lead}.safetensors.index{middle}.json"]
        wanted += [n for n in inside if n.startswith(f"{lead}{middle}-0") and _is_shard(n)]
    return wanted


def _is_shard(name: str) -> bool:
    return name.endswith(".safetensors") and "-of-" in name


def _cached(hub_id: str) -> Path:
    """The copy that an earlier run fetched.

    Raises:
        ModelError: there is none.
    """
    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except Exception:  # the client's classes differ by version; all mean that it is not there
        raise ModelError(
            f"{hub_id} is not on this machine and the hub cannot be reached: connect once, give a "
            "local folder or .safetensors file, or use --model tabletop"
        ) from None
