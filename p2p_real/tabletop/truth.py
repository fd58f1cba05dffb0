"""Truth pairs: a photo, an edit, and the exact edited picture."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from p2p_real.tabletop.render import render
from p2p_real.tabletop.scene import (
    GROUND_PHRASES,
    Edit,
    Record,
    apply_edit,
    caption,
    noun_phrase,
)

VISIBLE = 6  # of 255, in any channel: a difference that counts as a change
GROW = 2  # pixels


@dataclass(frozen=True)
class TruthPair:
    """A rendered photo and what an edit of its record truly looks like.

    Attributes:
        record: The scene of the photo.
        edit: What is changed.
        edited: The scene of the target.
        source: The photo, uint8 [size, size, 3].
        target: The true edited picture, uint8 [size, size, 3].
        source_caption: The photo's caption.
        target_caption: The target's caption.
        changed: Pixels that differ, grown by two pixels, bool [size, size].
        source_words: Words of the source caption that name what is changed.
        target_words: Words of the target caption that name what it becomes. A local blend looks
            for both; both are empty where the edit changes the whole picture (the light).
    """

    record: Record
    edit: Edit
    edited: Record
    source: Tensor
    target: Tensor
    source_caption: str
    target_caption: str
    changed: Tensor
    source_words: tuple[str, ...]
    target_words: tuple[str, ...]


def truth_pair(
    record: Record, edit: Edit, size: int = 128, device: str | torch.device = "cpu"
) -> TruthPair:
    """Renders a photo and its true edit.

    Args:
        record: The scene of the photo.
        edit: An edit that `scene.apply_edit` takes.
        size: Width and height in pixels.
        device: Where to render.

    Returns:
        Both pictures, both captions, the changed region and the words that stand for it.

    Raises:
        ValueError: An edit or a value that the world does not have.

    Example:
        >>> from p2p_real.tabletop.scene import held_out_rng, sample_scene
        >>> scene = sample_scene(held_out_rng(0), two=0)
        >>> pair = truth_pair(scene, {"op": "ground", "to": "sand"}, size=16)
        >>> pair.target_words, "on the sand" in pair.target_caption
        (('sand',), True)
    """
    edited = apply_edit(record, edit)
    source, target = render([record, edited], size, device)
    differs = (source.int() - target.int()).abs().amax(-1) > VISIBLE  # [H, W]
    grown = max_pool2d(differs[None, None].float(), 2 * GROW + 1, 1, GROW)[0, 0] > 0
    return TruthPair(
        record=record,
        edit=edit,
        edited=edited,
        source=source,
        target=target,
        source_caption=caption(record),
        target_caption=caption(edited),
        changed=grown,
        source_words=_words(record, edit, gone=True),
        target_words=_words(edited, edit, gone=False),
    )


def blend_words(pair: TruthPair) -> dict[str, str] | None:
    """What a local blend is to look for, by the last word of each thing that changes.

    Args:
        pair: A photo and its true edit.

    Returns:
        Source word to target word; twice the same word where an object comes or goes, which only
        one of the captions has. None where the whole picture changes.
    """
    parts = pair.edit["edits"] if pair.edit["op"] == "several" else [pair.edit]
    if any(part["op"] == "light" for part in parts):
        return None
    found = {}
    for part in parts:
        gone = _words(pair.record, part, gone=True)
        come = _words(pair.edited, part, gone=False)
        found[(gone or come)[-1]] = (come or gone)[-1]
    return found


def _words(record: Record, edit: Edit, gone: bool) -> tuple[str, ...]:
    """Words of a record's caption that name what the edit touches.

    Args:
        record: The scene before (`gone`) or after the edit.
        edit: What is changed.
        gone: Whether `record` is the scene before the edit.
    """
    op = edit["op"]
    if op == "several":
        if any(part["op"] == "light" for part in edit["edits"]):
            return ()
        found = [_words(record, part, gone) for part in edit["edits"]]
        return tuple(dict.fromkeys(word for words in found for word in words))
    if op == "light" or (op == "add" and gone) or (op == "remove" and not gone):
        return ()
    if op == "ground":
        phrase = GROUND_PHRASES[record["ground"]]
    else:
        phrase = noun_phrase(record["objects"][-1 if op == "add" else edit["object"]])
    words = [word for word in phrase.split() if word not in ("on", "a", "the")]
    spoken = caption(record).split()
    # a word that another object shares would find that object too
    own = [word for word in words if spoken.count(word) == 1]
    return tuple(own or words)
