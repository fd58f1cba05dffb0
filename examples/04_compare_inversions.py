"""One photo, every inversion: how well it comes back, and what that cost."""

import argparse

from inversion import inverters
from p2p_real import Editor
from p2p_real.pictures import strip
from p2p_real.tabletop import PHOTOS

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--photo", default=str(PHOTOS / "pink_donut.png"))
parser.add_argument("--guidance", type=float, default=5.0)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="04_inversions.png")
args = parser.parse_args()

editor = Editor.load("tabletop", cache=False)
photo = editor.open(args.photo)
prompt = editor.caption(photo)
pictures, labels = [photo.image], ["photo"]
for name in inverters:
    kept = {"method": name, "steps": args.steps, "guidance_scale": args.guidance}
    inversion = editor.invert(photo, prompt, **kept)
    figures = inversion.extra
    print(
        f"{name:<16} {figures['reconstruction_psnr']:6.2f} dB of {figures['ceiling_psnr']:.2f}"
        f"   {figures['seconds']:6.1f} s"
    )
    pictures.append(editor.reconstruct(inversion))
    labels.append(f"{name} {figures['reconstruction_psnr']:.1f} dB")
strip(pictures, labels).save(args.out)
