"""The pipeline: caption, understand, invert, edit, check, once more where it failed, keep."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captioning.understanding import Meaning, understand
from edit import NothingActed
from inversion import Cancelled, Inversion
from inversion.sampling import Progress

from .. import defaults
from ..captions import on_caption
from ..choosing import inversions
from ..compare.cells import Cell, Cells
from ..compare.entries import Failure
from ..directions import Direction
from ..directions.sentences import about
from ..files import OutputError
from ..images import Photo, PhotoError
from ..masks import MaskError
from ..measure import versions
from ..metrics import pixels
from . import checking, deciding
from .asked import Asked
from .deciding import Choice
from .places import Places
from .results import (
    COULD_NOT,
    DONE,
    RETRIED,
    AutoResult,
    Tried,
    inverted,
    result_of,
    skipped,
    told,
    warnings,
    why,
)
from .settings import Settings

if TYPE_CHECKING:
    from ..editor import Editor

logger = logging.getLogger(__name__)

GROW = 0.08  # of the shorter side: what replaces a thing may be so much larger
RULE = (
    "the try kept is the one that fails fewer checks; at equal number the one whose change is "
    "there, then the first"
)


@dataclass
class Pipeline:
    """Photos through the whole way; models are shared by all of them.

    Args:
        editor: network and captioner.
        settings: of the call.
        cells: where finished photos are kept, or None.
        progress: called through all work.
    """

    editor: Editor
    settings: Settings
    cells: Cells | None
    progress: Progress
    total: int = 0
    done: int = 0
    _now: str = ""
    _directions: dict[tuple[str, str], Direction] = field(default_factory=dict)

    def each(self, asked: Sequence[Asked]) -> Iterator[AutoResult]:
        """The results one after the other, in the order of the photos."""
        self.total = len(asked)
        for start in range(0, len(asked), self.settings.batch):
            yield from self._together(asked[start : start + self.settings.batch])

    def _together(self, asked: Sequence[Asked]) -> Iterator[AutoResult]:
        """Photos that are captioned and inverted together."""
        ended: dict[int, AutoResult] = {}
        photos: dict[int, Photo] = {}
        for n, one in enumerate(asked):
            try:
                photos[n] = self.editor.open(one.photo)
            except PhotoError as error:
                ended[n] = skipped(one, str(error))
        for n, photo in photos.items():
            found = self._kept(asked[n], photo)
            if found is not None:
                ended[n] = result_of(asked[n], photo, found)
        meant: dict[int, tuple[str, Meaning]] = {}
        todo = [n for n in photos if n not in ended]
        before = self.editor.caption([photos[n] for n in todo]) if todo else []
        for n, text in zip(todo, before, strict=True):
            try:
                meant[n] = text, self._meaning(text, asked[n])
            except (ValueError, LookupError) as error:
                ended[n] = skipped(asked[n], Failure.of(error).reason, photos[n], text)
        made = Inversions(self, {n: (photos[n], m.source) for n, (_, m) in meant.items()})
        for n, one in enumerate(asked):
            self.done += 1
            self._now = f"[{self.done}/{self.total}] {one.label}"
            yield ended[n] if n in ended else self._one(one, photos[n], *meant[n], made, n)

    def _meaning(self, before: str, one: Asked) -> Meaning:
        """What an instruction means for a photo.

        Raises:
            NotUnderstood, WordNotInPrompt, PromptTooLong: one line.
        """
        given = self.settings.caption
        with on_caption(self.editor.backbone.name, given is None):
            meaning = understand(given or before, one.instructions)
        for text in (meaning.source, meaning.target):
            self.editor.backbone.tokens(text).check_length()
        return meaning

    # One photo ----------------------------------------------------------------------------------

    def _one(
        self,
        one: Asked,
        photo: Photo,
        before: str,
        meaning: Meaning,
        made: Inversions,
        n: int,
    ) -> AutoResult:
        """A photo whose instruction is understood; what goes wrong is its own reason."""
        try:
            cell = self._keep(one, photo, *self._work(photo, before, meaning, made, n))
        except (Cancelled, OutputError):
            raise
        except Exception as error:
            failure = Failure.of(error)
            logger.warning("%s: %s", one.label, failure.reason)
            return skipped(one, failure.reason, photo, before, failure.trace)
        return result_of(one, photo, cell)

    def _work(
        self, photo: Photo, before: str, meaning: Meaning, made: Inversions, n: int
    ) -> tuple[dict[str, Any], dict[str, Image.Image]]:
        """The tries of a photo: facts and pictures."""
        start = time.perf_counter()
        inversion = made.of(n)
        places = Places(self.editor, inversion, meaning.target, self._show)
        region = self._region(places, meaning)

        def attempt(choice: Choice, because: str = "") -> Tried:
            return self._try(places, photo, before, meaning, choice, because, region)

        tries = [attempt(deciding.first(meaning))]
        checked = tries[0].checked
        if self.settings.retry and not checked.passed:
            choice, because = deciding.second(meaning, checked)
            logger.info("%s: once more, %s", self._now, because)
            tries.append(attempt(choice, because))
        best = max(range(len(tries)), key=lambda i: (*tries[i].checked.rank(), -i))
        kept = tries[best]
        made_of = [t.result.report for t in tries if t.result is not None]
        reached = made_of[0].get("reconstruction_psnr") if made_of else None
        ceiling = inversion.extra.get("ceiling_psnr")
        facts = {
            "photo": photo.name,
            "size": list(photo.size),
            "captioner": self.editor.captioner().name,
            "caption": before,
            "caption_given": self.settings.caption,
            "understood": told(meaning),
            "inversion": inverted(inversion),
            "warnings": warnings(self.editor, ceiling, reached),
            "region": {
                "of": deciding.place_spec(meaning),
                "share": None if region is None else round(float(region.mean()), 4),
            },
            "tries": [t.report(i) for i, t in enumerate(tries, 1)],
            "kept": best + 1,
            "rule": RULE,
            "end": COULD_NOT if not kept.checked.passed else RETRIED if best else DONE,
            "why": why(kept.checked),
            "reconstruction_psnr": reached,
            "ceiling_psnr": ceiling,
            "seconds": time.perf_counter() - start,
            "versions": versions(),
        }
        pictures: dict[str, Image.Image] = {}
        if kept.result is not None:
            pictures = {"edited": kept.result.image, "reconstruction": kept.result.reconstruction}
            if kept.result.mask is not None:
                pictures["mask"] = kept.result.mask
        others = [t.result.image for i, t in enumerate(tries) if i != best and t.result is not None]
        if others:
            pictures["other"] = others[0]
        return facts, pictures

    def _try(
        self,
        places: Places,
        photo: Photo,
        before: str,
        meaning: Meaning,
        choice: Choice,
        because: str,
        region: np.ndarray | None,
    ) -> Tried:
        """One edit and its checks; an edit that cannot act is a try that failed."""
        start = time.perf_counter()
        inversion, asked = places.inversion, choice.asked(meaning)
        if "direction" in asked:
            asked["direction"] = self._direction(*asked["direction"])
        try:
            if "mask_from" in asked:
                asked["mask"] = places.mask(asked.pop("mask_from"), asked.pop("grow"))
            result = self.editor.edit(
                inversion,
                meaning.target,
                guidance_scale=choice.scale(inversion),
                photo=photo,
                progress=self._show,
                **asked,
            )
        except (NothingActed, MaskError, LookupError) as error:
            reason = Failure.of(error).reason
            return Tried(
                choice, because, None, checking.nothing(reason), time.perf_counter() - start
            )
        after = self.editor.captioner().caption([Image.fromarray(pixels(result.image))])[0]
        checked = checking.check(
            meaning, before, after, result.image, result.reconstruction, region
        )
        return Tried(choice, because, result, checked, time.perf_counter() - start)

    def _region(self, places: Places, meaning: Meaning) -> np.ndarray | None:
        """Where the change belongs, bool [H, W] of the photo's size; None: everywhere.

        It is read from the photo's own attention, not from the mask of the try that is checked.
        """
        spec = deciding.place_spec(meaning)
        if not spec:
            return None
        try:
            found: np.ndarray = places.mask(spec, GROW).values > 0.5
        except (MaskError, LookupError) as error:
            logger.info("%s: where the change belongs is not known: %s", self._now, error)
            return None
        return found

    def _direction(self, source: str, target: str) -> Direction:
        if (source, target) not in self._directions:
            self._directions[source, target] = Direction.between(
                self.editor.backbone,
                about(source),
                about(target),
                words=(source, target),
                made_by="forms",
            )
        return self._directions[source, target]

    # Keeping ------------------------------------------------------------------------------------

    def _made_of(self, one: Asked, photo: Photo) -> dict[str, Any]:
        """Everything that decides a photo's result."""
        backbone, settings, alpha = self.editor.backbone, self.settings, photo.alpha
        inverter = inversions.create(
            settings.method or defaults.METHOD, **dict(settings.method_options)
        )
        return {
            "what": "auto",
            "photo": photo.sha256,
            "alpha": None if alpha is None else hashlib.sha256(alpha.tobytes()).hexdigest(),
            "instruction": one.text,
            "caption": settings.caption,
            "captioner": self.editor.captioner().name,
            "model": backbone.name,
            "model_hash": backbone.weights_hash,
            "dtype": str(backbone.dtype),
            "device": backbone.device.type,
            "preset": defaults.preset(backbone.name),
            "timesteps": list(backbone.schedule(settings.steps).timesteps),
            "method": settings.method or defaults.METHOD,
            "method_settings": inversions.settings(inverter),
            "guidance_scale": settings.guidance_scale,
            "negative_prompt": settings.negative_prompt,
            "seed": settings.seed,
            "fit": settings.fit,
            "retry": settings.retry,
            "choices": deciding.plain_table(),
            "floors": checking.floors(),
            "versions": versions(),
        }

    def _kept(self, one: Asked, photo: Photo) -> Cell | None:
        """What an earlier run made of this photo."""
        if self.cells is None:
            return None
        return self.cells.get(self._made_of(one, photo), one.label)

    def _keep(
        self, one: Asked, photo: Photo, facts: dict[str, Any], pictures: dict[str, Image.Image]
    ) -> Cell:
        if self.cells is None:
            return Cell(facts, pictures, {})
        return self.cells.put(self._made_of(one, photo), one.label, facts, pictures)

    def _show(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.progress(f"{self._now}: {stage}", done, total, note)


@dataclass
class Inversions:
    """Inversions of a few photos, all made when the first is asked for.

    Args:
        pipeline: whose editor and settings.
        todo: photo and source prompt by number.
    """

    pipeline: Pipeline
    todo: dict[int, tuple[Photo, str]]
    made: dict[int, Inversion] = field(default_factory=dict)
    _alone: bool = False

    def of(self, n: int) -> Inversion:
        """The inversion of a photo; where all together fail, each stands or falls alone."""
        if n not in self.made:
            together = [n] if self._alone else list(self.todo)
            try:
                self._invert(together)
            except Cancelled:
                raise
            except Exception:
                if len(together) < 2:
                    raise
                self._alone = True
                self._invert([n])
        return self.made.pop(n)

    def _invert(self, numbers: Sequence[int]) -> None:
        pipeline = self.pipeline
        settings = pipeline.settings
        found = pipeline.editor.invert(
            [self.todo[n][0] for n in numbers],
            [self.todo[n][1] for n in numbers],
            method=settings.method,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            negative_prompt=settings.negative_prompt,
            fit=settings.fit,
            seed=settings.seed,
            verify=False,
            progress=pipeline._show,
            **dict[str, Any](settings.method_options),
        )
        for n, inversion in zip(numbers, found, strict=True):
            self.made[n] = inversion
            self.todo.pop(n)


def pipeline(
    editor: Editor,
    settings: Settings,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Pipeline:
    """A pipeline of an editor.

    Args:
        editor: network and captioner.
        settings: of the call.
        out: an output folder, under whose ``cells`` finished photos are kept.
        progress: instead of the editor's own.

    Raises:
        OutputError: `out` cannot be written.
    """
    settings.check()
    cells = None if out is None else Cells(out)
    return Pipeline(editor, settings, cells, progress or editor.progress)
