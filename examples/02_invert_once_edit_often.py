"""An inversion is data: made once, saved, loaded, edited many times."""

import argparse

from p2p_real import Editor, Inversion
from p2p_real.pictures import strip
from p2p_real.tabletop import PHOTOS

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--photo", default=str(PHOTOS / "red_ball.png"))
parser.add_argument("--method", default="null-text")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="02_many.png")
args = parser.parse_args()

editor = Editor.load("tabletop")
inversion = editor.invert(args.photo, method=args.method, steps=args.steps, guidance_scale=2)
inversion.save("02_photo.inv.safetensors")

inversion = Inversion.load("02_photo.inv.safetensors")
pictures, labels = [editor.reconstruct(inversion)], ["reconstruction"]
for swap in ({"red": "green"}, {"ball": "cube"}, {"wooden table": "checkered cloth"}):
    result = editor.edit(inversion, swap=swap)
    pictures.append(result.image)
    labels.append(result.report["target"])
strip(pictures, labels).save(args.out)
print(f"{inversion.prompt}: {len(pictures) - 1} edits of one inversion in {args.out}")
