"""The published way, written plainly: what the speed figures are measured against.

Nothing here is slowed down on purpose: maps are edited in place, stores hold views, the conditional
estimate of null-text inversion is made once a timestep. What makes it slow is what the published
code does: every map is formed, every small map is stored, weights take gradients.

Papers: Prompt-to-Prompt (arXiv 2208.01626), Null-text Inversion (arXiv 2211.09794).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, mse_loss

Network = Callable[[Tensor, Any, Tensor], Tensor]


@torch.no_grad()
def sampling_loop(
    unet: Any,
    x: Tensor,
    text: Tensor,
    scheduler: DDIMScheduler,
    guidance: float,
    after: Callable[[Tensor], Tensor] | None = None,
    added: dict[str, Tensor] | None = None,
) -> Tensor:
    """The loop of diffusers' own text-to-image pipeline, from given latents.

    Args:
        unet: a ``UNet2DConditionModel`` with whatever processors it has.
        x: [B, C, h, w] noisiest latents.
        text: [2B, T, D], unconditional rows first.
        scheduler: with its timesteps set.
        guidance: guidance_scale.
        after: changes the latents after a step.
        added: what SDXL's network is told besides the text, [2B, ...].
    """
    for t in scheduler.timesteps:
        both = unet(
            torch.cat([x] * 2),
            t,
            encoder_hidden_states=text,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        uncond, cond = both.chunk(2)
        x = scheduler.step(uncond + guidance * (cond - uncond), t, x, return_dict=False)[0]
        x = x if after is None else after(x)
    return x


class ExplicitAttention:
    """Attention by softmax maps, shown to a controller before they meet the values."""

    def __init__(self, controller: Callable[[Tensor, bool, str], Tensor], place: str) -> None:
        self.controller, self.place = controller, place

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.head_to_batch_dim(attn.to_q(hidden_states))
        k = attn.head_to_batch_dim(attn.to_k(text))
        v = attn.head_to_batch_dim(attn.to_v(text))
        p = attn.get_attention_scores(q, k)
        p = self.controller(p, encoder_hidden_states is not None, self.place)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(torch.bmm(p, v))))


def unedited(p: Tensor, cross: bool, place: str) -> Tensor:
    """The controller of no edit: maps are formed and left alone."""
    return p


@contextmanager
def explicit_attention(
    unet: Any, controller: Callable[[Tensor, bool, str], Tensor]
) -> Iterator[None]:
    """Every layer of ``unet`` by explicit maps while inside."""
    before = dict(unet.attn_processors)
    unet.set_attn_processor(
        {name: ExplicitAttention(controller, name.split("_")[0]) for name in before}
    )
    try:
        yield
    finally:
        unet.set_attn_processor(before)


class PublishedReplace:
    """Word swap with self-attention replacement, a store and a local blend, by explicit maps.

    Args:
        layers: attention layers of the network; the step is counted by their calls.
        mapper: [G, T, T] of the word swap.
        gate: [S + 1, G, T] windows of the word maps.
        self_window: first and last-plus-one step of self-attention replacement.
        replaced: self-attention maps of up to this many positions are replaced.
        stored: maps of up to this many positions are stored.
        blend: [B, T] the words of a local blend, or None.
        blend_side: side of the maps that the blend reads.
        start: steps without blend.
        threshold: share of the maximum.
    """

    def __init__(
        self,
        layers: int,
        mapper: Tensor,
        gate: Tensor,
        self_window: tuple[int, int],
        replaced: int,
        stored: int,
        *,
        blend: Tensor | None = None,
        blend_side: int = 16,
        start: int = 0,
        threshold: float = 0.3,
    ) -> None:
        self.layers, self.mapper, self.gate = layers, mapper, gate[:, :, None, None]
        self.self_window, self.replaced, self.stored = self_window, replaced, stored
        self.blend, self.blend_side = blend, blend_side
        self.start, self.threshold = start, threshold
        self.step = self.calls = 0
        self.now: list[Tensor] = []
        self.sums: list[Tensor] = []
        self.cross: list[bool] = []

    def __call__(self, p: Tensor, cross: bool, place: str) -> Tensor:
        cond = p[len(p) // 2 :]
        if cond.shape[1] <= self.stored:
            self.now.append(cond)
            if not self.step:
                self.cross.append(cross)
        branches = 1 + len(self.mapper)
        maps = cond.view(branches, -1, *cond.shape[1:])  # [B, N, P, K]
        if cross:
            taken = torch.einsum("hpw,gwn->ghpn", maps[0], self.mapper)
            open_ = self.gate[self.step]
            maps[1:] = taken * open_ + (1 - open_) * maps[1:]
        elif self.self_window[0] <= self.step < self.self_window[1] and p.shape[1] <= self.replaced:
            maps[1:] = maps[:1]
        self.calls += 1
        if self.calls == self.layers:
            self._end_of_step()
        return p

    def _end_of_step(self) -> None:
        self.step, self.calls = self.step + 1, 0
        if not self.sums:
            self.sums = self.now
        else:
            for total, one in zip(self.sums, self.now, strict=True):
                total += one
        self.now = []

    def after(self, x: Tensor) -> Tensor:
        """Local blend."""
        if self.blend is None or self.step <= self.start:
            return x
        side, branches = self.blend_side, len(self.blend)
        maps = [
            m.view(branches, -1, 1, side, side, m.shape[-1])
            for m, cross in zip(self.sums, self.cross, strict=True)
            if cross and m.shape[1] == side * side
        ]
        words = self.blend[:, None, None, None, None]
        found = (torch.cat(maps, dim=1) * words).sum(-1).mean(1)  # [B, 1, h, w]
        found = interpolate(max_pool2d(found, 3, 1, 1), size=x.shape[2:])
        mask = found / found.amax((2, 3), keepdim=True) > self.threshold
        mask = (mask[:1] | mask).float()
        return x[:1] + mask * (x - x[:1])


def null_text(
    unet: Any,
    x0: Tensor,
    cond: Tensor,
    uncond: Tensor,
    scheduler: DDIMScheduler,
    guidance: float,
    *,
    inner_steps: int,
    early_stop: float,
) -> Tensor:
    """DDIM inversion and null-text optimisation; the fitted texts [S, T, D].

    Args:
        unet: its weights take gradients, as they do when a pipeline is loaded.
        x0: [1, C, h, w] the photo's latents.
        cond, uncond: [1, T, D].
        scheduler: with its timesteps set; predicts epsilon, spacing leading.
        guidance: guidance_scale.
        inner_steps: Adam steps a timestep.
        early_stop: loss below which a timestep ends, plus 2e-5 a step.
    """
    table, last = scheduler.alphas_cumprod, scheduler.final_alpha_cumprod
    stride = scheduler.config.num_train_timesteps // len(scheduler.timesteps)

    def move(eps: Tensor, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        clean = (x - (1 - start) ** 0.5 * eps) / start**0.5
        return end**0.5 * clean + (1 - end) ** 0.5 * eps

    def level(t: int) -> Tensor:
        return table[t] if t >= 0 else last

    def ask(x: Tensor, t: int, text: Tensor) -> Tensor:
        return unet(x, t, encoder_hidden_states=text, return_dict=False)[0]

    steps = [int(t) for t in scheduler.timesteps]
    path = [x0]
    with torch.no_grad():
        for t in reversed(steps):
            path.append(move(ask(path[-1], t, cond), path[-1], level(t - stride), level(t)))
    x, kept = path[-1], []
    for i, t in enumerate(steps):
        goal, below = path[len(path) - i - 2], level(t - stride)
        uncond = uncond.clone().detach().requires_grad_(True)
        adam = torch.optim.Adam([uncond], lr=1e-2 * (1 - i / 100))
        with torch.no_grad():
            eps_cond = ask(x, t, cond)
        for _ in range(inner_steps):
            eps_uncond = ask(x, t, uncond)
            eps = eps_uncond + guidance * (eps_cond - eps_uncond)
            loss = mse_loss(move(eps, x, level(t), below), goal)
            adam.zero_grad()
            loss.backward()
            adam.step()
            if loss.item() < early_stop + i * 2e-5:
                break
        kept.append(uncond.detach()[0])
        with torch.no_grad():
            both = ask(torch.cat([x] * 2), t, torch.cat([uncond, cond]))
            eps_uncond, eps_cond = both.chunk(2)
            x = move(eps_uncond + guidance * (eps_cond - eps_uncond), x, level(t), below)
    return torch.stack(kept)
