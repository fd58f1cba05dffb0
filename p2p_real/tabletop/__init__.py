"""The embedded world: a renderer, a caption grammar, and a small diffusion model trained on both.

`CHECKPOINT` is a folder that `StableDiffusionPipeline.from_pretrained` loads, `CAPTIONER` one
that BLIP's own classes load, `READER` the weights of the attribute reader and `PHOTOS` a folder
of rendered photos, each with the scene record it was rendered from beside it.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

CHECKPOINT = _HERE / "checkpoint"
CAPTIONER = _HERE / "captioner"
READER = _HERE / "reader.safetensors"
PHOTOS = _HERE / "photos"

__all__ = ["CAPTIONER", "CHECKPOINT", "PHOTOS", "READER"]
