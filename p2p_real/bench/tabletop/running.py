"""The benchmark itself: every edit by every way, one cell after the other, kept as they come."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from edit import EditContext
from inversion import Cancelled, Inversion
from inversion.sampling import Progress, quiet

from ... import defaults
from ...captions import captioner_for
from ...compare.asked import EditAsked, MethodAsked
from ...compare.cells import Cell, Cells
from ...compare.entries import Failure
from ...files import check_output_folder
from ...images import open_photo, to_tensor
from ...inverting import decode
from ...measure import forget_peak, versions
from ...metrics import perceptual
from ...numbers import METHOD
from ...tabletop import CAPTIONER, READER
from ...tabletop.reader import load_reader
from . import sharing
from .directing import Directions, direction_words
from .figures import Ruler, mask_iou, reconstruction
from .inversions import Inversions
from .reading import Readers
from .truths import PER_KIND, SEED, TabletopError, TruthEdit, truth_set
from .ways import BOUNDS, CEILING, TRUTH, UNTOUCHED, Row, Way, read_ways

if TYPE_CHECKING:
    from ...editor import Editor

logger = logging.getLogger(__name__)

Facts = tuple[dict[str, Any], dict[str, Image.Image]]


def load_tabletop(model: str = "tabletop", **options: Any) -> Editor:
    """An editor that keeps no inversions, so that each is made and its seconds are true."""
    from ...editor import Editor

    return Editor.load(model, cache=False, **options)


@dataclass
class Bench:
    """Makes rows of edits; what is made once is kept in the output folder.

    Args:
        editor: the models.
        cells: where finished pieces are kept.
        ways: what is measured.
        steps: sampling steps.
        batch: photos that are inverted together.
        progress: called before each piece.
        total: pieces in all.
    """

    editor: Editor
    cells: Cells
    ways: Sequence[Way]
    steps: int = defaults.STEPS
    batch: int = 1
    progress: Progress = quiet
    total: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        backbone = self.editor.backbone
        reader = load_reader(device=backbone.device)
        self.ruler = Ruler(perceptual(), reader)
        captioner = captioner_for("blip", "tabletop", str(backbone.device))
        self.readers = Readers(reader, captioner.caption)
        self.directions = Directions(backbone)
        self.shared = {
            "model": backbone.name,
            "model_hash": backbone.weights_hash,
            "preset": defaults.preset(backbone.name),
            "dtype": str(backbone.dtype),
            "device": backbone.device.type,
            "timesteps": list(backbone.schedule(self.steps).timesteps),
            "readers": [_digest(path) for path in (READER, *CAPTIONER.glob("*.safetensors"))],
            "distance": self.ruler.perceptual.name,
            "versions": versions(),
        }

    def rows(self, truths: Sequence[TruthEdit]) -> list[Row]:
        """The bounds and every way of some edits, edit by edit."""
        found: list[Row] = []
        for start in range(0, len(truths), self.batch):
            found += self._together(truths[start : start + self.batch])
        return found

    def _together(self, truths: Sequence[TruthEdit]) -> list[Row]:
        """Rows of edits whose photos are inverted together; one inversion serves all its edits."""
        found = {truth.id: self._bounds(truth) for truth in truths}
        groups: dict[Any, list[Way]] = {}
        for way in self.ways:
            groups.setdefault((way.method.label, way.guidance_scale), []).append(way)
        for ways in groups.values():
            todo = [t for t in truths if not all(self._path(t, way).exists() for way in ways)]
            inversions = Inversions(self.editor, self.steps, ways[0], todo)
            for truth in truths:
                for way in ways:
                    self._tick(f"{truth.id}, {way.label}")
                    found[truth.id].append(self._row(truth, way, inversions))
        return [row for truth in truths for row in found[truth.id]]

    def _tick(self, note: str) -> None:
        self.progress("edits", self.done, self.total, note)
        self.done += 1

    # Bounds -----------------------------------------------------------------------------------

    def _bounds(self, truth: TruthEdit) -> list[Row]:
        self._tick(f"{truth.id}, bounds")
        made_of = {"what": "bounds", **self.shared, **_identity(truth)}
        cell = self._cell(made_of, f"{truth.id}-bounds", lambda: self._make_bounds(truth))
        if isinstance(cell, Failure):
            raise TabletopError(f"{truth.id}: the truth itself cannot be read: {cell.reason}")
        return [
            {**_head(truth, way), "status": "ok", **cell.facts[way]}
            | ({"files": dict(cell.files)} if way == CEILING else {})
            for way in BOUNDS
        ]

    def _make_bounds(self, truth: TruthEdit) -> Facts:
        backbone = self.editor.backbone
        with torch.no_grad():
            latents = backbone.encode(to_tensor(truth.truth).to(backbone.device))
            back = decode(backbone, latents)[0]
        facts = {
            TRUTH: self._read(truth.truth, truth),
            CEILING: self._seen(back, truth),
            UNTOUCHED: self._seen(truth.photo, truth),
        }
        return facts, {"ceiling": back}

    def _read(self, picture: Image.Image, truth: TruthEdit) -> dict[str, Any]:
        reading = self.readers.read(picture, truth)
        return {**dataclasses.asdict(reading), "right": reading.asked and reading.kept}

    def _seen(self, picture: Image.Image, truth: TruthEdit) -> dict[str, Any]:
        return {**self._read(picture, truth), **self.ruler.measure(picture, truth)}

    # Ways -------------------------------------------------------------------------------------

    def _row(self, truth: TruthEdit, way: Way, inversions: Inversions) -> Row:
        row = _head(truth, way.label) | {"method": way.method.label, "edit": way.edited}
        cell = self._cell(
            self._made_of(truth, way),
            _title(truth, way),
            lambda: self._make(truth, way, *inversions.of(truth)),
        )
        if isinstance(cell, Failure):
            nothing = {"asked": False, "kept": False, "right": False}
            return row | nothing | {"status": "failed", "reason": cell.reason}
        return row | {"status": "ok", **cell.facts, "files": dict(cell.files)}

    def _path(self, truth: TruthEdit, way: Way) -> Path:
        return self.cells.path(self._made_of(truth, way), _title(truth, way))

    def _made_of(self, truth: TruthEdit, way: Way) -> dict[str, Any]:
        return {
            "what": "edit",
            **self.shared,
            **_identity(truth),
            **way.plain(),
            "resolved": self._resolved(truth, way),
            "batch": self.batch,
        } | ({"words": direction_words(truth)} if way.direction else {})

    def _resolved(self, truth: TruthEdit, way: Way) -> Any:
        """All settings of the edit with their defaults, or None where it will fail."""
        backbone, prompts = self.editor.backbone, way.prompts(truth)
        side = backbone.native_size // backbone.vae_scale_factor
        try:
            words = (backbone.tokens(prompts.source), backbone.tokens(prompts.target))
            context = EditContext(words[0], words[1:], self.steps, (side, side))
            return way.how(truth).resolved(context, prompts, preset=defaults.preset(backbone.name))
        except (ValueError, LookupError):
            return None

    def _make(self, truth: TruthEdit, way: Way, inversion: Inversion, cpu_seconds: float) -> Facts:
        how = way.how(truth)
        control = {f.name: getattr(how, f.name) for f in dataclasses.fields(how)}
        # a direction is made once and kept, so its seconds are not the edit's
        words: dict[str, Any] = {"target": truth.pair.target_caption}
        if way.direction:
            words = {"direction": self.directions.of(truth, way.direction)}
        start = time.process_time()
        result = self.editor.edit(inversion, **words, **control)
        cpu_seconds += time.process_time() - start
        report, extra = result.report, inversion.extra
        backward = extra["unet_backwards"] or 0
        facts = {
            **self._seen(result.image, truth),
            **reconstruction(report),
            "guidance_scale": report["guidance_scale"],
            "used": inversion.method,
            "inversion_seconds": extra["seconds"],
            "edit_seconds": report["seconds"],
            "seconds": extra["seconds"] + report["seconds"],
            "cpu_seconds": cpu_seconds,
            "unet_forwards": extra["unet_forwards"],
            "unet_backwards": backward,
            "edit_unet_rows": report["unet_rows"],
            "unet_rows": extra["unet_forwards"] + backward + report["unet_rows"],
            "peak_memory_bytes": max(extra["peak_memory_bytes"], report["peak_memory_bytes"]),
            "mask_coverage": report["mask_coverage"],
        }
        if result.mask is not None:
            facts["mask_iou"] = mask_iou(result.mask, truth.changed)
        return facts, {"edited": result.image, "reconstruction": result.reconstruction}

    def _cell(
        self, made_of: Mapping[str, Any], title: str, work: Callable[[], Facts]
    ) -> Cell | Failure:
        """A finished cell, or a new one, or why there is none.

        What this program refuses it will refuse again, so that is kept too; other failures are
        tried again by the next run.
        """
        found = self.cells.get(made_of, title)
        if found is None:
            forget_peak()
            try:
                found = self.cells.put(made_of, title, *work())
            except Cancelled:
                raise
            except Exception as error:
                failure = Failure.of(error)
                logger.warning("%s failed: %s", title, failure.reason)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                if failure.trace:
                    return failure
                found = self.cells.put(made_of, title, {"failure": failure.reason}, {})
        reason = found.facts.get("failure")
        return found if reason is None else Failure(reason)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _title(truth: TruthEdit, way: Way) -> str:
    return f"{truth.id}-{way.label}"


def _identity(truth: TruthEdit) -> dict[str, Any]:
    """What decides photo and truth."""
    return {
        "record": truth.record,
        "change": truth.edit,
        "photo": open_photo(truth.photo).sha256,
        "truth": open_photo(truth.truth).sha256,
    }


def _head(truth: TruthEdit, way: str) -> Row:
    return {
        "id": truth.id,
        "kind": truth.kind,
        "way": way,
        "source": truth.pair.source_caption,
        "target": truth.pair.target_caption,
    }


def run(
    out: str | Path,
    *,
    kinds: str | Iterable[str] | None = None,
    per_kind: int = PER_KIND,
    limit: int | None = None,
    seed: int = SEED,
    methods: str | Iterable[str | MethodAsked] | None = METHOD,
    edits: str | Iterable[str | EditAsked] = "p2p",
    guidance: str | Iterable[float] | None = None,
    plain_guidance: str | Iterable[float] | None = None,
    local: str = "no",
    ways: Sequence[Way] | None = None,
    steps: int = defaults.STEPS,
    processes: int = 1,
    batch: int = 1,
    load: Callable[[], Editor] = load_tabletop,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Edit held-out scenes, hold the edits to their truth, and write what was found.

    Finished cells are kept under ``out/cells``: a run that was stopped goes on there. What fails
    is a row with its reason, and counts as an edit that was not done.

    Args:
        out: folder for results.csv, table.md, summary.json, manifest.json, plot.png, sheet.png.
        kinds, per_kind, limit, seed: of the edits, as :func:`truth_set` takes them.
        methods, edits, guidance, plain_guidance, local: of the ways, as :func:`read_ways` takes
            them.
        ways: instead of those five.
        steps: sampling steps.
        processes: how many share the edits; under ``accelerate launch`` its processes do.
        batch: photos that are inverted together: cheaper a photo, in more memory; figures may
            differ by rounding.
        load: makes the editor; must be picklable for more than one process.
        progress: called before each cell.

    Returns:
        ``manifest``, ``summary``, ``rows`` and ``files``; nothing in the processes of
        ``accelerate launch`` but the first.

    Raises:
        TabletopError: what is asked for cannot be run.
        OutputError: `out` cannot be written.
    """
    from .report import save

    truths = truth_set(kinds, per_kind=per_kind, seed=seed, limit=limit)
    asked = ways
    if asked is None:
        asked = read_ways(
            methods, edits, guidance=guidance, plain_guidance=plain_guidance, local=local
        )
    defaults.check_numbers(steps=steps, seed=seed)
    if not asked or len({way.label for way in asked}) < len(asked):
        raise TabletopError("the ways to measure: one or more, each under another name")
    for option, value in (("processes", processes), ("batch", batch)):
        if value < 1:
            raise TabletopError(f"--{option} {value}: give a whole number of 1 or more")
    folder = check_output_folder(out)
    part = sharing.Part(folder, load, tuple(asked), steps, batch)
    count, first = sharing.share(part, truths, processes, progress)
    if not first:
        return {}
    bench = part.bench(progress if count == 1 else quiet, len(truths))
    rows = bench.rows(truths)
    settings = {
        "benchmark": "tabletop",
        "edits": len(truths),
        "kinds": sorted({truth.kind for truth in truths}),
        "per_kind": per_kind,
        "limit": limit,
        "seed": seed,
        "steps": steps,
        "ways": {way.label: way.plain() for way in asked},
        "perceptual": bench.ruler.perceptual.note,
        "threads": torch.get_num_threads(),
        "processes": count,
        "batch": batch,
        **bench.shared,
    }
    return save(folder, truths, rows, asked, settings)
