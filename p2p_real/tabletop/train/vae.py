"""Stages `vae` and `decoder`: the autoencoder, and its decoder trained on behind it."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d

from p2p_real.tabletop.models import PICTURE, make_vae
from p2p_real.tabletop.train.curves import save_sheet
from p2p_real.tabletop.train.data import Scenes, held_out_images, signed, unsigned
from p2p_real.tabletop.train.latents import load_means
from p2p_real.tabletop.train.loop import Task
from p2p_real.tabletop.train.settings import Settings
from p2p_real.tabletop.train.start import load_vae

CROP = 64


class VaeTask(Task):
    """Trains the autoencoder on crops and, at the end, on whole pictures.

    The group norms must have seen whole pictures at last; crops are four times as cheap.
    """

    name = "vae"
    lr = 3e-3
    betas = (0.9, 0.95)
    plain = ("conv_in", "conv_out", "quant")
    flat = 0.0
    average = 0.995
    cropped = 0.7  # share of the stage

    def __init__(self, settings: Settings, scenes: Scenes) -> None:
        self.vae = self._start(settings)
        self.scenes = scenes
        self.held_out = signed(held_out_images(settings)[:48]).to(settings.device)
        super().__init__(settings, {"vae": self.vae})
        self.vae.to(memory_format=torch.channels_last)

    def _start(self, settings: Settings) -> AutoencoderKL:
        return make_vae(settings.widths)

    def batch(self, rng: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """Draws pictures in [-1, 1]: half a batch of crops, or an eighth of whole pictures."""
        crops = progress < self.cropped
        count = max(self.settings.workers, self.settings.batch // (2 if crops else 8))
        x = signed(self.scenes.images(self.scenes.draw(rng, count)))  # [B, 3, H, W]
        if crops:
            corners = torch.randint(PICTURE - CROP + 1, (count, 2), generator=rng).tolist()
            x = torch.stack(
                [p[:, i : i + CROP, j : j + CROP] for p, (i, j) in zip(x, corners, strict=True)]
            )
        side = x.shape[-1] // 8
        return x, torch.randn(count, 4, side, side, generator=rng)

    def loss(self, *batch: Tensor) -> Tensor:
        """Gives how far pictures come back, in value and in gradient, plus a light KL."""
        x, noise = batch
        mean, logvar = self.vae.quant_conv(self.vae.encoder(_last(x))).float().chunk(2, 1)
        logvar = logvar.clamp(-20, 10)
        z = mean + noise * (0.5 * logvar).exp()
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        return self._error(x, z) + 5e-4 * kl

    def measure(self) -> dict[str, float]:
        """Gives the mean PSNR of whole held-out pictures, in dB."""
        error = (self._back() - self.held_out).div(2).pow(2).mean((1, 2, 3))
        return {"psnr": float(-10 * error.log10().mean())}

    def samples(self, folder: Path) -> None:
        """Writes eight held-out pictures over what comes back of them."""
        both = torch.cat([self.held_out[:8], self._back()[:8]])
        save_sheet(folder / f"{self.name}.png", unsigned(both))

    def _error(self, x: Tensor, z: Tensor) -> Tensor:
        d = self.vae.decoder(self.vae.post_quant_conv(z)).float() - x
        return d.abs().mean() + 4 * d.pow(2).mean() + 0.5 * _edges(d)

    def _back(self) -> Tensor:
        means = [self.vae.encode(x).latent_dist.mean for x in self.held_out.split(8)]
        return torch.cat([self.vae.decode(z).sample for z in means]).clamp(-1, 1)


class DecoderTask(VaeTask):
    """Trains the decoder on, and the encoder within a hair of what it gave before.

    The latents of a picture move by a few percent of their standard deviation: little enough for
    the UNet that has learnt from them before, and enough to let fine things reach the decoder that
    a frozen encoder withholds.
    """

    name = "decoder"
    lr = 5e-4
    flat = 0.4
    average = 0.998
    hold = 0.3  # times the latents' squared move, in their variance

    def __init__(self, settings: Settings, scenes: Scenes) -> None:
        super().__init__(settings, scenes)
        self.means = load_means(settings)
        self.spread = float(self.means.std())

    def _start(self, settings: Settings) -> AutoencoderKL:
        return load_vae(settings)

    def batch(self, rng: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """Draws an eighth of a batch of pictures in [-1, 1], and their latents before."""
        rows = self.scenes.draw(rng, max(self.settings.workers, self.settings.batch // 8))
        return signed(self.scenes.images(rows)), self.means[rows]

    def loss(self, *batch: Tensor) -> Tensor:
        """Gives how far pictures come back, above all as PSNR, and how far latents have moved."""
        x, before = batch
        z = self.vae.quant_conv(self.vae.encoder(_last(x))).float().chunk(2, 1)[0]
        d = self.vae.decoder(self.vae.post_quant_conv(_last(z))).float() - x
        error = d.pow(2).mean((1, 2, 3)).add(1e-5).log().mean()
        moved = (z - before).div(self.spread).pow(2).mean()
        return 0.1 * error + 0.25 * _edges(d) + self.hold * moved


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _edges(d: Tensor) -> Any:
    return _steepness(d) + _steepness(avg_pool2d(d, 2))


def _steepness(d: Tensor) -> Any:
    across = (d[..., 1:] - d[..., :-1]).abs().mean()
    return across + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
