"""Reading one ``.safetensors`` file in the layout of the first Stable Diffusion code."""

from __future__ import annotations

import importlib.resources
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from diffusers import StableDiffusionXLPipeline as XLPipeline
from safetensors import safe_open

from .clip import clip_tokenizer
from .folder import Parts, check_safetensors, quiet_bars, read_scheduler, read_tokenizer
from .names import FAMILIES, ModelError, check_folder
from .placement import vae_dtype

logger = logging.getLogger(__name__)

CONFIGS = ("sd1", "sd2-v", "sd2-base", "sdxl")
UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = {"sd1": "cond_stage_model.transformer.", "sd2": "cond_stage_model.model."}
XL_TEXT = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
METADATA = "modelspec.prediction_type"


class Found(NamedTuple):
    """What a file's header says: the shipped configuration that fits, and marks of training."""

    config: str
    prediction: str | None = None
    zero_snr: bool = False


def read_file(path: Path, dtype: torch.dtype, config: Path | None = None) -> Parts:
    """All parts of a single checkpoint.

    Args:
        path: the file.
        dtype: of the UNet and the text encoders.
        config: a diffusers folder of which only the small files are read, or the name of a shipped
            configuration (``sd1``, ``sd2-v``, ``sd2-base``, ``sdxl``); it has the last word.
            Default: a folder beside the file with its name, else what the file's keys tell.

    Raises:
        ModelError: one line on what the file is instead, or lacks.
    """
    check_safetensors(path)
    with safe_open(str(path), "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        found = detect(shapes, file.metadata() or {}, path)
    folder = _config_folder(path, config, found)
    xl = "XL" in check_folder(folder)
    if xl != (found.config == "sdxl"):
        raise ModelError(f"{path} is {found.config}, the configuration {folder} is of another kind")
    marks = found if config is None and folder == shipped(found.config) else None
    scheduler = _scheduler(folder, marks)
    tokenizers = _tokenizers(folder, found.config)
    parts: Any = {"tokenizer": tokenizers[0], "scheduler": scheduler}
    if xl:
        parts["tokenizer_2"] = tokenizers[1]
    else:
        parts |= {"safety_checker": None, "feature_extractor": None}
    place = {"config": str(folder), "local_files_only": True}
    vae_config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    as_vae = vae_dtype(AutoencoderKL.from_config(vae_config).config, dtype)
    try:
        with quiet_bars():
            vae = AutoencoderKL.from_single_file(str(path), subfolder="vae", dtype=as_vae, **place)
            family: Any = XLPipeline if xl else StableDiffusionPipeline
            pipe = family.from_single_file(
                str(path), dtype=dtype, vae=vae, image_encoder=None, **parts, **place
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"{path} does not fit the configuration {folder.name!r}: {line}"
        ) from error
    encoders = (pipe.text_encoder, pipe.text_encoder_2) if xl else (pipe.text_encoder,)
    for name, module in {"UNet": pipe.unet, "VAE": vae, "text encoder": encoders[-1]}.items():
        missing = [key for key, p in module.named_parameters() if p.is_meta]
        if missing:
            raise ModelError(f"{path} lacks {len(missing)} weights of the {name}: {missing[0]!r}")
    zeros = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return Parts(
        unet=pipe.unet,
        vae=vae,
        tokenizers=tokenizers,
        text_encoders=encoders,
        scheduler=scheduler,
        xl=xl,
        force_zeros=bool(zeros.get("force_zeros_for_empty_prompt", xl)),
    )


def detect(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], path: object
) -> Found:
    """Which family a file's keys and shapes belong to.

    Args:
        shapes: shape of every tensor.
        metadata: the file's own notes.
        path: for messages.

    Raises:
        ModelError: a LoRA, a part of a model, an inpainting model, the refiner, another family.
    """
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        raise ModelError(f"{path} {_what_else(shapes)}")
    if first[1] != 4:
        raise ModelError(
            f"{path} reads {first[1]} channels where latents have 4: inpainting and instruction "
            "models are not supported, use the plain model"
        )
    if not _any(shapes, VAE):
        raise ModelError(f"{path} has no VAE ({VAE}*): only full checkpoints are loaded")
    v = metadata.get(METADATA, "").lower() in ("v", "v_prediction") or "v_pred" in shapes
    marks = ("v_prediction" if v else None, "ztsnr" in shapes)
    if _any(shapes, XL_TEXT[1]):
        return Found("sdxl", *marks)
    if _any(shapes, "conditioner.embedders.0.model."):
        raise ModelError(f"{path} is the SDXL refiner, which is not supported: use the base model")
    if _any(shapes, TEXT["sd2"]):
        said = metadata.get(METADATA, "").lower()
        if said in ("epsilon", "eps"):
            return Found("sd2-base", None, marks[1])
        return Found("sd2-v", *marks)
    if _any(shapes, TEXT["sd1"]):
        return Found("sd1", *marks)
    raise ModelError(f"{path} has no text encoder: only full checkpoints are loaded")


def _what_else(keys: Collection[str]) -> str:
    """What a file without a Stable Diffusion UNet is, as the rest of a sentence."""
    if any("lora" in k.lower() for k in keys):
        return "is a LoRA, not a model: give it as the LoRA of a model"
    if any("double_blocks." in k or "joint_blocks." in k for k in keys):
        return f"is a Flux or SD3 model, which is not supported: {FAMILIES} are"
    if any(k.startswith(("down_blocks.", "encoder.", "text_model.")) for k in keys):
        return "is one part of a model: give the whole diffusers folder, or a full checkpoint"
    return f"is no full checkpoint of {FAMILIES}: it has no {UNET}*"


def _config_folder(path: Path, config: Path | None, found: Found) -> Path:
    """The folder with the configuration of a file."""
    if config is not None:
        if str(config) in CONFIGS:
            return shipped(str(config))
        if not config.is_dir():
            raise ModelError(f"no configuration folder {str(config)!r}: give one, or {CONFIGS}")
        return config
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    if found.config == "sd2-v" and found.prediction is None:
        logger.warning(
            "%s does not say what it predicts; taken as 2.1 (v-prediction, 768 pixels). For a base "
            "model (512 pixels) give config='sd2-base'",
            path,
        )
    return shipped(found.config)


def shipped(name: str) -> Path:
    """The folder of a shipped configuration."""
    return Path(str(importlib.resources.files("p2p_real.backbones"))) / "configs" / name


def _scheduler(folder: Path, found: Found | None) -> DDIMScheduler:
    """The configuration's scheduler; a shipped one is corrected by the file's marks of training."""
    scheduler: Any = read_scheduler(folder / "scheduler")
    changes: dict[str, Any] = {}
    if found and found.prediction:
        changes["prediction_type"] = found.prediction
    if found and found.zero_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return DDIMScheduler.from_config(scheduler.config, **changes) if changes else scheduler


def _tokenizers(folder: Path, config: str) -> tuple[Any, ...]:
    """The configuration's tokenizers, or CLIP's."""
    names = ["tokenizer", "tokenizer_2"] if config == "sdxl" else ["tokenizer"]
    if (folder / "tokenizer").is_dir():
        return tuple(read_tokenizer(folder / n) for n in names)
    # Stable Diffusion 1 and the first encoder of SDXL pad with the end token, OpenCLIP with "!"
    zero = [config.startswith("sd2"), True]
    return tuple(clip_tokenizer(pad_with_zero=z) for z in zero[: len(names)])


def _any(keys: Collection[str], lead: str) -> bool:
    return any(k.startswith(lead) for k in keys)
