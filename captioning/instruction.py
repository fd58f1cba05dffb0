"""One thing to do, as an instruction says it."""

from __future__ import annotations

from dataclasses import dataclass

from captioning.matching import RewriteError


@dataclass(frozen=True)
class Instruction:
    """One thing to do.

    Attributes:
        op: "attribute", "swap", "remove", "add", "scene", "amount" or "style".
        target: words of the thing without its article: "ball", "red ball", "it", "second ball";
            "" for a scene, a style, or an amount of the whole picture.
        value: "blue", "cylinder", "night", "striped", "a small cat", "watercolour".
        place: of an add, or of a thing that is put somewhere: "on the table"; "" for none.
        amount: of "amount": above 0 more, below 0 less; slightly 0.5, more 1, much more 2.
        text: the clause as given.
        aspect: what of the thing changes, where that is said: "colour", "material", "background";
            "words" where the very words go ("replace the red ball with a cube"), "with" of an add
            that the first thing has ("with a hat").
    """

    op: str
    target: str
    value: str
    place: str = ""
    amount: float = 0
    text: str = ""
    aspect: str = ""


class NotUnderstood(RewriteError):
    """An instruction that cannot be read, or that this caption gives no sense; one line."""
