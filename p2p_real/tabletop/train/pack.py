"""Stage `pack`: what was trained, as folders that the ordinary classes load, in float16."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertTokenizer, BlipImageProcessor, BlipProcessor, CLIPTokenizer

from p2p_real.tabletop.models import (
    make_captioner,
    make_scheduler,
    make_text_encoder,
    make_unet,
    make_vae,
)
from p2p_real.tabletop.reader import Reader
from p2p_real.tabletop.train.latents import latent_scale
from p2p_real.tabletop.train.loop import load_averaged
from p2p_real.tabletop.train.settings import Settings

DEFAULTS = "p2p_real.json"  # a checkpoint's own settings for editing
SHARD = "12MB"  # a file's most, so that the folder travels where files must be small


def pack(settings: Settings, clip: CLIPTokenizer, bert: BertTokenizer) -> Path:
    """Writes `checkpoint/`, `captioner/` and `reader.safetensors` as the package holds them.

    A run that started from a checkpoint has the first of them only.

    Args:
        settings: A run whose stages are done.
        clip: The text encoder's tokenizer.
        bert: The captioner's tokenizer.

    Returns:
        The folder `tabletop` of the run; one that was there is replaced.
    """
    beside, final = settings.out / "tabletop.tmp", settings.out / "tabletop"
    shutil.rmtree(beside, ignore_errors=True)
    _pack_checkpoint(settings, clip, beside / "checkpoint")
    if settings.start_from is None:
        _pack_captioner(settings, bert, beside / "captioner")
        _pack_reader(settings, beside / "reader.safetensors")
    elif (settings.start_from / DEFAULTS).exists():
        shutil.copy(settings.start_from / DEFAULTS, beside / "checkpoint" / DEFAULTS)
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    return final


def _pack_checkpoint(settings: Settings, tokenizer: CLIPTokenizer, folder: Path) -> None:
    vae = make_vae(settings.widths)
    unet = make_unet(settings.widths)
    text = make_text_encoder(tokenizer, settings.widths)
    load_averaged(settings.out, "decoder", {"vae": vae})
    load_averaged(settings.out, "unet", {"unet": unet, "text": text})
    vae.register_to_config(scaling_factor=latent_scale(settings))
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(dtype=torch.float16).save_pretrained(
        folder, safe_serialization=True, max_shard_size=SHARD
    )
    _prefix(folder / "text_encoder" / "model.safetensors")
    _write_vocabulary(folder / "tokenizer")


def _pack_captioner(settings: Settings, tokenizer: BertTokenizer, folder: Path) -> None:
    model = make_captioner(tokenizer, settings.widths)
    load_averaged(settings.out, "captioner", {"model": model})
    _half(model).save_pretrained(folder)
    side = model.config.vision_config.image_size
    images = BlipImageProcessor(size={"height": side, "width": side})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    # transformers 4 reads the image processor from a file of its own, and BERT's words from a list
    images.save_pretrained(folder)
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in vocab))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _pack_reader(settings: Settings, path: Path) -> None:
    reader = Reader()
    load_averaged(settings.out, "reader", {"reader": reader})
    weights = {name: t.contiguous() for name, t in _half(reader).state_dict().items()}
    save_file(weights, path)


def _prefix(path: Path) -> None:
    """Names the text encoder's weights as Stable Diffusion's own checkpoints do."""
    weights = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def _write_vocabulary(folder: Path) -> None:
    """Writes CLIP's vocabulary in the two files that transformers 4 reads and 5 leaves out."""
    if (folder / "vocab.json").exists():
        return
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def _half(module: nn.Module) -> nn.Module:
    return module.eval().half()
