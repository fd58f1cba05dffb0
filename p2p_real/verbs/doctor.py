"""Tell what is installed and what is missing; with --plan, what a run would cost here.

Examples:
  p2p-real doctor
  p2p-real doctor --plan --model sd1.5 --method null-text
  p2p-real doctor --make-lavis-env

--captioner lavis runs in an environment of its own, which --make-lavis-env makes by venv and pip.
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan",
        action="store_true",
        help="load the model, time one UNet row, and predict the cost of --method and an edit",
    )
    parser.add_argument("--method", metavar="M", help="inversion method of the plan")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of the plan (50)")
    group = parser.add_argument_group("the environment of --captioner lavis")
    group.add_argument(
        "--make-lavis-env",
        action="store_true",
        help="make it, unless it is there and works; some 100 MB are fetched",
    )
    group.add_argument(
        "--lavis-env",
        metavar="DIR",
        help="where to (default: where it was, or a folder of the user's cache)",
    )
    group.add_argument(
        "--lavis-pins",
        choices=("current", "own"),
        default="current",
        help="current: with the transformers of this program; own: with those versions that LAVIS "
        "was released with, for Python 3.10 and 3.11 (default: current)",
    )
    options.add_model(parser, captioner=False)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from .. import doctor
    from ..numbers import check_numbers

    check_numbers(steps=args.steps)
    check_given(args)
    options.check_model(args)
    with options.bars(args) as bars:
        lavis = (
            doctor.make_lavis(args.lavis_env, args.lavis_pins, bars)
            if args.make_lavis_env
            else doctor.look_at_lavis()
        )
    report = {**doctor.survey(), "lavis": lavis}
    if args.plan:
        from inversion import inverters

        from ..numbers import AUTO, FIRST

        method = FIRST if args.method in (None, AUTO) else args.method  # auto tries it first
        inverters.create(method)
        report["plan"] = doctor.predict(
            args.model,
            method,
            args.steps,
            device=args.device,
            dtype=args.dtype,
            offload=args.offload,
            lora=args.lora,
        )
    if not args.json:
        print(doctor.describe(report))
    return report


def check_given(args: argparse.Namespace) -> None:
    """Refuse options that would have no effect.

    Raises:
        OptionError: says what they belong to.
    """
    from ..numbers import OptionError

    for name in args.given:
        option = f"--{name.replace('_', '-')}"
        if name in ("json", "quiet", "plan", "make_lavis_env"):
            continue
        if name.startswith("lavis_"):
            if not args.make_lavis_env:
                raise OptionError(f"{option} is of --make-lavis-env: give it too, or leave it out")
        elif not args.plan:
            raise OptionError(f"{option} is of a plan: give --plan too, or leave it out")
