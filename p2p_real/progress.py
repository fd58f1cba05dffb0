"""Progress for people: bars on stderr behind the loops' progress callable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm


class Bars:
    """One tqdm bar a stage, on stderr; use as a context manager.

    Args:
        disable: show nothing.
        begin: called before anything is shown, and whenever work goes on.
    """

    def __init__(self, disable: bool = False, begin: Callable[[], None] | None = None) -> None:
        self.disable, self.begin = disable, begin
        self._stage = ""
        self._bar: tqdm | None = None

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if self.begin is not None:
            self.begin()
        if self.disable:
            return
        if stage != self._stage or self._bar is None:
            self.close()
            self._stage = stage
            self._bar = tqdm(
                total=total, desc=stage, file=sys.stderr, dynamic_ncols=True, mininterval=0.3
            )
        self._bar.update(done - self._bar.n)
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the bar now shown."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
