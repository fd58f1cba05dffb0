"""A network with its text side and its picture codec: all that the house knows of diffusers' parts.

The modules are borrowed: their weights are never changed, and whoever plugs something into them
takes it out again. What they are is read from their own configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from edit.words import Tokens
from inversion.denoiser import TextCond
from inversion.schedule import PREDICTIONS, Schedule

from .names import ModelError
from .placement import check_offload, vae_dtype
from .weights import hash_weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

logger = logging.getLogger(__name__)


class Backbone:
    """Borrowed modules and what one may ask of them; the families are subclasses.

    Args:
        unet: the network, a ``UNet2DConditionModel``; its dtype is the backbone's.
        vae: the picture codec, an ``AutoencoderKL``.
        tokenizers: one a text encoder.
        text_encoders: one (SD) or two (SDXL).
        scheduler: any diffusers scheduler; its tables and spacing are taken over.
        name: what the model is called in reports.
        device: where to compute.
        licence: short name of the weights' licence, if known.
        offload: ``model`` keeps only the module in use on the device.

    Raises:
        ModelError: parts that do not belong together or that no method here can use.
        ValueError: an unknown offload, or one without an accelerator.
    """

    family: ClassVar[str] = "sd"

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        tokenizers: Sequence[Any],
        text_encoders: Sequence[nn.Module],
        scheduler: Any,
        *,
        name: str = "",
        device: str | torch.device = "cpu",
        licence: str | None = None,
        offload: str | None = None,
    ) -> None:
        self.unet: Any = unet
        self.vae: Any = vae
        self.tokenizers = tuple(tokenizers)
        self.text_encoders: tuple[Any, ...] = tuple(text_encoders)
        self.name, self.licence = name, licence
        self.device = torch.device(device)
        self.offload = check_offload(offload, self.device)
        self.scheduler: Any = DDIMScheduler.from_config(scheduler.config, clip_sample=False)
        self._check()
        for module in self.modules:
            module.requires_grad_(False).eval()
            if self.offload == "none":
                module.to(self.device)
        if self.vae.dtype != torch.float32:
            self.vae.to(vae_dtype(self.vae.config, self.dtype))

    def _check(self) -> None:
        channels, latents = self.unet.config.in_channels, self.vae.config.latent_channels
        if channels != latents:
            raise ModelError(
                f"{self.name!r} reads {channels} channels where latents have {latents}: "
                "inpainting and instruction models are not supported, use the plain model"
            )
        if self.prediction not in PREDICTIONS:
            raise ModelError(
                f"{self.name!r} predicts {self.prediction!r}: supported are {list(PREDICTIONS)}"
            )

    # What it is -------------------------------------------------------------------------------

    @property
    def modules(self) -> tuple[Any, ...]:
        """UNet, text encoders and VAE."""
        return (self.unet, *self.text_encoders, self.vae)

    @property
    def dtype(self) -> torch.dtype:
        """What the UNet computes in."""
        return next(self.unet.parameters()).dtype

    @property
    def prediction(self) -> str:
        """``epsilon``, ``v_prediction`` or ``sample``, as the scheduler's configuration says."""
        return str(self.scheduler.config.prediction_type)

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a latent, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def multiple(self) -> int:
        """Both sides of a picture must be multiples of this many pixels.

        The VAE's factor: diffusers' UNets take latents of any size, odd ones too.
        """
        return self.vae_scale_factor

    @property
    def native_size(self) -> int:
        """The side in pixels that the model was made for."""
        side = self.unet.config.sample_size
        if side is None:
            return int(self.vae.config.sample_size)
        return int(max(side) if isinstance(side, (list, tuple)) else side) * self.vae_scale_factor

    @property
    def text_length(self) -> int:
        """Positions of the text encoder's sequence (77)."""
        lengths = [int(e.config.max_position_embeddings) for e in self.text_encoders]
        return min(*lengths, *(int(t.model_max_length) for t in self.tokenizers))

    # Pictures ---------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of pictures: the posterior's mean on the model's own scale.

        Pictures go one by one, so that a batch gives what each alone gives.

        Args:
            pixels: [B, 3, H, W] in [-1, 1], sides multiples of ``multiple``.

        Returns:
            [B, C, h, w] float32 on the device.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels must be [B, 3, H, W], got {list(pixels.shape)}")
        self._check_size(pixels.shape[-2], pixels.shape[-1])
        mean, scale = self._latent_scale()
        rows = [self._coded(lambda p: self.vae.encode(p).latent_dist.mean, p) for p in pixels]
        return (torch.stack(rows) - mean) * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, one by one.

        Args:
            latents: [B, C, h, w].

        Returns:
            [B, 3, H, W] float32 in [-1, 1] on the device.
        """
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"latents must be [B, {self.latent_channels}, h, w], got {list(latents.shape)}"
            )
        mean, scale = self._latent_scale()
        raw = latents.to(self.device, torch.float32) / scale + mean
        rows = [self._coded(lambda z: self.vae.decode(z, return_dict=False)[0], z) for z in raw]
        return torch.stack(rows).clamp(-1, 1)

    def noise(self, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """Standard normal latents, drawn on the CPU so that every device gets the same.

        Args:
            size: (H, W) of the picture in pixels.
            generator: a CPU generator; None draws from a fresh one with seed 0.

        Returns:
            [1, C, h, w] float32 on the device.
        """
        self._check_size(*size)
        generator = generator or torch.Generator().manual_seed(0)
        f = self.vae_scale_factor
        shape = (1, self.latent_channels, size[0] // f, size[1] // f)
        return torch.randn(shape, generator=generator).to(self.device)

    def _check_size(self, height: int, width: int) -> None:
        m = self.multiple
        if height < m or width < m or height % m or width % m:
            raise ValueError(f"sides must be multiples of {m} pixels, got {height} x {width}")

    def _latent_scale(self) -> tuple[Tensor, Tensor]:
        """(mean, scale), broadcastable: ``latents = (posterior - mean) * scale``."""
        config = self.vae.config
        means, stds = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        shift = getattr(config, "shift_factor", None) or 0.0
        mean = torch.tensor(means if means is not None else [shift], device=self.device)
        std = torch.tensor(stds if stds is not None else [1.0], device=self.device)
        return mean.view(-1, 1, 1).float(), config.scaling_factor / std.view(-1, 1, 1).float()

    def _coded(self, code: Callable[[Tensor], Tensor], row: Tensor) -> Tensor:
        """One row [C, H, W] through the VAE; again in float32 if half precision overflowed."""
        self._bring(self.vae)
        row = row[None].to(self.device)
        out = code(row.to(self.vae.dtype)).float()
        if self.vae.dtype != torch.float32 and not torch.isfinite(out).all():
            logger.warning("the VAE overflowed in %s; it now runs in float32", self.vae.dtype)
            self.vae.to(torch.float32)
            out = code(row.float())
        return out[0]

    # Words ------------------------------------------------------------------------------------

    def tokens(self, prompt: str) -> Tokens:
        """The prompt's tokens with their character spans, not cut to the encoder's length."""
        tokenizer = self.tokenizers[0]
        found = tokenizer(
            prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = tuple(int(i) for i in found["input_ids"])
        spans = tuple((int(a), int(b)) for a, b in found["offset_mapping"])
        pieces = tuple(tokenizer.decode([i]) for i in ids)
        return Tokens(prompt, ids, spans, pieces, self.text_length)

    def encode_text(self, prompts: Sequence[str], size: tuple[int, int] | None = None) -> TextCond:
        """The conditioning of ``prompts``, as diffusers' own pipeline makes it.

        Args:
            prompts: B prompts.
            size: (H, W) in pixels of the picture; SDXL needs it, the others do not read it.

        Returns:
            ``embeds`` [B, T, D] and, for SDXL, ``pooled`` [B, E] and ``time_ids`` [B, 6], float32.

        Raises:
            PromptTooLong: a prompt has more tokens than the encoder reads.
        """
        raise NotImplementedError

    def empty_text(
        self, size: tuple[int, int] | None = None, negative_prompt: str = ""
    ) -> TextCond:
        """The unconditional row, or that of a negative prompt; see :meth:`encode_text`."""
        return self.encode_text([negative_prompt], size)

    def _ids(self, prompts: Sequence[str], which: int) -> tuple[Tensor, Tensor]:
        """Padded token ids and attention mask [B, T] of one tokenizer, on the device."""
        for prompt in prompts:
            self.tokens(prompt).check_length()
        padded = self.tokenizers[which](
            list(prompts),
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_tensors="pt",
        )
        return padded["input_ids"].to(self.device), padded["attention_mask"].to(self.device)

    # The path ---------------------------------------------------------------------------------

    def schedule(self, steps: int, *, compat: bool = False) -> Schedule:
        """The sampling schedule of the checkpoint's own tables and spacing.

        Args:
            steps: 1 to the number of training timesteps (1000).
            compat: levels as diffusers' scheduler steps through them, see ``Schedule.make``.
        """
        train = int(self.scheduler.config.num_train_timesteps)
        if not 1 <= steps <= train:
            raise ValueError(f"steps must be 1 to {train}, got {steps}")
        ddim = DDIMScheduler.from_config(self.scheduler.config)
        ddim.set_timesteps(steps)
        return Schedule.make(
            ddim.timesteps,
            ddim.alphas_cumprod,
            ddim.final_alpha_cumprod,
            self.prediction,
            compat=compat,
        )

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        """What the network says; the only place where precision is cast.

        Gradients flow to ``x`` and to the conditioning.

        Args:
            x: [R, C, h, w] latents.
            t: timestep.
            cond: conditioning of R rows, or of one row for all.

        Returns:
            [R, C, h, w] float32 on the device.
        """
        self._bring(self.unet)
        cond = cond.expand(x.shape[0])
        out = self.unet(
            x.to(self.device, self.dtype),
            t,
            encoder_hidden_states=cond.embeds.to(self.device, self.dtype),
            added_cond_kwargs=self._added(cond),
            return_dict=False,
        )[0]
        return out.float()

    def _added(self, cond: TextCond) -> dict[str, Tensor] | None:
        """What the UNet is told besides the text."""
        return None

    # The modules ------------------------------------------------------------------------------

    def _bring(self, module: nn.Module) -> None:
        """Have ``module`` on the device; under ``offload`` the others leave it."""
        if self.offload == "none" or next(module.parameters()).device.type == self.device.type:
            return
        for other in self.modules:
            if other is not module:
                other.to("cpu")
        module.to(self.device)

    @cached_property
    def weights_hash(self) -> str:
        """A digest of all weights (see :func:`hash_weights`), computed once."""
        return hash_weights(self.modules)

    def pipeline(self) -> DiffusionPipeline:
        """diffusers' own text-to-image pipeline on the same module objects.

        With a half-precision UNet and a float32 VAE ask it for latents and decode them here.
        """
        raise NotImplementedError

    def _own_scheduler(self) -> Any:
        """A copy of the scheduler, for those who change it."""
        return type(self.scheduler).from_config(self.scheduler.config)
