"""Stage `latents`: every scene through the encoder once."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from p2p_real.tabletop.train.data import chunk_files, held_out_images, signed
from p2p_real.tabletop.train.settings import Settings
from p2p_real.tabletop.train.start import given_scale, load_vae
from p2p_real.tabletop.train.state import read_facts, read_tensors, write_tensors


def make_latents(settings: Settings) -> None:
    """Encodes all scenes; a file that is there already is left as it is."""
    folder = settings.out / "latents"
    images = chunk_files(settings.out / "data")
    todo = [path for path in images if not (folder / path.name).exists()]
    if not todo and (folder / "held_out.safetensors").exists():
        return
    vae, scale = load_vae(settings), given_scale(settings)
    vae.to(settings.device).eval()
    for path in tqdm(todo, desc="latents", unit="file", initial=len(images) - len(todo)):
        pictures = read_tensors(path)[0]["images"].permute(0, 3, 1, 2)
        _write(folder / path.name, _encode(vae, pictures, settings), scale)
    z = _encode(vae, held_out_images(settings), settings)
    _write(folder / "held_out.safetensors", z, scale)


def latent_scale(settings: Settings) -> float:
    """Gives what latents are multiplied with to have a standard deviation of about 1."""
    return read_facts(settings.out / "latents" / "held_out.safetensors")["scale"]


def load_latents(settings: Settings) -> Tensor:
    """Reads the scaled latents of all scenes, [N, 4, 16, 16]."""
    return load_means(settings) * latent_scale(settings)


def load_means(settings: Settings) -> Tensor:
    """Reads what the encoder gave for all scenes, [N, 4, 16, 16]."""
    files = chunk_files(settings.out / "latents")
    return torch.cat([read_tensors(path)[0]["latents"] for path in files]).float()


def load_held_out(settings: Settings) -> Tensor:
    """Reads the scaled latents of the held-out scenes, [N, 4, 16, 16]."""
    path = settings.out / "latents" / "held_out.safetensors"
    return read_tensors(path)[0]["latents"].float() * latent_scale(settings)


def _write(path: Path, z: Tensor, scale: float | None) -> None:
    write_tensors(path, {"latents": z.half()}, {"scale": scale or 1 / float(z.std())})


@torch.no_grad()
def _encode(vae: AutoencoderKL, images: Tensor, settings: Settings) -> Tensor:
    batches = images.split(25)
    means = [vae.encode(signed(x).to(settings.device)).latent_dist.mean.cpu() for x in batches]
    return torch.cat(means)
