"""Attend-and-Excite: move the latents until every named word is seen somewhere.

Before a step, the map of each word under the text alone is looked at; the latents go down the
gradient of 1 minus the peak of the word that is seen least. The network is left at the last layer
that this loss needs, so what lies behind is neither computed nor kept.

Paper: Attend-and-Excite: Attention-Based Semantic Guidance for Text-to-Image Diffusion Models
(arXiv 2301.13826), algorithm 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from inversion.denoiser import COND, Denoiser, Layout
from inversion.inverter import frozen
from inversion.registry import SettingError, setting
from inversion.sampling import NumericsError
from inversion.schedule import Step

from ..attention import sites_of
from ..control import Call, Control, NothingActed, Site
from ..method import EditContext, EditMethod, edits
from ..words import Tokens, WordNotFound

HALF_SCALE = 256.0  # of the loss in float16, whose gradients would vanish else


class _Seen(Exception):
    """The last layer that the loss needs has been seen: the rest of the network is not needed."""


class Look(NamedTuple):
    """How the words are seen: loss, each word's peak [W], and the gradient [1, C, h, w]."""

    loss: float
    peaks: Tensor
    grad: Tensor


def gaussian(size: int, sigma: float) -> Tensor:
    """[size, size] weights exp(-(d / 2 sigma)^2) of sum 1: as published, wider than sigma says."""
    d = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    row = torch.exp(-((d / (2 * sigma)) ** 2))
    both = row[:, None] * row
    return both / both.sum()


def peaks_of(
    maps: Tensor, words: Sequence[Sequence[int]], stop: int, kernel: Tensor | None
) -> Tensor:
    """How strongly each word is seen where it is seen most, [W].

    Args:
        maps: [h, w, T] mean attention to each token.
        words: for each word the positions of its tokens, whose shares are added.
        stop: tokens from this one on do not compete.
        kernel: [n, n] smoothing, or None.
    """
    shares = (100 * maps[..., 1:stop]).softmax(-1)
    seen = torch.stack([shares[..., [i - 1 for i in w]].sum(-1) for w in words])  # [W, h, w]
    if kernel is not None:
        n = kernel.shape[0] // 2
        mode = "reflect" if min(seen.shape[1:]) > n else "replicate"
        wide = pad(seen[:, None], (n, n, n, n), mode=mode)
        seen = conv2d(wide, kernel.to(seen)[None, None])[:, 0]
    return seen.flatten(1).amax(1)


@dataclasses.dataclass
class _Log:
    """What was done to one branch."""

    looks: list[Tensor] = dataclasses.field(default_factory=list)
    updates: list[tuple[float, float, float]] = dataclasses.field(default_factory=list)
    steps: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Excite(Control):
    """Moves the latents of the targets (or of the only branch) before a step.

    Args:
        words: for each branch that moves, the token positions of each word; empty: it stays.
        stops: for each of them, the token position at which the competing tokens end.
        method: the settings.
        near: the scale whose maps are read, or the nearest that the network has.

    Attributes:
        logs: what was done, a branch each.
        last_map: [P, T] mean map of the last look.
    """

    label = "attend-and-excite"
    remedy = "raise until, step_size or thresholds"

    def __init__(
        self,
        words: Sequence[Sequence[Sequence[int]]],
        stops: Sequence[int],
        method: AttendExcite,
        near: int,
    ) -> None:
        self.words, self.stops, self.method, self.near = words, stops, method, near
        self.kernel = gaussian(method.kernel, method.sigma) if method.smooth else None
        self.logs: list[_Log] = []
        self.last_map: Tensor | None = None

    def begin(self, denoiser: Denoiser) -> None:
        sites = [s for s in sites_of(denoiser.model.unet).values() if s.cross]  # type: ignore[attr-defined]
        nearest = sorted({s.scale for s in sites}, key=lambda s: abs(math.log2(s / self.near)))
        self._scale = self.method.scale or nearest[0]
        mine = [s for s in sites if s.scale == self._scale]
        if not mine:
            raise NothingActed(
                f"attend-excite: the network has no word maps at scale {self._scale}; it has "
                f"{', '.join(str(s) for s in sorted(nearest))}"
            )
        self._last = mine[-1]
        self._maps: list[Tensor] = []
        self._looking = False
        self.logs = [_Log() for _ in self.words]
        self.last_map = None

    # What is seen ---------------------------------------------------------------------------

    def watches(self, site: Site) -> bool:
        return site.cross and site.scale == self._scale

    def active(self, step: Step) -> bool:
        return self._looking

    def wants_maps(self, call: Call) -> bool:
        return True

    def probs(self, p: Tensor, call: Call) -> Tensor:
        self._maps.append(p[0].float())  # [N, P, T]
        self._size = call.size
        if call.site == self._last:
            raise _Seen
        return p

    def _look(self, x: Tensor, b: int, branch: int, step: Step, denoiser: Denoiser) -> Look:
        """Ask the network how the words of a branch are seen at latents [1, C, h, w]."""
        self._maps, self._looking = [], True
        factor = HALF_SCALE if getattr(denoiser.model, "dtype", None) == torch.float16 else 1.0
        z = x.detach().clone().requires_grad_(True)
        try:
            with torch.enable_grad():
                rows = z.expand(denoiser.branches, *z.shape[1:])
                with contextlib.suppress(_Seen):
                    denoiser.predict(rows, step, Layout(((COND, branch),)))
                flat = torch.cat(self._maps).mean(0)  # [P, T]
                maps = flat.unflatten(0, self._size)
                peaks = peaks_of(maps, self.words[b], self.stops[b], self.kernel)
                loss = (1 - peaks).clamp(min=0).amax()
                (grad,) = torch.autograd.grad(loss * factor, z)
        finally:
            self._maps, self._looking = [], False
        denoiser.rows_backward += 1
        self.last_map = flat.detach()
        grad = grad / factor
        if not torch.isfinite(grad).all():
            raise NumericsError(
                f"attend-excite: the gradient is not finite at sampling step {step.index + 1} of "
                f"{step.count}: run in float32 (--dtype float32)"
            )
        return Look(float(loss.detach()), peaks.detach(), grad)

    # What is done ---------------------------------------------------------------------------

    def before(self, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        goal = self.method.goals(step.count).get(step.index)
        moves = step.index < int(self.method.until * step.count + 1e-9)
        if goal is None and not moves and not self.method.compat:
            return x
        first = x.shape[0] - len(self.words)  # the source, where there is one, stays
        rows = [x[:first]]
        with frozen(denoiser.model):
            for b, words in enumerate(self.words):
                row = x[first + b : first + b + 1]
                if words:
                    row = self._excited(row, b, first + b, step, denoiser, goal, moves)
                rows.append(row)
        return torch.cat(rows)

    def _excited(
        self,
        x: Tensor,
        b: int,
        branch: int,
        step: Step,
        denoiser: Denoiser,
        goal: float | None,
        moves: bool,
    ) -> Tensor:
        """Latents [1, C, h, w] of one branch, refined to its goal and moved once more."""
        log = self.logs[b]
        look = self._look(x, b, branch, step, denoiser)
        log.looks.append(look.peaks)
        start, done = look.loss, 0
        if goal is not None and look.loss > 1 - goal:
            reached = False
            while done < self.method.refinements and not reached:
                log.looks.append(look.peaks)
                reached = look.loss <= 1 - goal
                if reached and not self.method.compat:
                    break
                x, done = self._moved(x, look, step, log), done + 1
                look = self._look(x, b, branch, step, denoiser)
            log.looks.append(look.peaks)
        if moves:
            log.looks.append(look.peaks)
            x = self._moved(x, look, step, log)
        if moves or done:
            figures = {"step": step.index, "loss": start, "loss_refined": look.loss}
            log.steps.append({**figures, "refinements": done})
        return x

    def _moved(self, x: Tensor, look: Look, step: Step, log: _Log) -> Tensor:
        """Latents one update down the gradient."""
        size = self.method.rate(step)
        change = size * look.grad
        most = float(change.abs().max())
        if self.method.largest and not self.method.compat and most > self.method.largest:
            change, most = change * (self.method.largest / most), self.method.largest
        log.updates.append((look.loss, size, most))
        return x - change

    def report(self) -> dict[str, object]:
        """Loss by step, refinements and updates of each branch.

        Raises:
            NothingActed: no latent was moved.
        """
        if not any(most for log in self.logs for _, _, most in log.updates):
            raise NothingActed(
                "attend-excite: no latent was moved: raise until, step_size or the thresholds"
            )
        rows: list[dict[str, Any]] = []
        for log in self.logs:
            rows.append(
                {
                    "loss_by_step": [
                        {k: round(v, 5) if isinstance(v, float) else v for k, v in s.items()}
                        for s in log.steps
                    ],
                    "updates": len(log.updates),
                    "refinements": int(sum(s["refinements"] for s in log.steps)),
                    "largest_change": round(max((m for *_, m in log.updates), default=0.0), 5),
                    "peaks": [round(float(p), 4) for p in log.looks[-1]] if log.looks else [],
                }
            )
        return {"excited": rows, "scale": self._scale}


@edits.register("attend-excite")
class AttendExcite(EditMethod):
    """Attend-and-Excite: words that the picture neglects are made to appear (``--excite``)."""

    paper = "Attend-and-Excite, arXiv 2301.13826"

    words: tuple[str, ...] = setting((), "words of the target that must be seen")
    tokens: tuple[int, ...] = setting((), "positions of further tokens that must be seen")
    until: float = setting(
        0.5,
        "the latents are moved before every step until this fraction of the walk",
        low=0,
        high=1,
    )
    thresholds: str = setting(
        "0:0.05+0.2:0.5+0.4:0.8",
        "fraction of the walk : how strongly each word must be seen there (0 to 1), reached by "
        "repeated moves; none for no such places",
    )
    refinements: int = setting(20, "moves at such a place, at most", low=1, high=1000)
    step_size: float = setting(20.0, "length of a move along the gradient", low=0, high=10000)
    step_start: float = setting(1.0, "square of its factor at the first step", low=0, high=10)
    step_stop: float = setting(0.5, "and at the last one", low=0, high=10)
    largest: float = setting(
        1.0, "if not 0: no move changes a value of the latents by more", low=0, high=100
    )
    scale: int = setting(
        0, "maps at this scale (latent side / map side); 0 is the nearest to 16x16", low=0, high=64
    )
    smooth: bool = setting(True, "smooth the maps, so that a lone place does not count")
    sigma: float = setting(0.5, "of the smoothing", low=0.01, high=10)
    kernel: int = setting(3, "its width, odd", low=1, high=15)
    rest: bool = setting(True, "the end token and the padding compete with the words")
    compat: bool = setting(
        False, "look at every step and refine once more than needed, as published; nothing is held "
        "by largest",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise SettingError(f"attend-excite: kernel={self.kernel}: give an odd number")
        if isinstance(self.words, str):
            object.__setattr__(self, "words", (self.words,))
        self.goals(1000)

    def goals(self, steps: int) -> dict[int, float]:
        """Step index -> how strongly each word must be seen before it.

        Raises:
            SettingError: thresholds that cannot be read.
        """
        found: dict[int, float] = {}
        for part in [] if self.thresholds == "none" else self.thresholds.split("+"):
            numbers = re.fullmatch(r"\s*(\d*\.?\d+)\s*:\s*(\d*\.?\d+)\s*", part)
            at, goal = (float(n) for n in numbers.groups()) if numbers else (2.0, 2.0)
            if at >= 1 or goal > 1:
                raise SettingError(
                    f"attend-excite: thresholds={self.thresholds!r}: give FRACTION:SEEN pairs such "
                    "as 0:0.05+0.2:0.5, both from 0 to 1"
                )
            index = int(at * steps + 1e-9)
            found[index] = max(goal, found.get(index, 0.0))
        return found

    def rate(self, step: Step) -> float:
        """Length of a move at a step."""
        share = step.index / max(1, step.count - 1)
        return (
            self.step_size * (self.step_start + share * (self.step_stop - self.step_start)) ** 0.5
        )

    def at_strength(self, strength: float) -> AttendExcite:
        return dataclasses.replace(self, step_size=strength * self.step_size)  # type: ignore[type-var]

    def controls(self, context: EditContext) -> Sequence[Control]:
        if not self.words and not self.tokens:
            raise SettingError("attend-excite: it is not said what to excite: give --excite WORD")
        prompts = context.targets or (context.source,)
        found: list[list[tuple[int, ...]]] = []
        missing: dict[str, WordNotFound] = {}
        for tokens in prompts:
            rows: list[tuple[int, ...]] = [(i,) for i in self._checked(tokens)]
            for word in self.words:
                try:
                    rows += tokens.places(word)
                except WordNotFound as error:
                    missing[word] = error
            found.append(rows)
        if missing and (len(prompts) == 1 or not any(found)):
            raise next(iter(missing.values()))
        stops = [t.length - 1 if self.rest else t.count - 1 for t in prompts]
        return [Excite(found, stops, self, context.scale_near(16))]

    def _checked(self, tokens: Tokens) -> tuple[int, ...]:
        stop = tokens.length - 1 if self.rest else tokens.count - 1
        for i in self.tokens:
            if not 1 <= i < stop:
                raise SettingError(
                    f"attend-excite: token {i} is none of 1 to {stop - 1}: {tokens.listing()}"
                )
        return self.tokens
