"""What is done to masks: arrays [H, W] of values in [0, 1], of which 0 and 1 are never left.

Union, intersection and inversion are those of fuzzy sets (Zadeh 1965): maximum, minimum, 1 - m;
on masks of 0 and 1 they are the usual ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad


def invert(mask: np.ndarray) -> np.ndarray:
    """What was outside."""
    return np.float32(1) - mask


def union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What is in either."""
    return np.maximum(one, other)


def intersection(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What is in both."""
    return np.minimum(one, other)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What is in the first and not in the second."""
    return np.minimum(one, invert(other))


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Each value moved outward by so many pixels, in an octagon.

    The octagon is what steps to the four and to the eight neighbours in turn give, the four first:
    a diamond on a square. Each is made by doubling, in about log2(pixels) steps: moved by no more
    than its size to its outermost points, it covers the larger one without a gap.
    """
    values = pad(torch.from_numpy(mask), (pixels,) * 4)  # what is moved out must come back in
    for reach, corners in (
        ((pixels + 1) // 2, ((0, 1), (1, 0), (0, -1), (-1, 0))),
        (pixels // 2, ((1, 1), (1, -1), (-1, 1), (-1, -1))),
    ):
        done = 0
        while done < reach:
            by = min(max(done, 1), reach - done)
            values = _spread(values, by, corners, between=done == 0)
            done += by
    h, w = mask.shape
    return np.array(values[pixels : pixels + h, pixels : pixels + w])


def _spread(
    values: Tensor, by: int, corners: Sequence[tuple[int, int]], *, between: bool
) -> Tensor:
    """The highest of each value and those that lie so far towards the corners."""
    if between and 0 not in corners[0]:  # a square of one pixel has its sides too
        return max_pool2d(values[None, None], 3, 1, 1)[0, 0]
    found = values.clone()
    h, w = values.shape
    for dy, dx in corners:
        to = found[max(dy * by, 0) : h + min(dy * by, 0), max(dx * by, 0) : w + min(dx * by, 0)]
        here = values[
            max(-dy * by, 0) : h + min(-dy * by, 0), max(-dx * by, 0) : w + min(-dx * by, 0)
        ]
        torch.maximum(to, here, out=to)
    return found


def shrink(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What is left when the outside grows; the picture's border does not count as outside."""
    return invert(grow(invert(mask), pixels)) if pixels else mask


def feather(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask with a soft edge that lies inside it: the highest values below the mask that rise
    by at most ``1 / (pixels + 1)`` from one pixel to the next.

    Nothing outside the mask is touched, and no pixel inside becomes 0. Distances to the eight
    neighbours are 1 and the square root of 2 (a chamfer distance, Borgefors 1986).
    """
    if pixels == 0:
        return mask
    framed = np.pad(mask, 1, constant_values=2)  # no neighbours there
    least = -max_pool2d(-torch.from_numpy(framed)[None], 3, 1, 1)[0].numpy()
    values, inside = framed.ravel(), (framed < 2).ravel()
    near = (framed > least).ravel()  # only those that have a lower neighbour can fall
    step = np.float32(1 / (pixels + 1))
    slant = np.float32(2**0.5 / (pixels + 1))
    costs = {
        dy * framed.shape[1] + dx: slant if dy and dx else step
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if dy or dx
    }
    for _ in range(pixels):
        places = np.flatnonzero(near & inside)
        lower = values[places]
        for by, cost in costs.items():
            lower = np.minimum(lower, values[places + by] + cost)
        fell = lower < values[places]
        places = places[fell]
        values[places] = lower[fell]
        near[:] = False
        for by in costs:  # and then those beside one that fell
            near[places + by] = True
    return np.array(values.reshape(framed.shape)[1:-1, 1:-1])
