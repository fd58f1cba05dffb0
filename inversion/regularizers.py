"""What white noise looks like, as losses with analytic gradients: no autograd is needed.

All losses are those of each latent of a batch alone; noise is [B, C, h, w].

Papers: Zero-shot Image-to-Image Translation, pix2pix-zero (arXiv 2302.03027), section 3.1, for
auto-correlation and KL; ReNoise (arXiv 2403.14602), section 3.3, for the KL of patches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

COARSEST = 8  # the pyramid's last level is the first whose shorter side is at most this
Draw = Callable[[int], int]  # n -> a whole number from 1 to n - 1
Rolls = list[list[int]]  # [channel][level]; 0 = that level has no room for a shift


def sides(h: int, w: int) -> Iterator[int]:
    """The shorter side at each level of the pyramid of halved noise maps."""
    side = min(h, w)
    yield side
    while side > COARSEST:
        side //= 2
        yield side


def draw_rolls(shape: torch.Size, draw: Draw) -> Rolls:
    """One shift a channel and level, channel by channel, from 1 to half the side less 1.

    A shift of 0 is never drawn: its term is the mean square of the noise, which a penalty on
    correlation must leave alone. (Older published code includes it.)
    """
    levels = list(sides(*shape[-2:]))
    return [[draw(s // 2) if s >= 4 else 0 for s in levels] for _ in range(shape[-3])]


def draw_with(generator: torch.Generator) -> Draw:
    """Shifts from torch's generator."""
    return lambda n: int(torch.randint(1, n, (1,), generator=generator)) if n > 2 else 1


def draw_as_published(seed: int) -> Draw:
    """Shifts from Python's generator, in the published order."""
    rng = random.Random(seed)
    return lambda n: rng.randrange(1, n) if n > 2 else rng.randrange(1, 2)


def _rolled(e: Tensor, shifts: list[int], dim: int, sign: int) -> Tensor:
    """Each channel of [B, C, h, w] rolled along ``dim`` by its own shift."""
    side = e.shape[dim]
    at = torch.arange(side)[None] - sign * torch.tensor(shifts)[:, None]  # [C, side]
    shape = (1, len(shifts), side, 1) if dim == 2 else (1, len(shifts), 1, side)
    return torch.take_along_dim(e, (at % side).view(shape).to(e.device), dim)


def auto_correlation(e: Tensor, rolls: Rolls) -> tuple[Tensor, Tensor]:
    """Squared correlation of noise with itself, shifted, on every level of a pyramid.

    The gradient of ``m^2`` with ``m = mean(n roll_r(n))`` is ``2 m / P (roll_r(n) + roll_-r(n))``
    for P pixels; through a 2 x 2 mean it is a quarter, spread over the four.

    Args:
        e: noise [B, C, h, w].
        rolls: shifts of :func:`draw_rolls`, the same in both directions.

    Returns:
        loss [B] and its gradient [B, C, h, w].
    """
    loss, grads, n = e.new_zeros(len(e)), [], e
    for level in range(len(rolls[0])):
        if level:
            n = F.avg_pool2d(n, 2)
        shifts = [channel[level] for channel in rolls]
        grad = torch.zeros_like(n)
        for dim in (2, 3) if shifts[0] else ():
            ahead = _rolled(n, shifts, dim, 1)
            m = (n * ahead).mean((2, 3), keepdim=True)  # [B, C, 1, 1]
            loss = loss + m.square().sum((1, 2, 3))
            grad += 2 * m / n[0, 0].numel() * (ahead + _rolled(n, shifts, dim, -1))
        grads.append(grad)
    total = grads.pop()
    for grad in reversed(grads):
        h, w = total.shape[-2:]
        total = total.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
        total = grad + F.pad(total, (0, grad.shape[-1] - 2 * w, 0, grad.shape[-2] - 2 * h))
    return loss, total


def kl_to_unit(e: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the KL divergence from the standard normal, by mean and variance over all elements.

    Returns:
        loss [B] ``var + mean^2 - 1 - ln(var + 1e-7)`` and its gradient [B, C, h, w].
    """
    count = e[0].numel()
    mean = e.mean((1, 2, 3), keepdim=True)
    var = e.var((1, 2, 3), keepdim=True)
    loss = var + mean.square() - 1 - torch.log(var + 1e-7)
    grad = 2 * (e - mean) / (count - 1) * (1 - 1 / (var + 1e-7)) + 2 * mean / count
    return loss.flatten(), grad


def patch_kl(e: Tensor, like: Tensor, *, size: int = 4) -> tuple[Tensor, Tensor]:
    """Absolute KL divergence of the noise's patches from those of other noise, summed.

    Patches are ``size`` x ``size``, channel by channel; a remainder at the edges is left alone.

    Args:
        e: noise [B, C, h, w].
        like: the noise it should resemble, same shape.
        size: of a patch, in latent pixels.

    Returns:
        loss [B] and its gradient [B, C, h, w].
    """
    h, w = (s // size * size for s in e.shape[-2:])
    if not h or not w:
        return e.new_zeros(len(e)), torch.zeros_like(e)

    def cut(x: Tensor) -> Tensor:
        x = x[..., :h, :w].unflatten(3, (-1, size)).unflatten(2, (-1, size))
        return x.transpose(3, 4)  # [B, C, h / size, w / size, size, size]

    own, other = cut(e), cut(like)
    m0, v0 = own.mean((4, 5), keepdim=True), own.var((4, 5), keepdim=True) + 1e-6
    m1, v1 = other.mean((4, 5), keepdim=True), other.var((4, 5), keepdim=True) + 1e-6
    kl = torch.log(v1 / v0) + (v0 - 1e-6 + (m0 - m1).square()) / v1 - 1
    grad = (1 / v1 - 1 / v0) * 2 * (own - m0) / (size * size - 1)
    grad = kl.sign() * (grad + 2 * (m0 - m1) / v1 / (size * size))
    grad = grad.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    pad = (0, e.shape[-1] - w, 0, e.shape[-2] - h)
    return kl.abs().flatten(1).sum(1), F.pad(grad, pad)


def whiten(
    e: Tensor,
    draw: Draw,
    *,
    rounds: int = 5,
    ac_rolls: int = 5,
    lambda_ac: float = 20.0,
    lambda_kl: float = 20.0,
) -> Tensor:
    """Noise moved towards white: pix2pix-zero's regularisation of one estimate.

    Each round takes ``ac_rolls`` gradient steps on the auto-correlation, at new shifts each, then
    one on the KL term. All latents of a batch share the shifts, so that none depends on another.

    Args:
        e: noise [B, C, h, w].
        draw: source of the shifts.
        rounds: how often both are done.
        ac_rolls: auto-correlation steps a round; each has ``lambda_ac / ac_rolls`` as its length.
        lambda_ac: weight of the auto-correlation.
        lambda_kl: weight of the KL term.
    """
    for _ in range(rounds):
        for _ in range(ac_rolls):
            e = e - lambda_ac / ac_rolls * auto_correlation(e, draw_rolls(e.shape, draw))[1]
        e = e - lambda_kl * kl_to_unit(e)[1]
    return e


def liken(
    e: Tensor,
    like: Tensor,
    draw: Draw,
    *,
    rounds: int = 4,
    ac_rolls: int = 5,
    lambda_ac: float = 20.0,
    lambda_kl: float = 0.065,
) -> Tensor:
    """Noise moved towards other noise and off its own correlation: ReNoise's enhancement.

    Each round takes one step on the patches' KL, its gradient clipped at 100, then ``ac_rolls``
    on the auto-correlation.

    Args:
        e: noise [B, C, h, w].
        like: noise predicted at properly noised latents, same shape.
        draw: source of the shifts.
        rounds: how often both are done.
        ac_rolls: auto-correlation steps a round.
        lambda_ac: weight of the auto-correlation.
        lambda_kl: weight of the KL term.
    """
    for _ in range(rounds):
        e = e - lambda_kl * patch_kl(e, like)[1].clamp(-100, 100)
        for _ in range(ac_rolls):
            e = e - lambda_ac / ac_rolls * auto_correlation(e, draw_rolls(e.shape, draw))[1]
    return e
