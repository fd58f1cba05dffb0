"""What the user wants to say, made into a source prompt and a target prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from captioning import rewrite

from .moving import MOVE, Moved, read_moves

if TYPE_CHECKING:
    from .directions import Direction


class PromptError(ValueError):
    """A prompt that cannot be used, or an edit that changes nothing."""


@dataclass(frozen=True)
class EditWords:
    """An edit in words; give ``target`` or any of the others, or both weights and a target.

    Args:
        target: the whole new prompt.
        swap: old word or phrase -> new one.
        add: phrases to add at the end.
        remove: words or phrases to take out.
        weight: word of the new prompt -> factor of its attention.
        style: a phrase that the picture becomes ("a watercolor painting").
        direction: an edit direction that is added to the new prompt's embeddings, as
            :func:`p2p_real.directions.expression.resolve` reads it, or the direction itself.
        also: more whole prompts, edited in the same run.
        move: words or a mask -> (right, down), how far that object goes, in fractions of the photo.
        resize: words or a mask -> factor of that object's size.
        same: the words stay as they are; the picture is to show some of them (``excite``).
    """

    target: str | None = None
    swap: Mapping[str, str] = field(default_factory=dict)
    add: Sequence[str] = ()
    remove: Sequence[str] = ()
    weight: Mapping[str, float] = field(default_factory=dict)
    style: str | None = None
    direction: str | Direction | None = None
    also: Sequence[str] = ()
    move: Mapping[str, Any] = field(default_factory=dict)
    resize: Mapping[str, Any] = field(default_factory=dict)
    same: bool = False

    @property
    def moves(self) -> bool:
        """Whether objects are moved or resized."""
        return bool(self.move or self.resize)

    def control(self) -> dict[str, Any]:
        """The options of an edit that these words imply."""
        return {"edit": (MOVE,)} if self.moves else {}

    def any(self) -> bool:
        """Whether anything is asked for."""
        rewrites = self.swap or self.add or self.remove or self.weight or self.style
        others = self.direction is not None or self.moves or self.same
        return bool(self.target is not None or rewrites or others)

    def check(self) -> None:
        """Refuse a request that makes no sense whatever the photo shows.

        Raises:
            PromptError: nothing is asked for, the target is empty, or it stands beside rewrites.
            DirectionError: there is no such direction.
        """
        if not self.any() or self.same:
            if self.also:
                raise PromptError("--also stands beside an edit: give --target or --swap too")
            if self.same:
                return
            raise PromptError(
                "no edit asked for: give --target, --swap, --add, --remove, --weight, --style, "
                "--direction, --move, --resize or --excite"
            )
        if self.moves:
            self._check_moves()
        if not all(text.strip() for text in self.also):
            raise PromptError("--also is empty: say what that picture should show")
        if isinstance(self.direction, str):
            from .directions.expression import check

            check(self.direction)
        if self.target is None:
            return
        if not self.target.strip():
            raise PromptError("the target prompt is empty: say what the picture should show")
        if self.swap or self.add or self.remove or self.style:
            raise PromptError(
                "--target says the whole new prompt: it cannot be combined with --swap, --add, "
                "--remove or --style"
            )

    def _check_moves(self) -> None:
        read_moves(self.move, self.resize)
        words = {f.name: getattr(self, f.name) for f in fields(self)}
        others = [name for name, value in words.items() if value and name not in ("move", "resize")]
        if others:
            raise PromptError(
                f"--move and --resize change no words, so --{others[0]} does not go with them: "
                "leave it out, and edit the moved picture afterwards"
            )

    def apply(self, source: str) -> Prompts:
        """The prompts of this edit.

        Raises:
            PromptError: as :meth:`check`; an empty source, or a target equal to it without any
                weight to change.
            WordNotInPrompt: a word to swap or remove is not there.
        """
        if not source.strip():
            raise PromptError("the source prompt is empty: describe the photo with --source")
        self.check()
        if self.moves:
            return Prompts(source, source, moves=read_moves(self.move, self.resize))
        if self.same:
            return Prompts(source, source)
        text = (self.target or "").strip()
        changed: tuple[tuple[str, str], ...] = ()
        if self.target is None:
            done = rewrite.compose(
                source,
                swaps=self.swap,
                removals=self.remove,
                additions=self.add,
                styles=[self.style] if self.style else [],
            )
            text, changed = done.target, done.changed
        same_words = all(factor == 1 for factor in self.weight.values()) and _alike(text, source)
        if same_words and self.direction is None:
            raise PromptError(
                f"the target prompt equals the source prompt ({source!r}): there is nothing to "
                "edit; change a word or give --weight word=2"
            )
        also = tuple(text.strip() for text in self.also)
        taken = [source, text]
        for one in also:
            if any(_alike(one, other) for other in taken):
                raise PromptError(f"--also {one!r} is the source or another target: leave it out")
            taken.append(one)
        return Prompts(source, text, changed, dict(self.weight), self.direction, also)


def _alike(a: str, b: str) -> bool:
    """Whether text encoders read the same: they see neither case nor how much space."""
    return a.lower().split() == b.lower().split()


@dataclass(frozen=True)
class Prompts:
    """Source and target prompt, the (old, new) words changed, the weights of words, and what is
    added to the targets' embeddings. ``also`` are more targets, beside the first; ``moves`` the
    objects that go elsewhere under an unchanged prompt."""

    source: str
    target: str
    changed: tuple[tuple[str, str], ...] = ()
    weight: Mapping[str, float] = field(default_factory=dict)
    direction: str | Direction | None = None
    also: tuple[str, ...] = ()
    moves: tuple[Moved, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """All target prompts."""
        return (self.target, *self.also)
