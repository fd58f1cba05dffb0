"""Show how a prompt is cut into tokens; of two prompts, how their words are aligned.

Examples:
  p2p-real tokens "a hippopotamus on a mat" --model sd1.5
  p2p-real tokens "a red ball on a wooden table" "a blue cube on a wooden table"
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="a prompt, in quotes")
    parser.add_argument("target", nargs="?", metavar="TARGET", help="what it is changed to")
    options.add_model(parser, captioner=False)
    options.add_output(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from edit.align import align

    from ..prompts import PromptError

    if not args.prompt.strip() or (args.target is not None and not args.target.strip()):
        raise PromptError("the prompt is empty: give some words")
    options.check_model(args)
    from ..backbones import load_backbone

    backbone = load_backbone(
        args.model,
        device=args.device,
        dtype=args.dtype,
        lora=args.lora,
        offload=args.offload,
    )
    source = backbone.tokens(args.prompt)
    source.check_length()

    def rows(tokens: Any) -> list[dict[str, Any]]:
        spans = zip(tokens.ids, tokens.spans, strict=True)
        return [
            {"position": i, "id": t, "text": tokens.text[a:b]}
            for i, (t, (a, b)) in enumerate(spans, 1)
        ]

    result: dict[str, Any] = {"prompt": args.prompt, "tokens": rows(source)}
    if args.target is None:
        if not args.json:
            for row in result["tokens"]:
                print(f"{row['position']:>3}  {row['id']:>6}  {row['text']}")
            print(f"{len(source.ids)} tokens of {source.length - 2}")
        return result
    target = backbone.tokens(args.target)
    target.check_length()
    found = align(source, target)
    result |= {
        "target": args.target,
        "target_tokens": rows(target),
        "alignment": [{"source": a, "target": b, "kind": k} for a, b, k in found.pairs],
        "columns": [
            {
                "position": j,
                "text": target.text[slice(*target.spans[j - 1])],
                "from": [int(i) for i in found.matrix[:, j].nonzero()],
            }
            for j in range(1, len(target.ids) + 1)
        ],
    }
    if not args.json:
        width = max(len(a) for a, _, _ in found.pairs)
        for a, b, kind in found.pairs:
            print(f"{a or '-':<{max(width, 1)}}  {kind:<8} {b or '-'}")
        for column in result["columns"]:
            print(
                f"{column['position']:>3}  {column['text']:<16} takes {column['from'] or 'its own'}"
            )
    return result
