"""Stage `unet`: the UNet and the text encoder, trained together on latents."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTokenizer

from p2p_real.tabletop.models import LATENT, make_scheduler, make_text_encoder, make_unet
from p2p_real.tabletop.scene import LIGHTS, Record, apply_edit, caption
from p2p_real.tabletop.train.curves import save_sheet
from p2p_real.tabletop.train.data import Scenes, held_out_records
from p2p_real.tabletop.train.latents import latent_scale, load_held_out, load_latents
from p2p_real.tabletop.train.loop import Task
from p2p_real.tabletop.train.settings import Settings
from p2p_real.tabletop.train.start import load_part, load_vae

LIGHT_UNSAID = 0.12  # share of captions without the light
UNSAID = 0.10  # share of empty captions, for guidance
OFFSET = 0.1  # standard deviation of what is added to whole channels of the noise
TRACE = 0.08  # how much of its scene the schedule's last step still shows, next to noise of 1
MOST_SNR = 5.0  # the weight of a timestep is min(snr, this) / snr


class UnetTask(Task):
    """Trains the UNet and the text encoder to tell the noise.

    Even the schedule's last step shows how bright a picture is, at the top and at the bottom, and
    a network that has learnt to read it there lets no text change the light. Noise with offsets
    hides it. Fainter traces, such as a second object's, are answered likewise: half of the noise
    holds up to as much of another scene in place of the true one, so that where trace and text
    disagree the text is believed.

    Paper:
        Efficient Diffusion Training via Min-SNR Weighting Strategy, arXiv 2303.09556; Diffusion
        With Offset Noise (N. Guttenberg, 2023).
    """

    name = "unet"
    weight_decay = 0.01
    plain = ("conv_in", "conv_out")
    average = 0.99

    def __init__(self, settings: Settings, scenes: Scenes, tokenizer: CLIPTokenizer) -> None:
        self.tokenizer = tokenizer
        self.unet = make_unet(settings.widths)
        self.text = make_text_encoder(tokenizer, settings.widths)
        if settings.start_from is not None:
            load_part(settings.start_from, "unet", self.unet)
            load_part(settings.start_from, "text_encoder", self.text)
        self.latents = load_latents(settings)
        self.shares = torch.tensor([_share(record) for record in scenes.records])
        self.captions = torch.stack([self._ids(scenes.records), self._ids(scenes.records, "light")])
        self.empty = self._tokens([""])[0].long()
        self.alphas = make_scheduler().alphas_cumprod  # [1000]
        snr = self.alphas / (1 - self.alphas)
        self.weights = (snr.clamp(max=MOST_SNR) / snr).to(settings.device)
        self.held_out = load_held_out(settings)
        self.held_out_records = held_out_records(settings.held_out)
        super().__init__(settings, {"unet": self.unet, "text": self.text})
        self.unet.to(memory_format=torch.channels_last)

    def batch(self, rng: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """Draws noisy latents, the noise in them, timesteps and caption tokens."""
        count = self.settings.batch
        rows = torch.multinomial(self.shares, count, replacement=True, generator=rng)
        x0, eps = self.latents[rows], torch.randn(count, 4, 16, 16, generator=rng)
        eps = eps + OFFSET * _slopes(torch.randn(2, count, 4, 1, 1, generator=rng))
        eps = eps + traces(x0, rng)
        short = (torch.rand(count, generator=rng) < LIGHT_UNSAID).long()
        tokens = self.captions[short, rows].long()  # [B, T]
        tokens[torch.rand(count, generator=rng) < UNSAID] = self.empty
        # one timestep from each of B equal parts of the schedule
        places = torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)
        t = (places / count * 1000).long().clamp(max=999)
        return self._noised(x0, eps, t), eps, t, tokens

    def loss(self, *batch: Tensor) -> Tensor:
        """Gives the weighted mean squared error of the predicted noise."""
        x, eps, t, tokens = batch
        return (self._error(x, eps, t, tokens) * self.weights[t]).mean()

    def measure(self) -> dict[str, float]:
        """Gives the plain error on held-out scenes, with the right captions and with wrong ones.

        The gap between them is the quantity to watch: it opens long before pictures look right.
        In one kind of wrong captions only the light is another one.
        """
        count = len(self.held_out)
        eps = torch.randn(self.held_out.shape, generator=torch.Generator().manual_seed(5))
        t = torch.arange(count) * 1000 // count
        x, tokens = self._noised(self.held_out, eps, t), self._ids(self.held_out_records).long()
        others = [_in_another_light(record) for record in self.held_out_records]
        return {
            "error": self._mean_error(x, eps, t, tokens),
            "wrong_text": self._mean_error(x, eps, t, tokens.roll(7, 0)),
            "wrong_light": self._mean_error(x, eps, t, self._ids(others).long()),
        }

    def samples(self, folder: Path) -> None:
        """Writes pictures of eight held-out captions."""
        vae = load_vae(self.settings)
        vae.register_to_config(scaling_factor=latent_scale(self.settings))
        pipe = StableDiffusionPipeline(
            vae=vae.to(self.settings.device).eval(),
            text_encoder=self.text,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        pictures = pipe(
            [caption(record) for record in self.held_out_records[:8]],
            num_inference_steps=20,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images  # [B, H, W, 3] in [0, 1]
        save_sheet(folder / "unet.png", torch.from_numpy((pictures * 255).astype(np.uint8)))

    def _error(self, x: Tensor, eps: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        context = self.text(tokens).last_hidden_state  # [B, T, D]
        return (self.unet(x, t, context).sample.float() - eps).pow(2).mean((1, 2, 3))

    def _mean_error(self, *batch: Tensor) -> float:
        device = self.settings.device
        parts = zip(*(t.split(32) for t in batch), strict=True)
        errors = [self._error(*(t.to(device) for t in part)) for part in parts]
        return float(torch.cat(errors).mean())

    def _noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alpha = self.alphas[t][:, None, None, None]
        return alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps

    def _ids(self, records: list[Record], *omit: str) -> Tensor:
        return self._tokens([caption(record, omit) for record in records])

    def _tokens(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(texts, padding="max_length", truncation=True).input_ids
        return torch.tensor(ids, dtype=torch.int16)  # [N, T]


def traces(x0: Tensor, rng: torch.Generator) -> Tensor:
    """Gives what turns a scene's faint trace in the noise into that of the scene before it.

    Args:
        x0: Latents, [B, C, H, W].
        rng: Where the draws come from.

    Returns:
        What to add to the noise, [B, C, H, W]; 0 for about half of the scenes.
    """
    shape = (len(x0), 1, 1, 1)
    share = TRACE * torch.rand(shape, generator=rng)
    share = share * (torch.rand(shape, generator=rng) < 0.5)
    return share * (x0.roll(1, 0) - x0)


def _share(record: Record) -> float:
    """Says how often a scene is drawn: handles and second objects are what is learnt last."""
    shapes = [thing["shape"] for thing in record["objects"]]
    return 1.0 + ("mug" in shapes) + 0.5 * (len(shapes) - 1)


def _slopes(values: Tensor) -> Tensor:
    """Gives planes that are even, plus such as rise from top to bottom: [2, B, C, 1, 1]."""
    even, rise = values
    return even + rise * torch.linspace(-1, 1, LATENT)[:, None]  # [B, C, 16, 1]


def _in_another_light(record: Record) -> Record:
    other = LIGHTS[(LIGHTS.index(record["light"]) + 1) % len(LIGHTS)]
    return apply_edit(record, {"op": "light", "to": other})
