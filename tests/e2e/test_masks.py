"""Masks by the command line: what they change, what they say, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .commands import RED_BALL, SOURCE, call, files_in, pixels

SWAP = ("--swap", "red=blue")


def shown(*argv: object) -> np.ndarray:
    """mask.png of an edit, after a check of what was pasted back."""
    run = call("edit", *argv, *SWAP, "--paste-back", "--quiet")
    assert run.code == 0, run.err
    mask, photo = pixels("out/mask.png")[..., 0], pixels(RED_BALL)
    assert (pixels("out/edited.png")[mask == 0] == photo[mask == 0]).all()
    return mask


def test_every_option_changes_the_mask(saved: Path, cwd: Path) -> None:
    box = shown(saved, "--mask-box", "0.5,0.2,1,0.75")
    side = box.shape[0]
    assert (box[:, : side // 2] == 0).all()
    assert box.mean() / 255 == pytest.approx(0.5 * 0.55, abs=0.01)
    words = shown(saved, "--mask-from", "words:red ball")
    joined = shown(saved, "--mask-from", "words:red ball - box:0.5,0.2,1,0.75")
    assert (joined == np.where(box == 0, words, 0)).all()
    both = shown(saved, "--mask-from", "words:red ball", "--mask-box", "0.5,0.2,1,0.75")
    assert (both == np.minimum(words, box)).all()
    loose = ("--mask-option", "threshold=0.1")
    assert shown(saved, "--mask-from", "words:red ball", *loose).sum() > words.sum()
    wide = shown(saved, "--mask-box", "0.5,0.2,1,0.75", "--grow", "3")
    assert (wide[:, side // 2 - 3] > 0).any()
    assert not wide[:, side // 2 - 4].any()
    soft = shown(saved, "--mask-box", "0.5,0.2,1,0.75", "--feather", "0.05")
    assert ((soft > 0) == (box > 0)).all()
    assert soft.sum() < box.sum()
    Image.fromarray(words.astype(np.uint8)).save("words.png")
    assert (shown(saved, "--mask-from", "file:words.png") == words).all()
    # an edit with a mask is repeated as any other
    run = call("edit", "--again", "out/edited.png", "--quiet", "--out", "again")
    assert run.code == 0, run.err
    assert (pixels("again/edited.png") == pixels("out/edited.png")).all()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--mask-from", "words:ball |"), "expected a source such as words:ball, at its end"),
        (("--mask-from", "words:cube"), "no word 'cube' in the prompt"),
        (("--mask-from", "wrods:ball"), "no mask method 'wrods' (did you mean 'words'?)"),
        (("--mask-from", "segment:ball"), "--segment-models DINO,SAM"),
        (("--mask-from", "file:none.png"), "there is no file"),
        (("--mask-box", "0.5,0,0.2,1"), "left top corner comes first"),
        (("--mask-box", "0,0,9999,9"), "reaches beyond the photo"),
        (("--mask-box", "0,0,1,1", "--grow", "2.5"), "--grow 2.5: give whole pixels"),
        (("--feather", "3"), "--feather belongs to a mask"),
        (("--mask-option", "a=1", "--mask-from", "words:ball"), "has such a setting; there are: "),
        (("--mask-from", "box:0,0,1,1 - box:0,0,1,1"), "is empty, so nothing could change"),
    ],
)
def test_what_cannot_be_a_mask_is_one_line(argv: tuple[str, ...], said: str, cwd: Path) -> None:
    few = ("--steps", "2", "--method", "ddim", "--no-cache", "--quiet")
    line = call("edit", RED_BALL, "--source", SOURCE, *SWAP, *few, *argv).line()
    assert said in line
    assert files_in(cwd) <= {"out"}
