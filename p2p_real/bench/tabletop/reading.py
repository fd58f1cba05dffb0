"""What is to be seen in a picture, and whether it is what an edit asked for.

Pictures with one object are read by the reader, a small CNN; where an object comes or goes, by
the embedded captioner, which counts and names two. Both were trained on other scenes than these;
how often they err on the rendered truth is a part of every report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...tabletop.reader import Reader
from ...tabletop.scene import Record, caption, parse_caption
from .truths import TruthEdit

_PARTS = ("shape", "color", "material")


@dataclass(frozen=True)
class Reading:
    """What is read of a picture.

    Args:
        asked: the change is there as asked.
        kept: everything else is as it was.
        said: what the picture shows, in words.
        by: who read it, "reader" or "captioner".
    """

    asked: bool
    kept: bool
    said: str
    by: str


@dataclass(frozen=True)
class Readers:
    """Those who read.

    Args:
        reader: of pictures with one object.
        captioner: gives a caption for each picture.
    """

    reader: Reader
    captioner: Callable[[Sequence[Image.Image]], Sequence[str]]

    def read(self, picture: Image.Image, truth: TruthEdit) -> Reading:
        """Whether a picture shows what an edit asked for and kept.

        Args:
            picture: 128 x 128.
            truth: the edit.
        """
        if "add" in truth.ops or "remove" in truth.ops:
            return self._count(picture, truth)
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
        device = next(self.reader.parameters()).device
        words = self.reader.read(pixels[None].to(device))[0]
        wanted = {**truth.pair.edited["objects"][0], **truth.pair.edited}
        right = {name: word == wanted[name] for name, word in words.items()}
        return Reading(
            asked=all(right[op] for op in truth.ops),
            kept=all(ok for name, ok in right.items() if name not in truth.ops),
            said=caption({"objects": [{**words, "x": 0}], **words}),
            by="reader",
        )

    def _count(self, picture: Image.Image, truth: TruthEdit) -> Reading:
        """An object came or went: how many are there, and is the other one as it was?"""
        said = str(self.captioner([picture])[0])
        try:
            seen = parse_caption(said)
        except ValueError:
            return Reading(False, False, said, "captioner")
        things = [_thing(thing) for thing in seen["objects"]]
        more, fewer = _things(truth.pair.edited), _things(truth.pair.record)
        added = len(more) > len(fewer)
        if not added:
            more, fewer = fewer, more
        (staying,) = fewer
        place = 1 - more.index(staying)  # of the one that comes or goes, from the left
        there = len(things) > place and things[place] == more[place]
        if added:
            asked = len(things) == 2 and there
        else:
            asked = len(things) == 1 and (things[0] != more[place] or staying == more[place])
        rest = all(seen[name] == truth.pair.record[name] for name in ("ground", "light"))
        return Reading(asked, staying in things and rest, said, "captioner")


def _thing(thing: dict[str, Any]) -> tuple[str, ...]:
    return tuple(thing[name] for name in _PARTS)


def _things(record: Record) -> list[tuple[str, ...]]:
    return [_thing(thing) for thing in sorted(record["objects"], key=lambda thing: thing["x"])]
