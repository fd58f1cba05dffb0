"""The whiteness of noise: analytic gradients against autograd, and what they do to noise."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inversion.regularizers import (
    auto_correlation,
    draw_as_published,
    draw_rolls,
    draw_with,
    kl_to_unit,
    liken,
    patch_kl,
    sides,
    whiten,
)

SIZES = ((64, 64), (16, 16), (9, 17), (17, 40), (8, 8), (5, 6), (3, 3), (1, 2))


def noise(*shape: int, seed: int = 0, std: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(*shape, generator=generator, dtype=torch.float64)


def slow_correlation(e: Tensor, rolls: list[list[int]]) -> Tensor:
    """The published loss of one latent [C, h, w], said with torch.roll."""
    loss = e.new_zeros(())
    for channel, shifts in zip(e, rolls, strict=True):
        n = channel[None, None]
        for level, r in enumerate(shifts):
            n = F.avg_pool2d(n, 2) if level else n
            for dim in (2, 3) if r else ():
                loss = loss + (n * torch.roll(n, r, dim)).mean() ** 2
    return loss


def slow_patches(e: Tensor, like: Tensor) -> Tensor:
    """The published KL of 4 x 4 patches of one latent, patch by patch."""
    loss = e.new_zeros(())
    for c in range(e.shape[0]):
        for i in range(0, e.shape[1] - 3, 4):
            for j in range(0, e.shape[2] - 3, 4):
                a, b = e[c, i : i + 4, j : j + 4], like[c, i : i + 4, j : j + 4]
                v = b.var() + 1e-6
                kl = torch.log(v / (a.var() + 1e-6)) - 1
                loss = loss + (kl + (a.var() + (a.mean() - b.mean()) ** 2) / v).abs()
    return loss


@pytest.mark.parametrize("size", SIZES)
def test_correlation_and_its_gradient(size: tuple[int, int]) -> None:
    e = noise(2, 3, *size).requires_grad_(True)
    rolls = draw_rolls(e.shape, draw_with(torch.Generator().manual_seed(1)))
    loss, grad = auto_correlation(e.detach(), rolls)
    slow = torch.stack([slow_correlation(one, rolls) for one in e])
    assert torch.allclose(loss, slow, rtol=1e-12, atol=0)
    if slow.requires_grad:
        (want,) = torch.autograd.grad(slow.sum(), e)
        assert (grad - want).abs().max() < 1e-10
    else:  # no side has room for a shift
        assert not grad.any()


@pytest.mark.parametrize("size", SIZES)
def test_kl_and_its_gradient(size: tuple[int, int]) -> None:
    e = noise(2, 3, *size, std=1.3).requires_grad_(True)
    v, m = e.var((1, 2, 3)), e.mean((1, 2, 3))
    slow = v + m**2 - 1 - torch.log(v + 1e-7)
    loss, grad = kl_to_unit(e.detach())
    assert torch.allclose(loss, slow, rtol=1e-12)
    assert (grad - torch.autograd.grad(slow.sum(), e)[0]).abs().max() < 1e-10


@pytest.mark.parametrize("size", SIZES)
def test_patch_kl_and_its_gradient(size: tuple[int, int]) -> None:
    e, like = noise(2, 3, *size, std=1.2).requires_grad_(True), noise(2, 3, *size, seed=1)
    slow = torch.stack([slow_patches(a, b) for a, b in zip(e, like, strict=True)])
    loss, grad = patch_kl(e.detach(), like)
    assert torch.allclose(loss, slow, rtol=1e-10)
    if slow.requires_grad:
        assert (grad - torch.autograd.grad(slow.sum(), e)[0]).abs().max() < 1e-10
    else:
        assert not grad.any()


def test_levels_of_the_pyramid() -> None:
    assert list(sides(64, 64)) == [64, 32, 16, 8]
    assert list(sides(9, 17)) == [9, 4]
    assert list(sides(8, 99)) == [8]


def test_shifts_are_drawn_in_the_published_order_and_never_0() -> None:
    rng = random.Random(11)
    want = [[rng.randrange(1, s // 2) for s in (32, 16, 8)] for _ in range(4)]
    assert draw_rolls(torch.Size((1, 4, 32, 32)), draw_as_published(11)) == want
    draw = draw_with(torch.Generator().manual_seed(0))
    drawn = [draw_rolls(torch.Size((1, 1, 8, 8)), draw)[0][0] for _ in range(200)]
    assert set(drawn) == {1, 2, 3}
    assert draw_rolls(torch.Size((1, 1, 4, 4)), draw) == [[1]]
    assert draw_rolls(torch.Size((1, 1, 3, 9)), draw) == [[0]]


def white(e: Tensor, seed: int = 0) -> Tensor:
    return whiten(e, draw_with(torch.Generator().manual_seed(seed)))


def test_white_noise_stays_almost_as_it_is() -> None:
    e = noise(1, 4, 64, 64)
    assert (white(e) - e).square().mean() < 1e-3


def test_too_strong_noise_shrinks_and_correlated_noise_is_taken_apart() -> None:
    e = noise(1, 4, 64, 64, std=1.2**0.5)
    assert abs(float(white(e).var()) - 1) < abs(float(e.var()) - 1)
    smooth = F.avg_pool2d(noise(1, 4, 66, 66), 3, 1) * 3

    def neighbours(x: Tensor) -> float:
        return float((x * x.roll(1, 2)).mean() / x.square().mean())

    assert neighbours(white(smooth)) < neighbours(smooth)


def test_the_rows_of_a_batch_do_not_meet() -> None:
    e = noise(3, 4, 16, 16)
    assert torch.allclose(white(e)[1:2], white(e[1:2]), rtol=0, atol=1e-14)


def test_noise_is_moved_towards_other_noise() -> None:
    e, like = noise(1, 4, 16, 16, std=1.4), noise(1, 4, 16, 16, seed=1)
    draw = draw_with(torch.Generator().manual_seed(0))
    moved = liken(e, like, draw, lambda_ac=0.0, lambda_kl=0.01)
    assert float(patch_kl(moved, like)[0]) < float(patch_kl(e, like)[0])
    assert torch.equal(liken(e, like, draw, lambda_ac=0.0, lambda_kl=0.0), e)
