"""Which captioner describes photos for which model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captioning import Captioner, captioners, load_captioner
from captioning.checkpoints import kind_of
from captioning.matching import RewriteError

SMALL_WORLD = (
    " (the caption is the embedded captioner's, which knows its own small scenes only: for "
    "your own photos use --model sd1.5 or sdxl)"
)


@contextmanager
def on_caption(model: str, captioned: bool = True) -> Iterator[None]:
    """Words that a caption lacks are refused with a hint at who captioned the photo.

    Args:
        model: the model that will edit.
        captioned: whether the caption is a captioner's, not the user's.
    """
    try:
        yield
    except RewriteError as error:
        if captioned and model == "tabletop":
            error.args = (f"{error}{SMALL_WORLD}", *error.args[1:])
        raise


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
