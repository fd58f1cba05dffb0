"""Edits of rendered photos against the true edited picture, which the embedded world can render."""

import argparse

import numpy as np
import torch
from PIL import Image

from p2p_real import Editor
from p2p_real.images import psnr
from p2p_real.tabletop.reader import load_reader
from p2p_real.tabletop.scene import held_out_rng, sample_edit, sample_scene
from p2p_real.tabletop.truth import truth_pair

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, default=10, help="edits of each of the five kinds")
parser.add_argument("--seed", type=int, default=11, help="of the held-out scenes")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--method", default="direct")
parser.add_argument("--edit", default="p2p", help="p2p, or plain: the new prompt alone")
args = parser.parse_args()

editor, reader, rng = Editor.load("tabletop", cache=False), load_reader(), held_out_rng(args.seed)
print(f"{'kind':<10}{'as asked':>9}{'rest kept':>10}{'dB inside':>10}{'dB outside':>11}")
for kind in ("color", "shape", "material", "ground", "light"):
    rows = []
    for _ in range(args.count):
        scene = sample_scene(rng, two=0)
        pair = truth_pair(scene, sample_edit(scene, rng, kind))
        kept = {"source": pair.source_caption, "method": args.method, "steps": args.steps}
        photo = Image.fromarray(pair.source.numpy())
        image = np.array(editor.edit(photo, pair.target_caption, edit=args.edit, **kept).image)
        said, inside = reader.read(torch.from_numpy(image)[None])[0], pair.changed.numpy()
        truth = pair.edited["objects"][0] | pair.edited
        rest = all(said[k] == truth[k] for k in said if k != kind)
        parts = [(image[m], pair.target.numpy()[m]) for m in (inside, ~inside)]
        dbs = [psnr(a[None], b[None]) if len(a) else 99 for a, b in parts]
        rows.append([said[kind] == truth[kind], rest, *dbs])
    asked, rest, inner, outer = np.mean(np.array(rows, float), 0)
    print(f"{kind:<10}{asked:>9.2f}{rest:>10.2f}{inner:>10.1f}{outer:>11.1f}", flush=True)
