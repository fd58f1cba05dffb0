"""Adam over the rows of a tensor, of which some may leave.

Paper: Adam: A Method for Stochastic Optimization (arXiv 1412.6980), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowAdam:
    """Adam with the usual decay rates; rows that left take no more part.

    Args:
        like: [B, ...], what will be moved.
        rate: the learning rate.

    All rows start together, so one count of steps is every row's.
    """

    decays = (0.9, 0.999)
    eps = 1e-8

    def __init__(self, like: Tensor, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, x: Tensor, gradient: Tensor, rows: Sequence[int]) -> None:
        """Move the rows ``rows`` of ``x`` in place.

        Args:
            x: [B, ...].
            gradient: [R, ...], of these rows.
            rows: R rows that took part in every step before.
        """
        self.steps += 1
        index, (one, two) = list(rows), self.decays
        mean = self.mean[index].lerp_(gradient, 1 - one)
        square = self.square[index].mul_(two).addcmul_(gradient, gradient, value=1 - two)
        self.mean[index], self.square[index] = mean, square
        root = square.sqrt().div_((1 - two**self.steps) ** 0.5).add_(self.eps)
        x[index] = x[index].addcdiv_(mean, root, value=-self.rate / (1 - one**self.steps))
