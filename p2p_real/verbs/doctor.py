"""Tell what is installed and what is missing; with --plan, what a run would cost here.

Examples:
  p2p-real doctor
  p2p-real doctor --plan --model sd1.5 --method null-text
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
    options.add_model(parser, captioner=False)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from .. import doctor
    from ..numbers import OptionError, check_numbers

    check_numbers(steps=args.steps)
    if not args.plan:
        for name in args.given:
            if name not in ("json", "quiet"):
                raise OptionError(f"--{name} is of a plan: give --plan too, or leave it out")
    options.check_model(args)
    report = doctor.survey()
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
