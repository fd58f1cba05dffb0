"""Reading a diffusers folder: only configuration and safetensors, every part checked by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (  # type: ignore[attr-defined]
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from .names import FAMILIES, PICKLES, ModelError, check_folder
from .placement import vae_dtype

CLASSES: dict[str, Any] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL,
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
}
WEIGHTED = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
TEXT_STEM = "model"


class Parts(NamedTuple):
    """What a backbone is made of."""

    unet: nn.Module
    vae: nn.Module
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[nn.Module, ...]
    scheduler: Any
    xl: bool
    force_zeros: bool


def component_names(xl: bool) -> list[str]:
    """The sub-folders that a model of a family has."""
    text = ["tokenizer", "text_encoder"]
    return [*text, *(f"{n}_2" for n in text if xl), "unet", "vae", "scheduler"]


def read_folder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Parts:
    """All parts of a diffusers folder.

    Args:
        folder: holds ``model_index.json``.
        dtype: of the UNet and the text encoders; the VAE's follows from its configuration.
        variant: see :func:`choose_variant`.

    Raises:
        ModelError: one line on what is missing, corrupt or not supported.
    """
    xl = "XL" in check_folder(folder)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for name in component_names(xl):
        _check_component(folder, index, name)
    tokenizers = [read_tokenizer(folder / n) for n in component_names(xl) if "tokenizer" in n]
    encoders = [
        _read_weights(folder, n, index[n][1], dtype, variant)
        for n in component_names(xl)
        if n.startswith("text_encoder")
    ]
    wanted = vae_dtype(SimpleNamespace(**_config(folder / "vae")), dtype)
    return Parts(
        unet=_read_weights(folder, "unet", index["unet"][1], dtype, variant),
        vae=_read_weights(folder, "vae", index["vae"][1], wanted, variant),
        tokenizers=tuple(tokenizers),
        text_encoders=tuple(encoders),
        scheduler=read_scheduler(folder / "scheduler"),
        xl=xl,
        force_zeros=bool(index.get("force_zeros_for_empty_prompt", xl)),
    )


def read_scheduler(folder: Path) -> DDIMScheduler:
    """A DDIM scheduler with the tables and spacing of the one that the folder describes.

    Raises:
        ModelError: a scheduler of another kind of model.
    """
    config = _config(folder, "scheduler_config.json")
    name = str(config.get("_class_name", ""))
    if name.startswith(("FlowMatch", "EDM", "Cosine")) or config.get("use_flow_sigmas"):
        raise ModelError(f"{folder} is a {name}, which is not supported: {FAMILIES} are")
    return DDIMScheduler.from_config(config)


def read_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer of a folder.

    Raises:
        ModelError: the vocabulary is not there or cannot be read.
    """
    there = {f.name for f in folder.iterdir()} if folder.is_dir() else set()
    if "tokenizer.json" not in there and not {"vocab.json", "merges.txt"} <= there:
        raise ModelError(
            f"{folder} has no vocabulary: tokenizer.json, or vocab.json and merges.txt"
        )
    try:
        tokenizer = CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder} cannot be read: {_line(error)}") from error
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), 77)
    return tokenizer


def choose_variant(
    names: Collection[str], component: str, dtype: torch.dtype, variant: str | None = None
) -> str | None:
    """Which safetensors of a component to read.

    Args:
        names: file names, relative to the model's folder.
        component: ``unet``, ``vae``, ``text_encoder`` ...
        dtype: what the component will compute in; float16 takes fp16 files where there are any.
        variant: the one asked for; None chooses the plain files, or the only variant there is.

    Raises:
        ModelError: no such variant, only pickles, or no weights.
    """
    there = variants(names, component)
    if variant is not None:
        if variant in there:
            return variant
        listed = ", ".join(sorted(v or "(plain)" for v in there)) or "none"
        raise ModelError(f"{component} has no variant {variant!r}; there: {listed}")
    preferred = ["fp16", ""] if dtype == torch.float16 else ["", "fp16"]
    for choice in (*preferred, *sorted(there)):
        if choice in there:
            return choice or None
    inside = [n for n in names if n.startswith(f"{component}/")]
    if any(n.endswith(PICKLES) for n in inside):
        raise ModelError(
            f"{component} has pickle weights only (.bin, .ckpt), which can run code when they are "
            "read: only .safetensors are loaded; convert it first"
        )
    raise ModelError(f"{component} has no weights: {stem(component)}.safetensors is missing")


def variants(names: Iterable[str], component: str) -> set[str]:
    """The variants of a component's safetensors; the plain files are ``""``."""
    found = set()
    lead = f"{component}/{stem(component)}."
    for name in names:
        if not name.startswith(lead):
            continue
        rest = name[len(lead) :]
        if rest.endswith(".json") and rest.startswith("safetensors.index"):  # shards
            found.add(rest.removeprefix("safetensors.index").removesuffix("json").strip("."))
        elif rest == "safetensors":
            found.add("")
        elif rest.endswith(".safetensors") and "-of-" not in rest:
            found.add(rest.removesuffix(".safetensors"))
    return found


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without the loading bars of both libraries; they come back as they were."""
    shown = [log for log in (transformers_logging, diffusers_logging) if _shows_bars(log)]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def _shows_bars(log: Any) -> bool:
    return bool(log.is_progress_bar_enabled())


def stem(component: str) -> str:
    """How a component's weight files are called."""
    return WEIGHTED.get(component, TEXT_STEM)


def listing(folder: Path) -> list[str]:
    """File names of a folder, relative to it, with forward slashes."""
    return [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]


def check_safetensors(path: Path) -> None:
    """Open a file's header.

    Raises:
        ModelError: it is cut off or no safetensors file at all.
    """
    try:
        with safe_open(str(path), "pt"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is corrupt or incomplete ({_line(error)}): download it again"
        ) from error


def _check_component(folder: Path, index: dict[str, Any], name: str) -> None:
    """A component is named, there, and of a class that works."""
    entry = index.get(name) or [None, None]
    where = folder / name
    if not entry[1] or not where.is_dir():
        raise ModelError(
            f"{folder} has no {name}: the download is incomplete, or it is no base model"
        )
    weighted = name in WEIGHTED or name.startswith("text_encoder")
    if weighted and entry[1] not in CLASSES:
        raise ModelError(f"{where} is a {entry[1]}, which is not supported: {FAMILIES} are")
    needed = "scheduler_config.json" if name == "scheduler" else "config.json"
    if not name.startswith("tokenizer") and not (where / needed).is_file():
        raise ModelError(f"{where} has no {needed}: the download is incomplete")


def _read_weights(
    folder: Path, name: str, kind: str, dtype: torch.dtype, variant: str | None
) -> nn.Module:
    """One module with its weights in ``dtype``, none left at random."""
    where = folder / name
    files = [f"{name}/{f}" for f in listing(where)]
    try:
        chosen = choose_variant(files, name, dtype, variant)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    for file in files:
        if file.endswith(".safetensors") and (not chosen or chosen in file):
            check_safetensors(folder / file)
    try:
        with quiet_bars():
            model, info = CLASSES[kind].from_pretrained(
                str(where),
                dtype=dtype,
                variant=chosen,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{where} cannot be read: {_line(error)}") from error
    missing = sorted(k for k in info["missing_keys"] if not k.endswith("position_ids"))
    if missing:
        raise ModelError(f"{where} lacks {len(missing)} weights, the first is {missing[0]!r}")
    return model if model.dtype == dtype else model.to(dtype)


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    path = folder / name
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
