"""Runs the commands of docs/tutorial.md and puts the pictures they make beside it."""

import argparse
import re
import shlex
import shutil
from pathlib import Path

from p2p_real.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
MADE = ("sweep.png", "compare.png", "sheet.png", "words.png", "strip.png")  # what is shown of a run

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--only", default="", help="names of runs, joined by commas (default: all)")
parser.add_argument("--options", default="", help='added to every command ("--steps 10")')
parser.add_argument("--pictures", type=Path, default=PAGE.parent / "tutorial")
args = parser.parse_args()

BLOCK = re.compile(r"```\n(.+?)```\n!\[.*?\]\(tutorial/(\w+)\.png\)", re.DOTALL)

wanted, failed = set(filter(None, args.only.split(","))), []
args.pictures.mkdir(parents=True, exist_ok=True)
for block, name in BLOCK.findall(PAGE.read_text()):
    if wanted and name not in wanted:
        continue
    for command in block.splitlines():
        words = shlex.split(command)[1:]
        print(f"\n$ {command}", flush=True)
        if main([*words, *shlex.split(args.options)]) != 0:
            failed.append(name)
            break
    else:
        folder = Path(words[words.index("--out") + 1])
        made = next(folder / kind for kind in MADE if (folder / kind).is_file())
        shutil.copy(made, args.pictures / f"{name}.png")
if failed:
    raise SystemExit(f"failed: {', '.join(failed)}")
