"""Prompt-to-prompt: swap a word, add a phrase, re-weight a word, keep the rest of the picture.

Paper: Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626), algorithm 1
and section 3.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from inversion.denoiser import COND, UNCOND, Denoiser, Layout
from inversion.registry import SettingError, setting
from inversion.schedule import Step

from .. import published
from ..align import MODES, align
from ..control import Call, ColumnEdit, Control, NothingActed, RowSwap, Site
from ..features import Places
from ..gates import cross_gate, steps_of
from ..method import EditContext, EditMethod, edits
from ..words import WordNotFound


class CrossEdit(Control):
    """Replace, refine and re-weight in one: a linear change of the columns of the word maps.

    Args:
        matrix: [G, T, T] which source columns each target column takes.
        taken: [G, T] in {0, 1} whether it takes any.
        weights: [G, T] factor of each target column inside the window.
        gate: [S or more, G, T] in {0, 1} the window.
        places: layers that it acts in.
        both_halves: let the empty prompt's maps of the targets be the source's too, in the window
            of words that have none of their own.
    """

    label = "cross-attention"

    def __init__(
        self,
        matrix: Tensor,
        taken: Tensor,
        weights: Tensor,
        gate: Tensor,
        *,
        places: Places | None = None,
        both_halves: bool = False,
    ) -> None:
        self.matrix, self.taken, self.weights, self.gate = matrix, taken, weights, gate
        self.places, self.both_halves = places, both_halves
        self._live = gate.flatten(1).any(1).tolist()
        self._open = gate[..., -1].bool().tolist()  # of the last token, which is no word's

    def begin(self, denoiser: Denoiser) -> None:
        device = denoiser.cond.embeds.device
        self._tables = [t.to(device) for t in (self.matrix, self.taken, self.weights, self.gate)]
        self._made: tuple[int, list[tuple[Tensor, Tensor, bool]]] = (-1, [])
        _check_halves(self.both_halves, denoiser)

    def watches(self, site: Site) -> bool:
        return site.cross and (self.places is None or self.places.has(site))

    def active(self, step: Step) -> bool:
        return bool(self._live[step.index])

    def reads_source(self, step: Step) -> bool:
        return self.active(step)

    def reads_source_uncond(self, step: Step) -> bool:
        return self.both_halves and any(self._open[step.index])

    def _at(self, index: int) -> list[tuple[Tensor, Tensor, bool]]:
        """(taken [T, T], own [T], keeps own) of each target at a step."""
        if self._made[0] != index:
            matrix, taken, weights, gate = self._tables
            made = []
            for g in range(len(matrix)):
                factor = weights[g] * gate[index, g]
                own = factor * (1 - taken[g]) + (1 - gate[index, g])
                made.append((matrix[g] * (taken[g] * factor), own, bool((own != 0).any())))
            self._made = (index, made)
        return self._made[1]

    def columns(self, call: Call) -> list[ColumnEdit]:
        source = source_row(call.layout, COND)
        made = self._at(call.step.index)
        edits = [
            ColumnEdit(row, source, *made[branch - 1]) for row, branch in call.layout.targets(COND)
        ]
        if self.both_halves:
            eye = torch.eye(self.matrix.shape[-1], device=self._tables[0].device)
            edits += [
                ColumnEdit(row, source_row(call.layout, UNCOND), eye, 0 * eye[0], False)
                for row, branch in call.layout.targets(UNCOND)
                if self._open[call.step.index][branch - 1]
            ]
        return edits


def _check_halves(both: bool, denoiser: Denoiser) -> None:
    """Refuse control of a half that guidance 1 never asks for."""
    if both and not denoiser.guide.needs_uncond():
        raise NothingActed(
            "p2p: noise_branch controls the unconditional half, which guidance 1 never asks for: "
            "raise --guidance, or leave it off"
        )


def source_row(layout: Layout, half: str) -> int:
    """The source's row of a half; the conditional one where its halves are equal."""
    row = layout.index(half, 0)
    row = layout.index(COND, 0) if row is None else row
    if row is None:
        raise RuntimeError("the source's row was left out of a step that reads it")
    return row


class SelfInject(Control):
    """The targets attend to themselves as the source does: its queries and keys, their values.

    Args:
        window: first and last-plus-one step.
        scale: only layers at this scale or coarser (latent side / map side).
        max_pixels: if not 0: only layers of at most this many positions, whatever their scale.
        places: layers that it acts in.
        both_halves: in the unconditional half too, as the source's own unconditional half does.
    """

    label = "self-attention"

    def __init__(
        self,
        window: tuple[int, int],
        scale: int,
        max_pixels: int = 0,
        *,
        places: Places | None = None,
        both_halves: bool = False,
    ) -> None:
        self.window, self.scale, self.max_pixels = window, scale, max_pixels
        self.places, self.both_halves = places, both_halves

    def begin(self, denoiser: Denoiser) -> None:
        _check_halves(self.both_halves, denoiser)

    def watches(self, site: Site) -> bool:
        if site.cross or (self.places is not None and not self.places.has(site)):
            return False
        return bool(self.max_pixels) or site.scale >= self.scale

    def active(self, step: Step) -> bool:
        return self.window[0] <= step.index < self.window[1]

    def reads_source(self, step: Step) -> bool:
        return self.active(step)

    def reads_source_uncond(self, step: Step) -> bool:
        return self.both_halves and self.active(step)

    def rows(self, call: Call) -> RowSwap | None:
        if self.max_pixels and call.size[0] * call.size[1] > self.max_pixels:
            return None
        index = list(range(len(call.layout)))
        for half in (COND, UNCOND) if self.both_halves else (COND,):
            for row, _ in call.layout.targets(half):
                index[row] = source_row(call.layout, half)
        return RowSwap(q=index, k=index)


@edits.register("p2p")
class P2P(EditMethod):
    """Prompt-to-prompt attention control."""

    paper = "Prompt-to-Prompt, arXiv 2208.01626"

    mode: str = setting(
        "auto",
        "auto: swapped words take the old word's maps, added words keep their own; refine: swapped "
        "words keep their own too; none: no word is carried over but by weight",
        choices=(*MODES, "none"),
    )
    cross_replace: float = setting(
        0.8, "the source's word maps are used until this fraction of the walk", low=0, high=1
    )
    cross_start: float = setting(0.0, "and from this one on", low=0, high=1)
    padding_replace: float = setting(
        1.0,
        "those of tokens that are no word (start, end, padding) until this one at most: they show "
        "whole objects, also one that is to go",
        low=0,
        high=1,
    )
    self_replace: float = setting(
        0.4, "the source's self-attention is used until this fraction of the walk", low=0, high=1
    )
    self_start: float = setting(0.0, "and from this one on", low=0, high=1)
    self_scale: int = setting(
        2,
        "self-attention layers at this scale or coarser (latent side / map side; 2 is 32x32 and "
        "smaller for SD at 512; 1 is all)",
        low=1,
        high=64,
    )
    self_max_pixels: int = setting(
        0, "if not 0: self-attention layers of at most so many positions instead", low=0
    )
    cross_places: str = setting(
        "all", "layers whose word maps are replaced: all, or places such as up/4+mid"
    )
    self_places: str = setting("all", "layers whose self-attention is replaced, likewise")
    noise_branch: str = setting(
        "off",
        "control the unconditional half too: its self-attention, or with the maps of the empty "
        "prompt's tokens; costs the source's unconditional row",
        choices=("off", "self", "self+cross"),
    )
    weights: tuple[tuple[str, float], ...] = setting((), "(word of the target, factor) pairs")
    word_windows: tuple[tuple[str, float, float], ...] = setting(
        (), "(word of the target, start, stop): a word's own cross window"
    )
    compat: bool = setting(
        False, "the published code's word search, mappers and rounding, quirks included"
    )
    strength: float = setting(
        1.0, "below 1, every place keeps that much of the source's own word map", low=0, high=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high in (("cross_start", "cross_replace"), ("self_start", "self_replace")):
            if getattr(self, low) > getattr(self, high):
                raise SettingError(f"p2p: {low} is later than {high}: nothing would be injected")
        if self.compat and self.padding_replace < 1:
            raise SettingError("p2p: padding_replace is no published setting: leave compat off")
        if self.noise_branch == "self" and self.self_replace <= self.self_start:
            raise SettingError("p2p: noise_branch=self acts while self_replace does: raise that")
        for what in ("cross_places", "self_places"):
            Places.read(getattr(self, what), f"p2p: {what}")
        for word, value in self.weights:
            if not isinstance(value, float | int) or not -100 <= value <= 100:
                raise SettingError(f"p2p: weight {word}={value!r}: give a number from -100 to 100")
        for word, low_, high_ in self.word_windows:
            if not 0 <= low_ <= high_ <= 1:
                raise SettingError(f"p2p: window of {word!r}: fractions 0 <= start <= stop <= 1")

    def at_strength(self, strength: float) -> P2P:
        weights = tuple((w, 1 + strength * (v - 1)) for w, v in self.weights)
        strength = strength * self.strength
        return dataclasses.replace(self, weights=weights, strength=strength)  # type: ignore[type-var]

    def controls(self, context: EditContext) -> Sequence[Control]:
        made: list[Control] = [self._cross(context)]
        if self.compat:
            window = published.self_window(
                context.steps, (self.self_start, self.self_replace), context.first_step
            )
        else:
            window = steps_of((self.self_start, self.self_replace), context.steps)
        if window[1] > window[0]:
            made.append(
                SelfInject(
                    window,
                    self.self_scale,
                    self.self_max_pixels,
                    places=_places(self.self_places),
                    both_halves=self.noise_branch != "off",
                )
            )
        return made

    def _cross(self, context: EditContext) -> CrossEdit:
        tables = [
            self._compat_maps(context, g) if self.compat else self._maps(context, g)
            for g in range(len(context.targets))
        ]
        matrix, taken, weights = (torch.stack(column) for column in zip(*tables, strict=True))
        if self.strength < 1:
            matrix, taken = _weaker(matrix, taken, self.strength)
        window = (self.cross_start, self.cross_replace)
        if self.compat:
            windows = {"default_": window} | {w: (a, b) for w, a, b in self.word_windows}
            gate = published.cross_window(
                context.steps, context.targets, windows, context.first_step
            )
        else:
            gate = cross_gate(
                context.steps, context.targets, window, self.word_windows, self.padding_replace
            )
        return CrossEdit(
            matrix,
            taken,
            weights,
            gate,
            places=_places(self.cross_places),
            both_halves=self.noise_branch == "self+cross",
        )

    def _maps(self, context: EditContext, g: int) -> tuple[Tensor, Tensor, Tensor]:
        target = context.targets[g]
        size = target.length
        if self.mode == "none":
            matrix, taken = torch.eye(size), torch.ones(size)
        else:
            found = align(context.source, target, self.mode)
            matrix, taken = found.matrix, found.taken
        weights = torch.ones(size)
        missing, hits = None, 0
        for word, value in self.weights:
            try:
                weights[list(target.find(word))] = value
                hits += 1
            except WordNotFound as e:
                missing = e
        if missing is not None and (hits == 0 or len(context.targets) == 1):
            raise missing
        return matrix, taken, weights

    def _compat_maps(self, context: EditContext, g: int) -> tuple[Tensor, Tensor, Tensor]:
        source, target = context.source, context.targets[g]
        size = target.length
        if self.mode == "none":
            matrix, taken = torch.eye(size), torch.ones(size)
        elif self.mode == "refine":
            index, taken = published.refine_mapper(source, target)
            matrix = published.mapper_matrix(index, taken)
        else:
            matrix, taken = published.replace_mapper(source, target), torch.ones(size)
        # one table for all targets, read off the first, as published
        weights = published.equalizer(context.targets[0], dict(self.weights))
        return matrix, taken, weights


def _places(text: str) -> Places | None:
    return None if text == "all" else Places.read(text, "places")


def _weaker(matrix: Tensor, taken: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Tables between "each word is the source's word at that place" (0) and the given ones (1).

    The text goes from the source's to the target's at the same pace, so 0 is the reconstruction
    also where an added word moves all that follow.
    """
    share = 1 - strength * (1 - taken)  # [G, T] of the map that is taken at all
    mixed = (1 - strength) * torch.eye(matrix.shape[-1]) + strength * matrix * taken[:, None]
    return mixed / share.clamp(min=1e-6)[:, None], share
