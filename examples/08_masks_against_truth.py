"""Masks read from a photo against the true region of its change (intersection over union)."""

import argparse

import numpy as np

from p2p_real import Editor
from p2p_real.bench.tabletop import mask_iou, truth_set
from p2p_real.masks.grammar import MaskError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, default=40, help="edits of an object in all")
parser.add_argument("--seed", type=int, default=21, help="of the held-out scenes")
parser.add_argument("--steps", type=int, default=20, help="of the inversion")
args = parser.parse_args()

WAYS = {  # name: (kind of mask, its settings)
    "plain attention": ("words", {"refine": 0}),
    "refined by self-attention": ("words", {}),
    "DiffEdit": ("diffedit", {}),
}
editor, found = Editor.load("tabletop", cache=False), {name: [] for name in WAYS}
for truth in truth_set("colour,object,material", limit=args.count, seed=args.seed):
    inversion = editor.invert(
        truth.photo, truth.pair.source_caption, method="direct", steps=args.steps, verify=False
    )
    thing = next(iter(truth.local))
    for name, (kind, settings) in WAYS.items():
        spec = f"words:{thing}" if kind == "words" else kind
        try:
            mask = editor.mask(inversion, spec, truth.pair.target_caption, **settings).values > 0.5
        except MaskError:  # it found nothing
            mask = np.zeros(truth.changed.shape, bool)
        found[name].append(mask_iou(mask, truth.changed))
for name, values in found.items():
    print(f"{name:<28}{np.mean(values):.2f} of {len(values)}, least {min(values):.2f}")
