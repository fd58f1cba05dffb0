"""What would be done: captions and decisions, without the network that edits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from captioning.understanding import understand

from ..compare.entries import Failure
from ..images import PhotoError, open_photo
from . import deciding
from .asked import Asked
from .checking import floors

if TYPE_CHECKING:
    from captioning import Captioner


_WHEN = {"first": "first", "undone": "if undone", "spilled": "if not kept"}


def dry_run(
    asked: Sequence[Asked],
    caption: str | None,
    captioner: Callable[[], Captioner],
    *,
    retry: bool = True,
) -> dict[str, Any]:
    """What is understood of each photo, and how it would be edited.

    Args:
        asked: photos and instructions.
        caption: what the photos show; None asks the captioner.
        captioner: loads it; not called where a caption is given.
        retry: tell of the second tries too.
    """
    told = None if caption is not None else captioner()
    rows = []
    for one in asked:
        row: dict[str, Any] = {"label": one.label, "instruction": one.text, "caption": caption}
        try:
            photo = open_photo(one.photo)
            if told is not None:
                row["caption"] = told.caption([photo.image])[0]
            meaning = understand(row["caption"], one.instructions)
        except (PhotoError, ValueError, LookupError) as error:
            rows.append(row | {"why": Failure.of(error).reason})
            continue
        choices = deciding.choices_of(meaning)
        row |= {
            "understood": {f.name: getattr(meaning, f.name) for f in dataclasses.fields(meaning)},
            "where": deciding.place_spec(meaning),
            "tries": {
                name: {
                    "why": getattr(choices, name).why,
                    "settings": getattr(choices, name).asked(meaning),
                }
                for name in (_WHEN if retry else ("first",))
            },
        }
        rows.append(row)
    return {"photos": rows, "floors": floors()}


def describe(found: Mapping[str, Any]) -> str:
    """A few lines a photo."""
    lines = []
    for row in found["photos"]:
        lines.append(f"{row['label']}: {row['instruction']}")
        if row["caption"] is not None:
            lines.append(f"  {'caption':<12}{row['caption']}")
        if "why" in row:
            lines.append(f"  {'skipped':<12}{row['why']}")
            continue
        meaning = row["understood"]
        lines.append(f"  {'kind':<12}{meaning['kind']}")
        lines.append(f"  {'target':<12}{meaning['target']}")
        lines += [f"  {'note':<12}{note}" for note in meaning["notes"]]
        lines.append(f"  {'changes':<12}{row['where'] or 'the whole picture'}")
        for name, one in row["tries"].items():
            shown = ", ".join(f"{k} {_text(v)}" for k, v in one["settings"].items() if v)
            lines.append(f"  {_WHEN[name]:<12}{shown}: {one['why']}")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v}" for k, v in value.items())
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
