"""Default numbers, and which numbers make a picture; imports nothing heavy."""

from __future__ import annotations

import math
from typing import Any

AUTO = "auto"
METHOD = AUTO  # of invert and edit
FIRST = "direct"  # what auto tries first, and a plan is made for
GUIDANCE = 7.5
STEPS = 50


class OptionError(ValueError):
    """A number or name that cannot be used; names the option and what is possible."""


def finite(decibel: float) -> float | None:
    """A PSNR as JSON knows it: None for the infinite one of equal pictures."""
    return decibel if math.isfinite(decibel) else None


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


def check_edit_guidance(guidance_scale: float) -> None:
    """Refuse the guidance at which an edit of words cannot act.

    Raises:
        OptionError: not a number from above 0 to 100.
    """
    check_numbers(guidance_scale=guidance_scale)
    if guidance_scale == 0:
        raise OptionError(
            "--guidance 0 does not read the prompts, so no word could change the picture: give a "
            "number above 0"
        )


def check_negative(inverter: Any, negative_prompt: str) -> None:
    """Refuse a negative prompt beside a method that decides the unconditional text itself.

    Raises:
        OptionError: names the methods that leave it free.
    """
    if negative_prompt and inverter.owns_uncond:
        raise OptionError(
            f"{inverter.name} decides the unconditional text itself, so --negative-prompt would "
            "have no effect: use --method direct or ddim"
        )
