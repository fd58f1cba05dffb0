"""Compute once what does not depend on the text: the network's prefix before its first
cross-attention (5 % of SD 1.5's forward pass, more of a small network's).

Which modules those are is found by watching one call, so no architecture is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def _prefix(root: nn.Module, call: Callable[[], Any]) -> tuple[list[nn.Module], Any]:
    """Modules that finished, once, before any text was read in ``call``; and its result."""
    counts: dict[nn.Module, int] = {}
    finished: list[nn.Module] = []
    state = {"text": False}

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if getattr(module, "is_cross_attention", False):
            state["text"] = True
        counts[module] = counts.get(module, 0) + 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if not state["text"]:
            finished.append(module)

    handles = []
    for module in root.modules():
        if module is not root:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
    try:
        result = call()
    finally:
        for handle in handles:
            handle.remove()
    done = set(finished)
    inner = {child for m in done for child in m.modules() if child is not m}
    return [m for m in done - inner if counts[m] == 1], result


class _Unclear(LookupError):
    """An output that does not say which part of it belongs to which row."""


def _rows(output: Any, count: int, rows: Sequence[int]) -> Any:
    """What rows of a call of ``count`` rows have of a module's output.

    Rows come first; a first dimension of several times ``count`` (heads, time ids) goes row by row.
    """
    if isinstance(output, Tensor):
        if not output.ndim or len(output) == 1:
            return output
        if len(output) % count:
            raise _Unclear
        split = output.unflatten(0, (count, len(output) // count))
        return split[list(rows)].flatten(0, 1)
    if type(output) in (tuple, list):
        return type(output)(_rows(part, count, rows) for part in output)
    if output is None or isinstance(output, bool | int | float | str):
        return output
    raise _Unclear


class Memo:
    """Remembers the outputs of a network's text-free prefix between ``start`` and ``forget``."""

    def __init__(self, root: nn.Module | None) -> None:
        self.root = root
        self.modules: list[nn.Module] | None = None
        self._asked: tuple[int, ...] = (0,)

    def start(self) -> None:
        """From here on the latents and the timestep stay the same."""
        if self.root is None:
            return
        if self.modules is None:
            self._watch(self.root)
        for module in self.modules or ():
            self._hold(module)

    def only(self, rows: Sequence[int]) -> None:
        """The next calls are of these rows, in this order; the first call is of all, 0 to B - 1."""
        self._asked = tuple(rows)

    def _watch(self, root: nn.Module) -> None:
        plain = root.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            del root.forward
            self.modules, result = _prefix(root, lambda: plain(*args, **kwargs))
            return result

        root.forward = watched  # type: ignore[method-assign]

    def _hold(self, module: nn.Module) -> None:
        plain = module.forward

        def first(*args: Any, **kwargs: Any) -> Any:
            whole = plain(*args, **kwargs)
            everyone = self._asked
            cut = {everyone: whole}  # the whole and the last part asked for

            def again(*args: Any, **kwargs: Any) -> Any:
                asked = self._asked
                if asked not in cut:
                    try:
                        part = _rows(whole, len(everyone), asked)
                    except _Unclear:
                        return plain(*args, **kwargs)
                    cut.clear()
                    cut.update({everyone: whole, asked: part})
                return cut[asked]

            module.forward = again  # type: ignore[method-assign]
            return whole

        module.forward = first  # type: ignore[method-assign]

    def forget(self) -> None:
        """Every module computes again."""
        for module in (*(self.modules or ()), *([self.root] if self.root is not None else ())):
            module.__dict__.pop("forward", None)


@contextmanager
def memo(model: object) -> Iterator[Memo]:
    """A :class:`Memo` of ``model.unet`` (of nothing, if there is none), cleared on exit."""
    root = getattr(model, "unet", None)
    kept = Memo(root if isinstance(root, nn.Module) else None)
    try:
        yield kept
    finally:
        kept.forget()
