"""Words and settings made into controls, before the photo or the network is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import published
from .align import align
from .blend import LocalBlend
from .changed import changed_rows
from .control import Control
from .method import EditContext, EditMethod
from .words import Tokens, WordNotFound


@dataclass(frozen=True)
class BlendWords:
    """Local blend by words.

    Args:
        words: one entry a word: its name in the source and in the targets ("cat", "dog"); the
            last name serves all further targets. A word that only one of the two prompts has (it
            is added, or removed) is looked for on that prompt's picture alone. None: the things
            that the change of words is about.
        subtract: the same, for what is taken out of the mask.
        threshold: share of a map's maximum that counts, for words and for subtract.
        start: first fraction of the walk that is not blended.
        scales: layers to read; empty = the scale whose maps are nearest to 16 a side.
        compat: find words as the published code does.
    """

    words: tuple[tuple[str, ...], ...] | None
    subtract: tuple[tuple[str, ...], ...] = ()
    threshold: tuple[float, float] = (0.3, 0.3)
    start: float = 0.2
    scales: tuple[int, ...] = ()
    compat: bool = False

    def control(self, context: EditContext) -> LocalBlend | None:
        """The control of this blend; None where the change of words is about no one thing.

        Raises:
            WordNotFound: a word stands neither in a target nor in the source.
        """
        if self.words is None:
            words = changed_rows(context)
            if words is None:
                return None
        else:
            words = self._selectors(self.words, context)
        subtract = self._selectors(self.subtract, context) if self.subtract else None
        return LocalBlend(
            words,
            subtract,
            threshold=self.threshold,
            start=self.start,
            scales=self.scales or (context.scale_near(16),),
        )

    def _selectors(self, entries: tuple[tuple[str, ...], ...], context: EditContext) -> Tensor:
        if not self.compat:
            return word_rows(entries, context)
        prompts = (context.source, *context.targets)
        rows = torch.zeros(len(prompts), context.source.length)
        for b, tokens in enumerate(prompts):
            for names in entries:
                rows[b] += published.blend_selector(tokens, names[min(b, len(names) - 1)])
        return rows.clamp(max=1)


def word_rows(entries: Sequence[Sequence[str]], context: EditContext) -> Tensor:
    """Where words stand in the prompts, [B, T] in {0, 1}, a row a prompt.

    Args:
        entries: one a word: its name in the source and in the targets; the last name serves all
            further ones.
        context: the prompts.

    Raises:
        WordNotFound: a word stands neither in its prompt nor opposite one that does.
    """
    prompts = (context.source, *context.targets)
    rows = torch.zeros(len(prompts), context.source.length)
    for b, tokens in enumerate(prompts):
        for names in entries:
            rows[b, list(_find(tokens, names[min(b, len(names) - 1)], context, b))] = 1
    return rows


def _find(tokens: Tokens, word: str, context: EditContext, b: int) -> tuple[int, ...]:
    """Positions of a word in one prompt, or of what stands opposite it in the other.

    None where nothing stands opposite it: the word comes or goes.
    """
    try:
        return tokens.find(word)
    except WordNotFound as missing:
        others = context.targets if b == 0 else (context.source,)
        stands = False
        for other in others:
            try:
                places = other.find(word)
            except WordNotFound:
                continue
            stands = True
            if b == 0:
                matrix = align(tokens, other).matrix
                found = matrix[:, list(places)].sum(1).nonzero()
            else:
                matrix = align(other, tokens).matrix
                found = matrix[list(places)].sum(0).nonzero()
            if len(found):
                return tuple(int(i) for i in found)
        if stands:
            return ()
        raise missing


@dataclass(frozen=True)
class Plan:
    """All that acts in a walk, and what it was made of.

    Args:
        controls: in order of action.
        alignments: for each target, (source words, target words, kind) of every run of words.
    """

    controls: tuple[Control, ...]
    alignments: tuple[tuple[tuple[str, str, str], ...], ...] = field(default=())

    def table(self) -> list[list[dict[str, Any]]]:
        """The alignments as plain data."""
        return [
            [{"source": a, "target": b, "kind": kind} for a, b, kind in rows]
            for rows in self.alignments
        ]


def make_plan(
    context: EditContext,
    methods: Sequence[EditMethod],
    *,
    blend: BlendWords | None = None,
    extra: Sequence[Control] = (),
) -> Plan:
    """The controls of some edit methods for some prompts.

    Args:
        context: prompts, steps and sizes.
        methods: in order of action.
        blend: local blend by words, acting last.
        extra: further controls (a mask, a store), acting after the methods.

    Raises:
        WordNotFound: a word that a setting names is not in its prompt.
        PromptTooLong: a prompt that the text encoder would cut.
    """
    for tokens in (context.source, *context.targets):
        tokens.check_length()
    controls = [c for m in methods for c in m.controls(context)]
    controls += extra
    if blend is not None and (local := blend.control(context)) is not None:
        controls.append(local)
    rows = tuple(align(context.source, t).pairs for t in context.targets)
    return Plan(tuple(controls), rows)
