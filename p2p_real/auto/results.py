"""What became of a photo: pictures, and every decision as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .. import defaults
from . import checking
from .asked import Asked
from .checking import Checked
from .deciding import Choice

if TYPE_CHECKING:
    from captioning.understanding import Meaning
    from inversion import Inversion

    from ..compare.cells import Cell
    from ..editor import Editor
    from ..images import Photo
    from ..result import EditResult

DONE, RETRIED, COULD_NOT, SKIPPED = "done", "done after a retry", "could not", "skipped"
ENDS = (DONE, RETRIED, COULD_NOT, SKIPPED)
_SHOWN = ("edited", "reconstruction", "mask", "other")


@dataclass(frozen=True)
class AutoResult:
    """What became of one photo.

    Args:
        label: the photo's name, another for each photo of a call.
        image: the edit, of the photo's own size; None where there is none.
        reconstruction: the photo as the model regenerates it.
        source: the photo; None where it cannot be read.
        mask: where the kept try could change the picture, or None.
        other: the picture of the try that was not kept, if there were two.
        report: every decision and figure; plain data.
    """

    label: str
    image: Image.Image | None
    reconstruction: Image.Image | None
    source: Image.Image | None
    mask: Image.Image | None
    other: Image.Image | None
    report: dict[str, Any]

    @property
    def end(self) -> str:
        """One of ``ENDS``."""
        return str(self.report["end"])


@dataclass(frozen=True)
class Tried:
    """One try: how it acted, what it gave, and what the checks say."""

    choice: Choice
    because: str
    result: EditResult | None
    checked: Checked
    seconds: float

    def report(self, number: int) -> dict[str, Any]:
        """The try for reports."""
        made = {} if self.result is None else self.result.report
        keys = ("settings", "guidance_scale", "edit_settings", "mask_coverage", "unet_rows")
        more = {k: made[k] for k in (*keys, "controls", "token_alignment") if k in made}
        direction = made.get("direction")
        return {
            "number": number,
            "because": self.because,
            "choice": dataclasses.asdict(self.choice),
            "direction": direction["name"] if direction else None,
            **more,
            "check": checking.plain(self.checked),
            "seconds": self.seconds,
        }


def result_of(one: Asked, photo: Photo, cell: Cell) -> AutoResult:
    """A result of what was kept."""
    pictures = {name: cell.pictures.get(name) for name in _SHOWN}
    report = {
        "label": one.label,
        "file": str(one.photo) if isinstance(one.photo, Path) else None,
        "instruction": one.text,
        **cell.facts,
        "from_cache": cell.reused,
    }
    return AutoResult(
        one.label,
        pictures["edited"],
        pictures["reconstruction"],
        photo.image,
        pictures["mask"],
        pictures["other"],
        report,
    )


def skipped(
    one: Asked, reason: str, photo: Photo | None = None, caption: str | None = None, trace: str = ""
) -> AutoResult:
    """A photo that nothing could be tried on."""
    report: dict[str, Any] = {
        "label": one.label,
        "file": str(one.photo) if isinstance(one.photo, Path) else None,
        "instruction": one.text,
        "caption": caption,
        "end": SKIPPED,
        "why": reason,
        "tries": [],
        **({"trace": trace} if trace else {}),
    }
    image = None if photo is None else photo.image
    return AutoResult(one.label, None, None, image, None, None, report)


def told(meaning: Meaning) -> dict[str, Any]:
    """A meaning for reports."""
    return {f.name: getattr(meaning, f.name) for f in dataclasses.fields(meaning)}


def inverted(inversion: Inversion) -> dict[str, Any]:
    """How a photo was inverted, for reports."""
    keys = ("seconds", "unet_forwards", "unet_backwards", "peak_memory_bytes", "auto")
    return {
        "method": inversion.method,
        "settings": inversion.settings,
        "steps": inversion.steps,
        "guidance_scale": inversion.guidance_scale,
        **{k: inversion.extra.get(k) for k in keys},
        "from_cache": bool(inversion.extra.get("from_cache")),
    }


def warnings(editor: Editor, ceiling: float | None, reached: float | None) -> list[str]:
    """What to know before one trusts the result.

    Args:
        editor: with the network.
        ceiling: PSNR of the photo through the autoencoder alone; None: every pixel.
        reached: of its reconstruction.
    """
    low = defaults.FOREIGN_DB
    if editor.backbone.name == "tabletop" and ceiling is not None and ceiling < low:
        return [
            "the photo is outside the small world that the embedded model knows (its autoencoder "
            f"gives {ceiling:.1f} dB): reconstruction is poor, and so are the checks; use --model "
            "sd1.5 or sdxl"
        ]
    if reached is not None and reached < low:
        return [
            f"the photo's reconstruction is poor ({reached:.1f} dB), and the checks compare with "
            "it: look at the picture"
        ]
    return []


def why(checked: Checked) -> str:
    """The checks in one line."""
    parts = [getattr(checked, n) for n in ("acted", "kept", "said")]
    if not checked.failed:
        return "; ".join(p.note for p in parts if p.note)
    notes = [getattr(checked, n).note for n in checked.failed]
    return f"failed: {', '.join(checked.failed)} ({'; '.join(notes)})"
