"""What the network says here: text conditioning, the rows of a call, and guidance.

Inverters and edits see a :class:`Denoiser`, never a pipeline. All calls to the network go through
:meth:`Denoiser.predict`, so whoever listens (attention controls) always knows which row is which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from .paths import Paths
from .schedule import Estimate, Level, Step, both_ends

UNCOND, COND = "uncond", "cond"


@dataclass(frozen=True)
class TextCond:
    """Text conditioning of ``B`` rows.

    Args:
        embeds: [B, T, D] prompt_embeds.
        pooled: [B, E] pooled text (SDXL) or None.
        time_ids: [B, 6] size conditioning (SDXL) or None.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def __len__(self) -> int:
        return self.embeds.shape[0]

    def _map(self, f: Callable[[Tensor], Tensor]) -> TextCond:
        return TextCond(*(None if a is None else f(a) for a in self._parts()))  # type: ignore[arg-type]

    def _parts(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.embeds, self.pooled, self.time_ids

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors there are."""
        return tuple(p for p in self._parts() if p is not None)

    def rows(self, index: Sequence[int]) -> TextCond:
        """The rows ``index``, in that order."""
        return self._map(lambda a: a[list(index)])

    def expand(self, count: int) -> TextCond:
        """One row shown ``count`` times; ``count`` rows stay as they are."""
        if len(self) == count:
            return self
        return self._map(lambda a: a.expand(count, *a.shape[1:]))

    def lerp(self, other: TextCond, weight: float) -> TextCond:
        """Between this (weight 0) and another (weight 1) conditioning."""
        parts = zip(self._parts(), other._parts(), strict=True)
        mixed = [None if a is None or b is None else torch.lerp(a, b, weight) for a, b in parts]
        return TextCond(*mixed)  # type: ignore[arg-type]

    @staticmethod
    def cat(conds: Sequence[TextCond]) -> TextCond:
        """All rows of ``conds``, one after the other."""
        columns = zip(*(c._parts() for c in conds), strict=True)
        return TextCond(*(None if col[0] is None else torch.cat(col) for col in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Layout:
    """The rows of one network call: which guidance half and which branch (0 = source) each is."""

    rows: tuple[tuple[str, int], ...]

    @classmethod
    def full(cls, branches: int, halves: Sequence[str] = (UNCOND, COND)) -> Layout:
        """All branches of all halves, half by half."""
        return cls(tuple((h, b) for h in halves for b in range(branches)))

    def index(self, half: str, branch: int) -> int | None:
        """The row of a branch in a half, or None where it was left out."""
        return self.rows.index((half, branch)) if (half, branch) in self.rows else None

    def targets(self, half: str) -> list[tuple[int, int]]:
        """(row, branch) of every branch but the source in a half."""
        return [(r, b) for r, (h, b) in enumerate(self.rows) if h == half and b > 0]

    def __len__(self) -> int:
        return len(self.rows)


class Model(Protocol):
    """What a walk needs of a network; a backbone satisfies it."""

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        """[R, C, h, w] network output in float32 for latents [R, C, h, w] at timestep t."""


class Guide(Protocol):
    """How the two halves become one answer."""

    def needs_uncond(self) -> bool:
        """Whether the unconditional half is read at all."""

    def __call__(self, uncond: Tensor, cond: Tensor, step: Step) -> Tensor:
        """Mixed output [B, C, h, w] of both halves."""


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance, ``u + w (c - u)``.

    Paper: Classifier-Free Diffusion Guidance (arXiv 2207.12598), in Imagen's form of the scale.

    Args:
        scale: guidance_scale w for all branches, or one a branch; 1 means conditional only.
    """

    scale: float | tuple[float, ...] = 7.5

    def needs_uncond(self) -> bool:
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        return any(w != 1.0 for w in scales)

    def __call__(self, uncond: Tensor, cond: Tensor, step: Step) -> Tensor:
        if isinstance(self.scale, tuple):
            w = cond.new_tensor(self.scale).view(-1, 1, 1, 1)
            return uncond + w * (cond - uncond)
        return uncond + self.scale * (cond - uncond)


@dataclass
class Denoiser:
    """The guided network with its text: one object that answers "what is here".

    Args:
        model: the network.
        cond: conditioning of the B branches.
        uncond: unconditional conditioning, 1 or B rows.
        guide: how the halves mix.
        prediction: what the network predicts.
        layout: the rows of the call now running (read by attention controls).
        step: the step of the call now running.
        size: (h, w) of the latents of the call now running.
        rows_seen: network rows evaluated so far.
        paths: DDIM paths that were walked before, or None where none are kept.
        offsets: what is added to the latents [C, h, w] of some rows where the network is asked; the
            latents that are walked stay as they are.
    """

    model: Model
    cond: TextCond
    uncond: TextCond
    guide: Guide = field(default_factory=ClassifierFree)
    prediction: str = "epsilon"
    layout: Layout = field(default_factory=lambda: Layout(()))
    step: Step | None = None
    size: tuple[int, int] = (0, 0)
    rows_seen: int = 0
    rows_backward: int = 0
    paths: Paths | None = None
    offsets: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    @property
    def branches(self) -> int:
        return len(self.cond)

    def with_guide(self, guide: Guide) -> Denoiser:
        """The same network and text under other guidance (its own row count starts at 0)."""
        return replace(self, guide=guide, rows_seen=0, rows_backward=0)

    def predict(
        self, x: Tensor, step: Step, layout: Layout, uncond: TextCond | None = None
    ) -> Tensor:
        """Raw network output for the rows of ``layout``.

        Args:
            x: [B, C, h, w], one latent a branch.
            step: the step; the network is asked at ``step.t``.
            layout: the rows wanted.
            uncond: unconditional text for this call (default: the denoiser's own).

        Returns:
            [R, C, h, w] in float32.
        """
        uncond = (self.uncond if uncond is None else uncond).expand(self.branches)
        halves = {UNCOND: uncond, COND: self.cond}
        x = self._asked_at(x, layout)
        text = TextCond.cat([halves[h].rows([b]) for h, b in layout.rows])
        self.layout, self.step, self.size = layout, step, (x.shape[-2], x.shape[-1])
        self.rows_seen += len(layout)
        return self.model.predict(x, step.t, text)

    def _asked_at(self, x: Tensor, layout: Layout) -> Tensor:
        """The latents [R, C, h, w] at which the rows are asked."""
        rows = x[[b for _, b in layout.rows]]
        if not self.offsets:
            return rows
        return torch.stack(
            [
                row + self.offsets[key] if key in self.offsets else row
                for row, key in zip(rows, layout.rows, strict=True)
            ]
        )

    def __call__(
        self,
        x: Tensor,
        step: Step,
        at: Level | None = None,
        layout: Layout | None = None,
        uncond: TextCond | None = None,
    ) -> Estimate:
        """The guided estimate of all branches.

        Args:
            x: [B, C, h, w].
            step: where on the schedule.
            at: the level of ``x`` (default: ``step.noisy``).
            layout: the rows to evaluate (default: all that the guide reads). A branch without its
                unconditional row is read unguided; one without any row comes back as zeros, for
                the replay that asked for this to fill in.
            uncond: unconditional text for this call.
        """
        layout = layout or self.full_layout()
        out = self.predict(x, step, layout, uncond)
        mixed = self.combine(out, layout, step, x)
        return both_ends(mixed, x, at or step.noisy, self.prediction)

    def full_layout(self) -> Layout:
        """All rows that the guide reads."""
        halves = (UNCOND, COND) if self.guide.needs_uncond() else (COND,)
        return Layout.full(self.branches, halves)

    def combine(self, out: Tensor, layout: Layout, step: Step, like: Tensor) -> Tensor:
        """Network rows [R, ...] -> one guided output a branch [B, ...]."""
        cond, uncond = [], []
        for b in range(self.branches):
            c, u = layout.index(COND, b), layout.index(UNCOND, b)
            cond.append(torch.zeros_like(like[b]) if c is None else out[c])
            uncond.append(cond[-1] if u is None else out[u])
        if not self.guide.needs_uncond():
            return torch.stack(cond)
        return self.guide(torch.stack(uncond), torch.stack(cond), step)
