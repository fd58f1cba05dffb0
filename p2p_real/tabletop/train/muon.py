"""The Muon optimiser: momentum, made orthogonal, for matrices and convolutions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalised(g: Tensor, steps: int = 5) -> Tensor:
    """Brings the singular values of matrices near to 1 by a Newton-Schulz iteration.

    Args:
        g: Matrices, [K, rows, columns].
        steps: How many times to iterate.

    Returns:
        Matrices of the same shape, float32.

    Paper:
        Muon (Jordan et al., 2024), with its quintic coefficients.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    # bfloat16 is what the authors use; where the hardware lacks it, it is slower than float32
    x = g.bfloat16() if g.is_cuda else g.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        y = x @ x.mT
        x = a * x + (b * y + c * y @ y) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Muon; weights of one shape share one batched iteration.

    Args:
        params: Weights of two or more dimensions; all but the first count as one.
        lr: Learning rate; an update has the size of an AdamW update at the same rate.
        momentum: How much of the past gradients stays.
        weight_decay: As AdamW's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(params), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates the weights once from their gradients."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shape = (p.shape[0], p[0].numel())
                    by_shape[shape].append((p, self._direction(p, group["momentum"])))
            for shape, items in by_shape.items():
                updates = orthogonalised(torch.stack([u.reshape(shape) for _, u in items]))
                scale = 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(items, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)

    def _direction(self, p: nn.Parameter, momentum: float) -> Tensor:
        state: dict[str, Any] = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)


def make_optimizers(
    modules: Iterable[nn.Module],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    plain: Sequence[str] = (),
) -> tuple[Muon, torch.optim.AdamW]:
    """Shares parameters between Muon (matrices) and AdamW (vectors, embeddings, first and last).

    Args:
        modules: What is trained; frozen parameters are left out.
        lr: Learning rate of both.
        betas: AdamW's.
        weight_decay: Muon's; AdamW gets none.
        plain: Parts of names whose matrices go to AdamW nevertheless.
    """
    matrices, rest = [], []
    for module in modules:
        for name, p in module.named_parameters():
            wide = p.ndim >= 2 and p.shape[0] > 8 and p[0].numel() > 8
            if not p.requires_grad:
                continue
            if wide and not any(part in name for part in ("embedding", *plain)):
                matrices.append(p)
            else:
                rest.append(p)
    return (
        Muon(matrices, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=0.0),
    )
