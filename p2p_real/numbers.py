"""Default numbers, and which numbers make a picture; imports nothing heavy."""

from __future__ import annotations

import math

METHOD = "direct"
GUIDANCE = 7.5
STEPS = 50


class OptionError(ValueError):
    """A number or name that cannot be used; names the option and what is possible."""


def check_numbers(
    *, steps: int | None = None, guidance_scale: float | None = None, seed: int | None = None
) -> None:
    """Refuse numbers that make no picture.

    Raises:
        OptionError: names the option and its range.
    """
    if steps is not None and not 1 <= steps <= 1000:
        raise OptionError(f"--steps {steps}: give a whole number from 1 to 1000")
    if guidance_scale is not None and not (
        math.isfinite(guidance_scale) and 0 <= guidance_scale <= 100
    ):
        raise OptionError(f"--guidance {guidance_scale}: give a number from 0 to 100")
    if seed is not None and not 0 <= seed < 2**63:
        raise OptionError(f"--seed {seed}: give a whole number from 0 to 2^63 - 1")
