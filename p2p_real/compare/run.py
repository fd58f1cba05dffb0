"""The comparison itself: every photo by every inversion by every edit, one cell after the other."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from inversion import Cancelled, Inversion
from inversion.sampling import Progress

from .. import defaults
from ..directions.applying import settled, summary
from ..editing import edit_inversion, settings_of
from ..files import check_output_folder
from ..measure import forget_peak, versions
from ..metrics import Perceptual, perceptual
from ..prompts import EditWords
from ..steering import EditControl
from . import trace
from .asked import (
    EditAsked,
    MethodAsked,
    check_shared,
    check_words,
    read_edits,
    read_methods,
)
from .cells import Cell, Cells
from .entries import Comparison, Entry, Failure
from .measured import measure_edit, measure_reconstruction
from .subjects import Subject, make_subjects

if TYPE_CHECKING:
    from ..editor import Editor

logger = logging.getLogger(__name__)


@dataclass
class _Run:
    """What all cells share."""

    editor: Editor
    cells: Cells
    perceptual: Perceptual
    shared: dict[str, Any]
    options: Mapping[str, Any]
    guidance_scale: float | None
    progress: Progress
    total: int
    done: int = 0
    now: str = ""
    entries: list[Entry] = field(default_factory=list)

    def method(self, subject: Subject, method: MethodAsked, edits: Sequence[EditAsked]) -> None:
        """All rows of one inversion of one photo."""
        made: list[Inversion] = []

        def inversion() -> Inversion:
            if not made:
                made.append(self._invert(subject, method))
            return made[0]

        guidance = defaults.guidance(self.editor.backbone, self.guidance_scale, method.name)
        title = f"{subject.label}-{method.label}"
        made_of = {
            "what": "inversion",
            **self.shared,
            **subject.made_of(),
            "method": method.name,
            "method_settings": method.resolved(),
            "guidance_scale": guidance,
        }
        self._count(subject, method)
        first = self._cell(made_of, title, lambda: self._reconstruct(subject, inversion()))
        row = Entry(subject, method, None, guidance, first)
        for edit in edits:
            self._count(subject, method, edit)
            if isinstance(first, Failure):
                self.entries.append(replace(row, edit=edit))
                continue
            try:
                how = edit.control(self.options)
                more = {"what": "edit", **self._edit_made_of(subject, edit, how)}
            except Exception as error:
                self.entries.append(replace(row, edit=edit, edited=Failure.of(error)))
                continue
            work = self._edit_work(subject, inversion, how)
            second = self._cell({**made_of, **more}, f"{title}-{edit.label}", work)
            self.entries.append(replace(row, edit=edit, edited=second))
        if not edits:
            self.entries.append(row)

    def _cell(
        self,
        made_of: Mapping[str, Any],
        title: str,
        work: Callable[[], tuple[dict[str, Any], dict[str, Image.Image]]],
    ) -> Cell | Failure:
        """A cell of an earlier run, or a new one, or why there is none."""
        made_of = {**made_of, "measured_by": self.perceptual.name}
        found = self.cells.get(made_of, title)
        if found is not None:
            return found
        forget_peak()
        try:
            facts, pictures = work()
        except (KeyboardInterrupt, Cancelled, GeneratorExit):
            raise
        except BaseException as error:
            failure = Failure.of(error)
            logger.warning("%s failed: %s", title, failure.reason)
            del error
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return failure
        return self.cells.put(made_of, title, facts, pictures)

    def _invert(self, subject: Subject, method: MethodAsked) -> Inversion:
        shared = self.shared
        inversion = self.editor.invert(
            subject.photo,
            subject.prompt,
            method=method.name,
            steps=shared["steps"],
            guidance_scale=self.guidance_scale,
            negative_prompt=shared["negative_prompt"],
            fit=subject.fit.mode,
            seed=shared["seed"],
            verify=False,
            progress=self._show,
            **dict[str, Any](method.settings),
        )
        assert isinstance(inversion, Inversion)
        subject.check(inversion)
        return inversion

    def _reconstruct(
        self, subject: Subject, inversion: Inversion
    ) -> tuple[dict[str, Any], dict[str, Image.Image]]:
        back, drift = trace.walk_back(self.editor.backbone, inversion, self._show)
        extra = inversion.extra
        facts = {
            "seconds": extra.get("seconds"),
            "unet_forwards": extra.get("unet_forwards"),
            "unet_backwards": extra.get("unet_backwards"),
            "peak_memory_bytes": extra.get("peak_memory_bytes"),
            "from_cache": bool(extra.get("from_cache")),
            "drift": drift,
            "curves": trace.curves(inversion.tape),
            "measured": measure_reconstruction(
                back, subject.fitted, subject.ceiling, self.perceptual
            ),
        }
        return facts, {"reconstruction": back}

    def _edit_made_of(self, subject: Subject, edit: EditAsked, how: EditControl) -> dict[str, Any]:
        prompts = subject.prompts
        assert prompts is not None
        settings = how.settings()
        if how.has_mask:
            settings["mask"] = how.mask_digest()
        width, height = subject.fitted.size
        factor = self.editor.backbone.vae_scale_factor
        size = (height // factor, width // factor)
        return {
            "target": prompts.target,
            "weight": dict(prompts.weight),
            **({"direction": summary(prompts.direction)} if prompts.direction else {}),
            **({"moves": [one.made_of() for one in prompts.moves]} if prompts.moves else {}),
            "edit": list(edit.names),
            "control": settings,
            "edit_settings": settings_of(
                self.editor.backbone, prompts, how, self.shared["steps"], size
            ),
        }

    def _edit_work(
        self, subject: Subject, inversion: Callable[[], Inversion], how: EditControl
    ) -> Callable[[], tuple[dict[str, Any], dict[str, Image.Image]]]:
        def work() -> tuple[dict[str, Any], dict[str, Image.Image]]:
            prompts = subject.prompts
            assert prompts is not None
            result = edit_inversion(
                self.editor,
                inversion(),
                prompts,
                how,
                self.guidance_scale,
                photo=subject.photo,
                progress=self._show,
            )
            report, pictures = result.report, {"edited": result.image}
            if result.mask is not None:
                pictures["mask"] = result.mask
            facts = {
                "seconds": report["seconds"],
                "unet_rows": report["unet_rows"],
                "peak_memory_bytes": report["peak_memory_bytes"],
                "mask_coverage": report["mask_coverage"],
                "controls": report["controls"],
                "edit_settings": report["edit_settings"],
                "measured": measure_edit(result.image, subject.photo, result.mask, self.perceptual),
            }
            return facts, pictures

        return work

    def _count(self, subject: Subject, method: MethodAsked, edit: EditAsked | None = None) -> None:
        self.done += 1
        names = [subject.label, method.label, *([edit.label] if edit else [])]
        self.now = f"[{self.done}/{self.total}] {', '.join(names)}"

    def _show(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.progress(f"{self.now}: {stage}", done, total, note)


def compare(
    editor: Editor,
    photos: Sequence[Any],
    *,
    out: str | Path,
    methods: str | Iterable[str | MethodAsked] | None = None,
    edits: str | Iterable[str | EditAsked] = "p2p",
    words: EditWords | Mapping[str, Any] | None = None,
    control: Mapping[str, Any] | None = None,
    sources: str | Sequence[str] = (),
    steps: int = defaults.STEPS,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    seed: int = 0,
    fit: str = "resize",
    progress: Progress | None = None,
) -> Comparison:
    """Compare inversions, and edits on them, on the same photos; the files are in `out` then.

    Finished cells are kept under ``out/cells``: a run that was stopped goes on there. What fails
    is a row with its reason.

    Args:
        editor: the models.
        photos: paths, pictures or photos, each another.
        out: folder for compare.html, compare.png, results.csv and results.json.
        methods: inversions, such as ``"null-text:inner_steps=5,direct"``; None is all there are.
        edits: edits, such as ``"p2p,plain"``.
        words: the edit in words (:class:`p2p_real.prompts.EditWords`, or its fields); without any,
            inversions alone are compared.
        control: options of all edits (fields of :class:`p2p_real.steering.EditControl`).
        sources: what the photos show, one for all or one each; default: their captions.
        steps, guidance_scale, negative_prompt, seed, fit: as in :meth:`Editor.invert`.
        progress: instead of the editor's own.

    Raises:
        CompareError: what is asked for cannot be compared.
        OutputError: `out` cannot be written.
    """
    said = words if isinstance(words, EditWords) else EditWords(**dict(words or {}))
    said = settled(said, editor.backbone)
    options = dict(control or {})
    asked = read_methods(methods)
    wanted = read_edits(edits) if said.any() else []
    defaults.check_numbers(steps=steps, guidance_scale=guidance_scale, seed=seed)
    check_words(said, options)
    if wanted:
        check_shared(wanted, options)
    folder = check_output_folder(out)
    prompts = [sources] if isinstance(sources, str) else list(sources)
    subjects = make_subjects(editor, photos, prompts, said, fit)
    backbone = editor.backbone
    shared = {
        "model": backbone.name,
        "model_hash": backbone.weights_hash,
        "dtype": str(backbone.dtype),
        "device": backbone.device.type,
        "steps": steps,
        "timesteps": list(backbone.schedule(steps).timesteps),
        "negative_prompt": negative_prompt,
        "seed": seed,
        "versions": versions(),
    }
    run = _Run(
        editor,
        Cells(folder),
        perceptual(),
        shared,
        options,
        guidance_scale,
        progress or editor.progress,
        total=len(subjects) * len(asked) * (1 + len(wanted)),
    )
    for subject in subjects:
        for method in asked:
            run.method(subject, method, wanted)
    made = Comparison(run.entries, run.perceptual, {**shared, "fit": fit})
    made.save(folder)
    return made
