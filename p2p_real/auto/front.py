"""The front door: ``editor.auto``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inversion.sampling import Progress

from ..files import check_output_folder
from ..numbers import STEPS
from .asked import read_asked
from .report import Writer, keep_photos
from .results import AutoResult
from .running import pipeline
from .settings import BATCH, Settings

if TYPE_CHECKING:
    from ..editor import Editor


def auto(
    editor: Editor,
    photos: Any,
    instruction: str | Sequence[str],
    *,
    out: str | Path | None = None,
    caption: str | None = None,
    method: str | None = None,
    steps: int = STEPS,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    seed: int = 0,
    fit: str = "resize",
    retry: bool = True,
    batch: int = BATCH,
    progress: Progress | None = None,
    **method_options: Any,
) -> AutoResult | list[AutoResult]:
    """Edit photos by an instruction in plain words.

    Args:
        editor: network and captioner.
        photos: a photo, a folder of some, or a list; a list or a folder gives a list.
        instruction: such as "make the ball blue and remove the mug", for all, or one each.
        out: a folder for pictures, sheet.png and report.json; a run that was stopped goes on there.
        caption: what the photos show; None asks the captioner.
        method, steps, guidance_scale, negative_prompt, seed, fit, **method_options: of the
            inversion, as in :meth:`p2p_real.Editor.invert`.
        retry: try once more where a check fails.
        batch: photos captioned and inverted together.
        progress: instead of the editor's own.

    Returns:
        One result, or a list in the order of the photos; ``end`` says what became of it. A photo
        that cannot be read, or to which the words do not fit, is "skipped" with its reason.

    Raises:
        AutoError: nothing to edit, numbers that do not match, or an `out` where a result would
            replace a photo.
        NotUnderstood: the instruction; says what can be read.
        UnknownMethod, SettingError, OptionError, OutputError: one line each.
    """
    many = isinstance(photos, list | tuple)
    folder = isinstance(photos, str | os.PathLike) and Path(photos).is_dir()
    texts = [instruction] if isinstance(instruction, str) else list(instruction)
    asked = read_asked(photos if many else [photos], texts)
    settings = Settings(
        caption, method, method_options, steps, guidance_scale, negative_prompt, seed, fit, retry,
        batch,
    )  # fmt: skip
    settings.check()
    single = not many and not folder
    if out is not None:
        keep_photos(Path(out), asked, single=single)
    place = None if out is None else check_output_folder(out)
    found = list(pipeline(editor, settings, out=place, progress=progress).each(asked))
    if place is not None:
        command = {"verb": "auto", "instructions": texts}
        writer = Writer(place, command, single=single)
        for result in found:
            writer.add(result)
        writer.end()
    return found[0] if single else found
