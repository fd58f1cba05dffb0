"""What a run starts with: the weights of a checkpoint, or of its own stage before."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from p2p_real.tabletop.models import make_vae
from p2p_real.tabletop.train.loop import load_averaged
from p2p_real.tabletop.train.settings import Settings

KINDS = {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel, "vae": AutoencoderKL}


def load_part(folder: Path, name: str, module: nn.Module) -> None:
    """Gives a network the weights of a checkpoint's, in float32.

    Args:
        folder: A Stable Diffusion folder.
        name: A key of `KINDS`.
        module: A network of the same size.

    Raises:
        ValueError: The checkpoint's network is of another size.
    """
    loaded = KINDS[name].from_pretrained(folder / name, torch_dtype=torch.float32)
    weights = loaded.state_dict()
    shapes = {key: tensor.shape for key, tensor in weights.items()}
    if shapes != {key: tensor.shape for key, tensor in module.state_dict().items()}:
        raise ValueError(
            f"--start-from: the {name} of {folder} is of another size than --size says"
        )
    module.load_state_dict(weights)


def load_vae(settings: Settings) -> AutoencoderKL:
    """Gives the autoencoder whose encoder makes the run's latents."""
    vae = make_vae(settings.widths)
    if settings.start_from is None:
        load_averaged(settings.out, "vae", {"vae": vae})
    else:
        load_part(settings.start_from, "vae", vae)
    return vae


def given_scale(settings: Settings) -> float | None:
    """Gives the latent scale of the checkpoint the run starts from, if there is one."""
    if settings.start_from is None:
        return None
    return AutoencoderKL.load_config(settings.start_from / "vae")["scaling_factor"]
