"""The one attention processor, installed for a walk and taken out again.

With `features`, the only file that touches a UNet. Layers that nobody watches keep the processor
they had; watched layers hand calls at which nobody is active to that same processor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from inversion.denoiser import Denoiser
from inversion.sampling import Intervention
from inversion.schedule import Step

from .control import (
    Block,
    Call,
    ColumnEdit,
    Control,
    NothingActed,
    RowSwap,
    Sides,
    Site,
    attend,
    attend_with_maps,
    take,
)
from .features import Hooked, blocks_of

_PLAIN = ("AttnProcessor", "AttnProcessor2_0")


def sites_of(unet: nn.Module) -> dict[str, Site]:
    """The attention layers of a UNet by processor name, in the order in which they are called."""
    names = list(unet.attn_processors)  # type: ignore[arg-type]
    blocks = 1 + max(int(m) for n in names for m in re.findall(r"(?:down|up)_blocks\.(\d+)", n))
    blocks = max(blocks, len(getattr(unet, "down_blocks", ())))
    order = {"down": 0, "mid": 1, "up": 2}

    def place(name: str) -> tuple[int, int]:
        kind = name.split("_")[0]
        number = int(name.split(".")[1]) if kind != "mid" else 0
        return order[kind], number

    def numbers(name: str) -> list[int]:
        return [int(n) for n in re.findall(r"\.(\d+)\.", name)]

    ordered = sorted(names, key=lambda n: (place(n), numbers(n), "attn2" in n))
    counts: Counter[bool] = Counter()
    sites = {}
    for name in ordered:
        kind, number = name.split("_")[0], place(name)[1]
        depth = {"down": number, "mid": blocks - 1, "up": blocks - 1 - number}[kind]
        cross = ".attn2." in name
        sites[name] = Site(name, kind, cross, counts[cross], 2**depth)
        counts[cross] += 1
    return sites


class Controlled:
    """The processor of one watched layer."""

    def __init__(self, site: Site, controls: list[Control], plain: Any, stack: ControlStack):
        self.site, self.controls, self.plain, self.stack = site, controls, plain, stack

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        denoiser, step, now = self.stack.now(self.controls)
        if denoiser is None or step is None or not now or hidden_states.ndim != 3:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        call = Call(self.site, step, denoiser.layout, self._size(denoiser, hidden_states))
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)

        swaps: list[RowSwap] = []
        edits: list[ColumnEdit] = []
        columns: list[tuple[Control, Tensor]] = []
        sides: Sides | None = None
        for control in now:
            swap = control.rows(call)
            swaps += [] if swap is None else [swap]
            sides = control.sides(call) or sides
            mine = control.columns(call)
            edits += mine
            beside = control.value_columns(call)
            columns += [] if beside is None else [(control, beside)]
            if swap is not None or mine or beside is not None or control.wants_maps(call):
                self.stack.count(control, self.site, step)

        def heads(linear: Any, x: Tensor, rows: list[list[int]]) -> Tensor:
            return _rows_of(linear, x, rows).unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q = heads(attn.to_q, hidden_states, [s.q for s in swaps if s.q is not None])
        k = heads(attn.to_k, text, [s.k for s in swaps if s.k is not None])
        v = heads(attn.to_v, text, [s.v for s in swaps if s.v is not None])  # [R, N, K, d]
        q = attn.norm_q(q) if attn.norm_q is not None else q
        k = attn.norm_k(k) if attn.norm_k is not None else k
        width = v.shape[-1]
        if columns:
            v = _beside(v, [values for _, values in columns])
        see_all = [(c, call) for c in now if c.wants_maps(call)]
        if see_all or self.stack.explicit:
            out = attend_with_maps(q, k, v, edits, see_all, sides)
        else:
            out = attend(q, k, v, edits, sides)
        at = width
        for control, values in columns:
            control.seen(out[..., at : at + values.shape[-1]], call)
            at += values.shape[-1]
        out = out[..., :width]
        out = out.transpose(1, 2).flatten(2).to(q.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor

    def _size(self, denoiser: Denoiser, hidden: Tensor) -> tuple[int, int]:
        h, w = (-(-side // self.site.scale) for side in denoiser.size)
        if h * w != hidden.shape[1]:
            raise RuntimeError(
                f"layer {self.site.name} has {hidden.shape[1]} positions where {h} x {w} were "
                "expected: this UNet is not shaped like Stable Diffusion's"
            )
        return h, w


def _beside(v: Tensor, columns: list[Tensor]) -> Tensor:
    """Values [R, N, K, d] with columns [R, K, W] beside them, for all heads alike.

    The width is filled up to a multiple of 8, which the fused kernels of GPUs ask for.
    """
    wide = torch.cat(columns, dim=-1).to(v)
    wide = pad(wide, (0, -(v.shape[-1] + wide.shape[-1]) % 8))
    return torch.cat([v, wide[:, None].expand(-1, v.shape[1], -1, -1)], dim=-1)


def _rows_of(linear: Any, x: Tensor, swaps: list[list[int]]) -> Tensor:
    """``linear(x)`` with its rows swapped; rows that nobody takes are never computed.

    Args:
        linear: works on each row alone.
        x: [R, P, C].
        swaps: for each swap, in order, where each row is taken from.
    """
    if not swaps:
        return linear(x)  # type: ignore[no-any-return]
    source = list(range(len(x)))
    for rows in swaps:
        source = [source[r] for r in rows]
    used = sorted(set(source))
    return take(linear(take(x, used)), [used.index(r) for r in source])


class ControlStack(Intervention):
    """Controls, in their order of action, on one UNet for one walk.

    Args:
        controls: what acts; the list's order is the order of action.
        explicit: make the map of every controlled call (the reference the fast path is tested
            against).
    """

    def __init__(self, controls: Sequence[Control], *, explicit: bool = False) -> None:
        self.controls, self.explicit = list(controls), explicit
        self.denoiser: Denoiser | None = None
        self.alone: Control | None = None
        self.watched: dict[int, list[Site | Block]] = {}
        self.acted: Counter[tuple[int, Site | Block]] = Counter()
        self.steps: dict[int, set[int]] = {}

    @contextmanager
    def attach(self, denoiser: Denoiser) -> Iterator[ControlStack]:
        """Install on ``denoiser.model.unet``; every processor and hook is put back on exit.

        Raises:
            NothingActed: a control has no layer to watch in this UNet.
        """
        unet: Any = getattr(denoiser.model, "unet", None)
        if unet is None or not self.controls:
            yield self
            return
        for control in self.controls:
            control.begin(denoiser)
        before = dict(unet.attn_processors)
        processors = dict(before)
        self.watched = {i: [] for i in range(len(self.controls))}
        for name, site in sites_of(unet).items():
            mine = [(i, c) for i, c in enumerate(self.controls) if c.watches(site)]
            if not mine:
                continue
            if type(before[name]).__name__ not in _PLAIN:
                raise ValueError(
                    f"layer {name} has the attention processor {type(before[name]).__name__}, "
                    "which cannot be controlled: turn off attention slicing or adapters first"
                )
            for i, _ in mine:
                self.watched[i].append(site)
            processors[name] = Controlled(site, [c for _, c in mine], before[name], self)
        hooked = self._hooks(unet)
        for i, control in enumerate(self.controls):
            if control.needs_layers and not self.watched[i]:
                raise NothingActed(
                    f"{control.label}: this network has none of the layers that were asked for"
                )
        self.denoiser, self.alone = denoiser, None
        self.acted.clear()
        self.steps.clear()
        handles = []
        try:
            if any(isinstance(p, Controlled) for p in processors.values()):
                unet.set_attn_processor(processors)
            for convolution, hook in hooked:
                handles.append(convolution.register_forward_hook(hook))
            yield self
        finally:
            self.denoiser = self.alone = None
            for handle in handles:
                handle.remove()
            unet.set_attn_processor(before)

    def _hooks(self, unet: Any) -> list[tuple[Any, Hooked]]:
        """What is hooked into the residual blocks, and where."""
        hooked = []
        for block, convolution in blocks_of(unet).items():
            mine = [(i, c) for i, c in enumerate(self.controls) if c.watches_block(block)]
            for i, _ in mine:
                self.watched[i].append(block)
            if mine:
                hooked.append((convolution, Hooked(block, [c for _, c in mine], self)))
        return hooked

    def now(
        self, controls: Sequence[Control]
    ) -> tuple[Denoiser | None, Step | None, list[Control]]:
        """Who of ``controls`` acts in the call now running, and that call's denoiser and step.

        A call that a control makes in its own ``before`` is its own: nobody else acts in it.
        """
        step = None if self.denoiser is None else self.denoiser.step
        if step is None:
            return None, None, []
        allowed = [c for c in controls if self.alone in (None, c)]
        return self.denoiser, step, [c for c in allowed if c.active(step)]

    def count(self, control: Control, site: Site | Block, step: Step) -> None:
        """Note that a control acted."""
        i = self.controls.index(control)
        self.acted[i, site] += 1
        self.steps.setdefault(i, set()).add(step.index)

    def reads_source(self, step: Step) -> bool:
        return any(c.reads_source(step) for c in self.controls)

    def reads_source_uncond(self, step: Step) -> bool:
        return any(c.reads_source_uncond(step) for c in self.controls)

    def before(self, x: Tensor, step: Step, denoiser: Denoiser) -> Tensor:
        try:
            for control in self.controls:
                self.alone = control
                x = control.before(x, step, denoiser)
        finally:
            self.alone = None
        return x

    def after(self, x: Tensor, step: Step) -> Tensor:
        for control in self.controls:
            x = control.after(x, step)
        return x

    def report(self) -> list[dict[str, Any]]:
        """What each control did: layers by kind and scale, steps, and its own figures.

        Raises:
            NothingActed: a control watched layers but never acted.
        """
        rows = []
        for i, control in enumerate(self.controls):
            sites = {site for j, site in self.acted if j == i}
            if self.watched.get(i) and not sites:
                raise NothingActed(
                    f"{control.label}: no layer was changed at any step, so there is no edit to "
                    f"show: its window is empty ({control.remedy})"
                )
            layers = Counter(f"{s.kind} {s.place} 1/{s.scale}" for s in sites)
            rows.append(
                {
                    "control": control.label,
                    "layers_hooked": dict(sorted(layers.items())),
                    "steps_injected": sorted(self.steps.get(i, ())),
                    "calls": sum(n for (j, _), n in self.acted.items() if j == i),
                    **control.report(),
                }
            )
        return rows
