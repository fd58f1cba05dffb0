"""More or less of a word: the same picture at several weights."""

import argparse

from p2p_real import Editor
from p2p_real.pictures import strip

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a red striped ball on the grass at noon")
parser.add_argument("--word", default="striped")
parser.add_argument("--weights", type=float, nargs="+", default=[-2, 0, 2, 5])
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="03_weights.png")
args = parser.parse_args()

editor = Editor.load("tabletop")
pictures, labels = [editor.generate(args.prompt, steps=args.steps, seed=3).image], ["weight 1"]
for weight in args.weights:
    result = editor.generate(
        args.prompt, weight={args.word: weight}, steps=args.steps, seed=3, cross_replace=1.0
    )
    pictures.append(result.image)
    labels.append(f"{args.word} = {weight:g}")
strip(pictures, labels).save(args.out)
print(f"{args.word!r} at {args.weights} in {args.out}")
