"""One level of the path solved instead of approximated.

A sampling step is ``x_below = A x + B eps(x)``; going up, ``x`` is wanted and stands on both sides:
``x = F(x) = (x_below - B eps(x)) / A``. DDIM inversion is one application of F to ``x_below``.

Papers: Effective Real Image Editing with Accelerated Iterative Diffusion Inversion
(arXiv 2309.04907); Anderson acceleration of type II after Walker and Ni (2011), equation 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .denoiser import Denoiser, Layout
from .schedule import Step, both_ends, mix

HOPELESS = 10.0  # a residual that grew this much over the least one will not come back


class Solved(NamedTuple):
    """The latents of a level and how well they solve it.

    Args:
        x: [B, C, h, w].
        residual: [B] ``|F(x) - x| / |x|`` of the last iterate that was measured, or of the least
            where the residual rose again.
        evaluations: [B] times the network was asked.
    """

    x: Tensor
    residual: Tensor
    evaluations: Tensor


def enter(out: Tensor, below: Tensor, step: Step, prediction: str) -> Tensor:
    """DDIM's way up: the network's output at ``below`` itself, carried to ``step.noisy``."""
    return mix(both_ends(out, below, step.clean, prediction), step.noisy)


def image(out: Tensor, x: Tensor, below: Tensor, step: Step, prediction: str) -> Tensor:
    """F(x): the latents from which the network's output at ``x`` steps down onto ``below``.

    The noise is held, or, for v-prediction, v itself: the same fixed point, reached sooner, and
    defined too where ``step.noisy`` is pure noise.

    Args:
        out: network output at ``x``, [B, C, h, w].
        x: the iterate.
        below: latents at ``step.clean``.
        step: the step that is undone.
        prediction: what the network predicts.
    """
    if prediction == "v_prediction":
        noisy, clean = step.noisy, step.clean
        along = clean.alpha * noisy.alpha + clean.sigma * noisy.sigma
        across = clean.sigma * noisy.alpha - clean.alpha * noisy.sigma
        return (below - across * out) / along
    return enter(both_ends(out, x, step.noisy, prediction).eps, below, step, "epsilon")


def size(x: Tensor) -> Tensor:
    """[B] Euclidean norm of each latent."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3))


@dataclass
class Anderson:
    """The next iterate from the last images and residuals: least mixed residual, weights sum to 1.

    Args:
        memory: how many earlier iterates are mixed in; 0 is plain iteration, 1 costs two dot
            products.
        images: F(x) of the iterates seen, newest last.
        residuals: F(x) - x of them.
    """

    memory: int
    images: list[Tensor] = field(default_factory=list)
    residuals: list[Tensor] = field(default_factory=list)

    def next(self, x: Tensor, fx: Tensor) -> Tensor:
        """The iterate after ``x`` [B, C, h, w] with image ``fx``."""
        self.images = [*self.images[-self.memory :], fx] if self.memory else [fx]
        self.residuals = [*self.residuals[-self.memory :], fx - x] if self.memory else [fx - x]
        count = len(self.images) - 1
        if not count:
            return fx
        r = self.residuals[-1].flatten(1)
        dr = torch.stack([r - a.flatten(1) for a in self.residuals[:-1]], 1)  # [B, m, n]
        df = torch.stack([fx - a for a in self.images[:-1]], 1)  # [B, m, C, h, w]
        gram, along = dr @ dr.transpose(1, 2), (dr @ r[..., None])[..., 0]  # [B, m, m], [B, m]
        gram, along = (a.cpu().double().nan_to_num() for a in (gram, along))
        if count == 1:
            theta = along / gram[..., 0].clamp_min(1e-300)
        else:
            ridge = 1e-12 * gram.diagonal(dim1=1, dim2=2).sum(1) + 1e-300
            theta = torch.linalg.solve(
                gram + torch.diag_embed(ridge[:, None].expand(along.shape)), along
            )
        return fx - (theta.to(fx)[..., None, None, None] * df).sum(1)


@dataclass(frozen=True)
class Solver:
    """Solves levels one by one.

    Args:
        tolerance: relative residual at which a latent is done.
        most: network evaluations a level, at most; 1 is DDIM inversion.
        memory: of the Anderson acceleration; 0 is plain iteration.
    """

    tolerance: float = 1e-5
    most: int = 10
    memory: int = 1

    def __call__(self, below: Tensor, step: Step, denoiser: Denoiser) -> Solved:
        """The latents at ``step.noisy`` from which the guided step lands on ``below``.

        Each latent is its own problem: it stops alone and its rows leave the batch. Where the
        residual rises, the iterate of the least residual is given, not the last.

        Args:
            below: [B, C, h, w] latents at ``step.clean``.
            step: the step that is undone.
            denoiser: network, text and guidance of the B latents.
        """
        x, count = below, len(below)
        anderson = Anderson(self.memory)
        best = answer = below
        least = torch.full((count,), torch.inf, dtype=below.dtype, device=below.device)
        report, asked = least.clone(), torch.zeros_like(least)
        active = torch.ones(count, dtype=torch.bool, device=below.device)
        for j in range(self.most):
            out = _ask(denoiser, x, step, active)
            kind = denoiser.prediction
            fx = image(out, x, below, step, kind) if j else enter(out, x, step, kind)
            residual = (size(fx - x) / size(x).clamp_min(1e-30)).nan_to_num(nan=torch.inf)
            asked = asked + active
            falls = active & (residual <= least) & residual.isfinite()
            if j == 0:  # the start is no answer: its image, DDIM's, is
                best, answer, report = fx, fx, residual
            else:
                best, least = _pick(falls, x, best), torch.where(falls, residual, least)
                answer = _pick(falls, fx, _pick(active, best, answer))
                report = torch.where(active & least.isfinite(), least, report)
            active = active & (residual > self.tolerance) & residual.isfinite()
            active = active & (residual <= HOPELESS * least)
            if j + 1 == self.most or not active.any():
                break
            straight = j == 0 and kind != "epsilon"  # another map than the later ones
            x = _pick(active, fx if straight else anderson.next(x, fx), x)
        return Solved(answer, report.nan_to_num(posinf=3e38), asked)


def _ask(denoiser: Denoiser, x: Tensor, step: Step, active: Tensor) -> Tensor:
    """Guided network output [B, C, h, w] of the active latents; zeros for the others."""
    wanted = active.tolist()
    layout = Layout(tuple(r for r in denoiser.full_layout().rows if wanted[r[1]]))
    return denoiser.combine(denoiser.predict(x, step, layout), layout, step, x)


def _pick(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``one`` in the rows that are true, ``other`` elsewhere."""
    return torch.where(rows[:, None, None, None], one, other)
