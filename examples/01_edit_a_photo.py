"""Edit a photo by swapping a word: caption, inversion, edit, strip."""

import argparse
from pathlib import Path

from p2p_real import Editor
from p2p_real.tabletop import PHOTOS

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--photo", default=str(PHOTOS / "green_mug.png"))
parser.add_argument("--model", default="tabletop", help="sd1.5 or sdxl for your own photos")
parser.add_argument("--swap", default="green=yellow", metavar="OLD=NEW")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="01_edit.png")
args = parser.parse_args()

editor = Editor.load(args.model)
photo = editor.open(args.photo)
print("caption:", editor.caption(photo))

old, new = args.swap.split("=")
result = editor.edit(photo, swap={old: new}, steps=args.steps)
result.strip().save(args.out)
print("target: ", result.report["target"])
print("strip:  ", Path(args.out).resolve().name)
