"""Which captioner describes photos for which model."""

from __future__ import annotations

from pathlib import Path

from captioning import Captioner, captioners, load_captioner
from captioning.checkpoints import kind_of


def captioner_for(name: str, model: str, device: str = "auto") -> Captioner:
    """The captioner of a name; the embedded model brings its own BLIP.

    Args:
        name: a captioner's name ("blip", "blip2", "lavis"), or a folder or hub id of one of their
            checkpoints: which it is, its files tell.
        model: the model that will edit.
        device: where it runs; ``auto`` lets it choose.

    Raises:
        UnknownCaptioner, CaptionerError: says what there is.
    """
    checkpoint = None
    if name == "blip" and model == "tabletop":
        from .tabletop import CAPTIONER

        checkpoint = str(CAPTIONER)
    elif "/" in name or (name not in captioners() and Path(name).exists()):
        name, checkpoint = kind_of(name), name
    return load_captioner(name, checkpoint, None if device == "auto" else device)
