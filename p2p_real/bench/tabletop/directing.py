"""Truth edits said as directions: the things that change, before and after, in many sentences.

The target's caption is not used: what is added to the photo's own words is the difference of the
mean sentence about the one thing and about the other. The sentences are those of ``p2p-real
direction``, or captions of the embedded world, which are all that its text encoder has learned.

Paper: Zero-shot Image-to-Image Translation (arXiv 2302.03027), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from ...directions.sentences import about
from ...tabletop.scene import COLORS, GROUND_PHRASES, LIGHTS, SHAPES, Record, noun_phrase
from .truths import TruthEdit
from .ways import FORMS

if TYPE_CHECKING:
    from ...backbones.base import Backbone
    from ...directions import Direction

Words = tuple[str, str]


def direction_words(truth: TruthEdit) -> list[Words]:
    """What goes and what comes, a pair for each thing of the scene that changes.

    An object is said whole ("a red ball", "a blue ball"), since a plain material has no word of
    its own; where one comes or goes, the objects are said together.

    Example:
        >>> from .truths import truth_set
        >>> direction_words(truth_set("light", per_kind=1)[0])
        [('night', 'noon')]
    """
    before, after = truth.pair.record, truth.pair.edited
    pairs = [
        (_objects(before), _objects(after)),
        (_ground(before), _ground(after)),
        (before["light"], after["light"]),
    ]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _objects(record: Record) -> str:
    things = sorted(record["objects"], key=lambda thing: thing["x"])
    return " and ".join(noun_phrase(thing) for thing in things)


def _ground(record: Record) -> str:
    return GROUND_PHRASES[record["ground"]].removeprefix("on ")


def captions_about(words: str) -> list[str]:
    """Captions of the world that hold a light, a ground or objects.

    Example:
        >>> captions_about("a red ball")[0], captions_about("night")[0]
        ('a red ball on a wooden table at noon', 'a red ball on a wooden table at night')
    """
    things = [f"a {color} {SHAPES[i % len(SHAPES)]}" for i, color in enumerate(COLORS)]
    grounds, lights = [*GROUND_PHRASES.values()], [*LIGHTS]
    if words in LIGHTS:
        lights = [words]
    elif f"on {words}" in grounds:
        grounds = [f"on {words}"]
    else:
        things = [words]
    return [f"{t} {ground} at {light}" for t in things for ground in grounds for light in lights]


@dataclass
class Directions:
    """Directions of one model; each pair of words is read once.

    Args:
        backbone: whose text encoder reads the sentences.
    """

    backbone: Backbone
    made: dict[tuple[str, Words], Direction] = field(default_factory=dict)

    def of(self, truth: TruthEdit, sentences: str = FORMS) -> Direction:
        """The direction of an edit: the sum over the things that change.

        Args:
            truth: the edit.
            sentences: one of ``DIRECTIONS``.
        """
        found = [self._between(words, sentences) for words in direction_words(truth)]
        return reduce(lambda a, b: a.add(b), found)

    def _between(self, words: Words, sentences: str) -> Direction:
        from ...directions import Direction

        if (sentences, words) not in self.made:
            say = about if sentences == FORMS else captions_about
            self.made[sentences, words] = Direction.between(
                self.backbone, say(words[0]), say(words[1]), words=words, made_by=sentences
            )
        return self.made[sentences, words]
