"""What an edit may do inside attention: the records a control is told, and its moments.

A control is told where it is (:class:`Site`), when (:class:`~inversion.schedule.Step`) and which
row is which (:class:`~inversion.denoiser.Layout`); it counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from inversion.denoiser import Denoiser, Layout
from inversion.sampling import Intervention
from inversion.schedule import Step


class NothingActed(RuntimeError):
    """An edit was asked for and changed nothing; there is no picture to show for it."""


@dataclass(frozen=True)
class Site:
    """An attention layer: its module name, place, kind, running number and scale.

    ``scale`` is latent side / map side (1, 2, 4, 8); ``index`` counts layers of the same kind in
    the order in which they are called.
    """

    name: str
    place: str
    cross: bool
    index: int
    scale: int

    @property
    def kind(self) -> str:
        """``cross`` or ``self``."""
        return "cross" if self.cross else "self"

    @property
    def number(self) -> int:
        """Which transformer of its level it belongs to, from 0."""
        return int(self.name.split("attentions.")[1].split(".")[0])


@dataclass(frozen=True)
class Block:
    """A residual block: its module name, place, running number, scale, and number in its level."""

    name: str
    place: str
    index: int
    scale: int
    number: int

    kind = "features"


class Call(NamedTuple):
    """One call of one layer: where, when, which rows, and the map's height and width."""

    site: Site
    step: Step
    layout: Layout
    size: tuple[int, int]


class BlockCall(NamedTuple):
    """One call of one residual block: where, when, and which rows."""

    block: Block
    step: Step
    layout: Layout


@dataclass(frozen=True)
class RowSwap:
    """Attend with other rows' tensors: row r takes its queries from row ``q[r]``, and so on.

    None leaves that tensor as it is.
    """

    q: list[int] | None = None
    k: list[int] | None = None
    v: list[int] | None = None


@dataclass(frozen=True)
class Sides:
    """Which keys each place may look at: those of its own side of a mask.

    A row whose keys are all of one side looks everywhere.

    Args:
        places: [R, P] bool, where queries are.
        keys: [R, K] bool, where keys are.
    """

    places: Tensor
    keys: Tensor

    def looks(self) -> tuple[Tensor, Tensor]:
        """[R, K] bool: the keys that places inside may look at, and those outside."""
        one = (self.keys.all(1) | ~self.keys.any(1))[:, None]
        return self.keys | one, ~self.keys | one

    def allowed(self) -> Tensor:
        """[R, P, K] bool, for explicit maps."""
        inside, outside = self.looks()
        return torch.where(self.places[..., None], inside[:, None], outside[:, None])


@dataclass(frozen=True)
class ColumnEdit:
    """A map edit that is linear in the columns (words) of two rows' maps.

    ``p[row] = p[source] @ taken + p[row] * own``; nothing is renormalised.

    Args:
        row: the row that is edited.
        source: the row whose map is taken.
        taken: [T, T] which source column goes to which target column, and how strongly.
        own: [T] the share of the row's own column that stays.
        keeps_own: False where ``own`` is zero throughout (then the row's own map is never made).
    """

    row: int
    source: int
    taken: Tensor
    own: Tensor
    keeps_own: bool = True

    def on_maps(self, p: Tensor) -> Tensor:
        """The edited map [N, P, T] of the row, from maps [R, N, P, T] before editing."""
        taken = p[self.source] @ self.taken.to(p)
        return taken + p[self.row] * self.own.to(p) if self.keeps_own else taken


class Control(Intervention):
    """An intervention with attention moments; override only what is needed.

    Attributes:
        label: its name in reports.
        needs_layers: it can do nothing in a network of which it watches no layer.
        remedy: what to do where it never acted.
    """

    label = "control"
    needs_layers = False
    remedy = "see --cross-replace, --self-replace"

    def begin(self, denoiser: Denoiser) -> None:
        """A walk starts, before any layer is asked for: forget the last one, put tensors on the
        network's device."""

    def watches(self, site: Site) -> bool:
        """Whether this layer is of interest at all; others keep their processor."""
        return False

    def watches_block(self, block: Block) -> bool:
        """Whether the features of this residual block are of interest."""
        return False

    def active(self, step: Step) -> bool:
        """Whether anything happens at this step."""
        return True

    def rows(self, call: Call) -> RowSwap | None:
        """First moment: attend with other rows' queries, keys or values."""
        return None

    def sides(self, call: Call) -> Sides | None:
        """Beside the first moment: of a self-attention layer, which keys each place may look at."""
        return None

    def columns(self, call: Call) -> list[ColumnEdit]:
        """Second moment: edits of maps that are linear in their columns."""
        return []

    def wants_maps(self, call: Call) -> bool:
        """Whether :meth:`probs` must be called, which makes the map of the whole layer."""
        return False

    def probs(self, p: Tensor, call: Call) -> Tensor:
        """Third moment: see, or replace by a new tensor, the maps [R, N, P, K] after the edits."""
        return p

    def value_columns(self, call: Call) -> Tensor | None:
        """Columns [R, K, W] attended beside the values, for whoever needs only sums of a map's
        columns: no map is made for them, and the picture does not change."""
        return None

    def seen(self, sums: Tensor, call: Call) -> None:
        """What the columns gave: the maps after the edits times the columns, [R, N, P, W]."""

    def features(self, h: Tensor, call: BlockCall) -> Tensor | None:
        """See, or replace by a new tensor, what a residual block adds: its last convolution's
        output [R, C, h, w] before the shortcut. None where it does not act."""
        return None

    def report(self) -> dict[str, object]:
        """What this control has to say after a walk (plain data)."""
        return {}


@lru_cache(maxsize=512)
def row_index(rows: tuple[int, ...], device: torch.device) -> Tensor:
    """Row numbers as a tensor, made once (a list would be sent to the device at every call)."""
    with torch.inference_mode(False):  # a kept tensor must also serve walks that take gradients
        return torch.tensor(rows, device=device)


def take(x: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows ``rows`` of ``x``, in that order; ``x`` itself where that is all of them."""
    if list(rows) == list(range(len(x))):
        return x
    return x.index_select(0, row_index(tuple(rows), x.device))


def attend(
    q: Tensor, k: Tensor, v: Tensor, edits: list[ColumnEdit], sides: Sides | None = None
) -> Tensor:
    """Attention with column edits, without making a map.

    An edit is linear in the values, so it is attention with rewritten values: the source's queries
    and keys over ``taken @ v`` plus the row's own over ``own * v``. Two sides are two attentions,
    of which each place takes one.

    Args:
        q, k, v: [R, N, P, d], [R, N, K, d], [R, N, K, e] with e of at least d.
        edits: at most one a row; none beside `sides`.
        sides: which keys each place may look at.

    Returns:
        [R, N, P, e].
    """
    sdpa = partial(torch.nn.functional.scaled_dot_product_attention, scale=q.shape[-1] ** -0.5)
    if (more_values := v.shape[-1] - q.shape[-1]) > 0:  # the fused kernels want one width
        q, k = pad(q, (0, more_values)), pad(k, (0, more_values))
    if sides is not None:
        inside, outside = (
            sdpa(q, k, v, attn_mask=keys[:, None, None].expand(-1, 1, q.shape[2], -1))
            for keys in sides.looks()
        )
        return torch.where(sides.places[:, None, :, None], inside, outside)
    if not edits:
        return sdpa(q, k, v)
    rows, more, kept = list(range(len(q))), [], []
    values = list(v.unbind())
    extra = []
    for e in edits:
        taken = e.taken.to(v) @ values[e.row]
        if e.keeps_own:
            more.append(e.source)
            kept.append(e.row)
            extra.append(taken)
            values[e.row] = e.own.to(v)[:, None] * values[e.row]
        else:
            rows[e.row] = e.source
            values[e.row] = taken
    index = rows + more
    out = sdpa(take(q, index), take(k, index), torch.stack(values + extra))
    if not kept:
        return out
    return out[: len(q)].index_add(0, row_index(tuple(kept), q.device), out[len(q) :])


def attend_with_maps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edits: list[ColumnEdit],
    see: list[tuple[Control, Call]],
    sides: Sides | None = None,
) -> Tensor:
    """The same by explicit maps [R, N, P, K], which ``see`` may look at or replace."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if sides is not None:
        logits = logits.masked_fill(~sides.allowed()[:, None], -torch.inf)
    p = torch.softmax(logits, dim=-1)
    if edits:
        edited = {e.row: e.on_maps(p) for e in edits}
        p = torch.stack([edited.get(r, p[r]) for r in range(len(p))])
    for control, call in see:
        p = control.probs(p, call)
    return p @ v
