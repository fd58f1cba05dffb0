"""A mask that is asked for: its text, its settings and its edge; checked early, made late."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inversion import Intervention, Inversion, sample
from inversion.sampling import Progress, quiet

from ..fitting import Fit, fit_photo
from ..inverting import decode, guarded
from ..numbers import STEPS
from . import combine
from .grammar import Join, MaskError, Node, Not, Source, leaves, parse
from .mask import Mask
from .source import MaskSource, Subject, mask_sources

if TYPE_CHECKING:
    from ..editor import Editor
    from ..images import Photo
    from ..walking import Walk

logger = logging.getLogger(__name__)

EDGES = ("grow", "shrink", "feather")


class EmptyMask(MaskError):
    """A mask that lets nothing change; names what it was read from."""


@dataclass(frozen=True)
class MaskAsked:
    """A mask in words.

    Args:
        spec: see :mod:`p2p_real.masks.grammar`; empty where a mask is given as it is.
        grow, shrink, feather: done to the whole mask, in this order; pixels of the photo, or
            below 1 a fraction of its shorter side.
        settings: of the sources by name; one goes to every source of the mask that has it.
    """

    spec: str = ""
    grow: float = 0
    shrink: float = 0
    feather: float = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def tree(self) -> Node | None:
        """The spec, read.

        Raises:
            MaskError: names the place at which it cannot be read.
        """
        return parse(self.spec) if self.spec else None

    def leaves(self) -> list[Source]:
        """Its sources, from left to right."""
        return leaves(self.tree) if self.tree is not None else []

    def check(self, *sizes: tuple[int, int], source: str | None = None) -> None:
        """Refuse what can make no mask, before any weight is loaded.

        Args:
            sizes: (width, height) that a mask file may have, the photo's first.
            source: the photo's prompt, where known.

        Raises:
            MaskError, PhotoError, UnknownMethod, SettingError, WordNotInPrompt: says what is wrong.
        """
        for edge in EDGES:
            value = getattr(self, edge)
            if not 0 <= value <= 10000 or (value > 1 and value != int(value)):
                raise MaskError(
                    f"--{edge} {value:g}: give whole pixels of the photo, or a fraction of its "
                    "shorter side below 1"
                )
        made = [(self._source(leaf), leaf.text) for leaf in self.leaves()]
        known = self.takes()
        for key in self.settings:
            if key.replace("-", "_") not in known:
                raise MaskError(
                    f"--mask-option {key}: nothing in {self.spec!r} has such a setting; there are: "
                    f"{', '.join(sorted(known)) or 'none'}"
                )
        for one, text in made:
            one.check(text, sizes=sizes, source=source)

    def takes(self) -> set[str]:
        """The settings that its sources have."""
        kinds = {mask_sources[leaf.kind] for leaf in self.leaves()}
        return {f.name for kind in kinds for f in dataclasses.fields(kind)}  # type: ignore[arg-type]

    def _source(self, leaf: Source) -> MaskSource:
        fields = {f.name for f in dataclasses.fields(mask_sources[leaf.kind])}  # type: ignore[arg-type]
        names = {key.replace("-", "_"): value for key, value in self.settings.items()}
        return mask_sources.create(leaf.kind, **{k: v for k, v in names.items() if k in fields})

    def make(self, subject: Subject, given: Mask | None = None) -> Mask:
        """The mask of a photo.

        Args:
            subject: the photo.
            given: a mask that is there already; what is in both counts.

        Raises:
            EmptyMask: nothing may change, or one of its sources found nothing; names it. Of a
                union one part may: that is a warning, unless the union is what must stay.
        """
        self.check()
        parts = [] if self.tree is None else [self._made(self.tree, subject)]
        parts += [] if given is None else [given.values]
        if not parts:
            raise MaskError(
                "a mask is asked for, and nothing says which: give --mask-from or --mask"
            )
        values = parts[0] if len(parts) == 1 else combine.intersection(*parts)
        shorter = min(subject.size)
        for edge in EDGES:
            asked = getattr(self, edge)
            pixels = round(asked * shorter) if asked < 1 else int(asked)
            values = getattr(combine, edge)(values, pixels)
        spec = " & ".join(([self.spec] if self.spec else []) + ([given.spec] if given else []))
        if values.max() <= 0:
            raise EmptyMask(
                f"the mask {spec!r} is empty, so nothing could change: take less away from it, or "
                "give --grow, or a smaller --shrink"
            )
        return Mask(values, spec)

    def _made(self, node: Node, subject: Subject, *, adds: bool = True) -> np.ndarray:
        """The values of a node; ``adds``: what it finds may change, not what it leaves out."""
        if isinstance(node, Source):
            values = self._source(node).read(node.text, subject)
            if values.max() <= 0:
                raise EmptyMask(
                    f"the mask {str(node)!r} is empty: it found nothing in the photo; "
                    "--mask-option sets how sure it must be"
                )
            return values
        if isinstance(node, Not):
            return combine.invert(self._made(node.of, subject, adds=False))
        if node.sign == "|" and adds:
            return self._united(node, subject)
        one = self._made(node.left, subject, adds=adds)
        other = self._made(node.right, subject, adds=adds and node.sign != "-")
        joined = {"|": combine.union, "&": combine.intersection, "-": combine.difference}
        return joined[node.sign](one, other)

    def _united(self, node: Join, subject: Subject) -> np.ndarray:
        """A union, of which one part may find nothing."""
        found, empty = [], []
        for part in (node.left, node.right):
            try:
                found.append(self._made(part, subject))
            except EmptyMask as error:
                empty.append(error)
        if not found:
            raise empty[0]
        for one in empty:
            logger.warning("%s (the rest of %r is taken)", one, str(node))
        return found[0] if len(found) == 1 else combine.union(*found)


def subject_of(
    editor: Editor,
    inversion: Inversion,
    photo: Photo | None = None,
    *,
    target: str | None = None,
    progress: Progress = quiet,
) -> Subject:
    """What a mask of an inverted photo may look at.

    Args:
        editor: with the network.
        inversion: of the photo.
        photo: itself, where it is at hand; else what the inversion holds of it.
        target: the new prompt.
        progress: called through long work.
    """
    fit = Fit.from_json(inversion.photo["fit"])

    def picture() -> Image.Image:
        if photo is not None:
            return photo.image
        if inversion.picture is None:
            raise MaskError("this inversion holds no picture to look at: give the photo instead")
        seen = Image.fromarray(inversion.picture.numpy())
        return fit.undo(seen, Image.new("RGB", fit.original))

    seed = int(inversion.extra.get("seed", 0))
    return Subject(fit, picture, editor.backbone, lambda: inversion, target, seed, progress)


def drawn_subject(
    editor: Editor, walk: Walk, prompt: str, fit: Fit, target: str, progress: Progress
) -> Subject:
    """What a mask of a picture that is still to be drawn may look at: it is drawn once before."""
    backbone = editor.backbone

    class Path(Intervention):
        def before(self, x: Tensor, step: Any, denoiser: Any) -> Tensor:
            path.append(x[0].float().cpu())
            return x

    path: list[Tensor] = []

    def recorded() -> Inversion:
        def go() -> Tensor:
            path.clear()
            denoiser = walk.denoiser(backbone, backbone.encode_text([prompt], walk.size))
            return sample(
                denoiser, walk.replay(), walk.schedule, [Path()], progress=progress, stage="drawing"
            )

        end = guarded(backbone, go)
        trajectory = torch.stack([*path, end[0].cpu()]).flip(0)
        return Inversion(trajectory, {}, walk.schedule, "ddim", {}, prompt, 1.0)

    def picture() -> Image.Image:
        return decode(backbone, subject.inversion.trajectory[:1].to(backbone.device))[0]

    subject = Subject(fit, picture, backbone, recorded, target, 0, progress)
    return subject


def mask_of(
    editor: Editor,
    photo: Any,
    spec: str,
    target: str | None = None,
    *,
    grow: float = 0,
    shrink: float = 0,
    feather: float = 0,
    source: str | None = None,
    steps: int = STEPS,
    fit: str = "resize",
    progress: Progress = quiet,
    **settings: Any,
) -> Mask:
    """A mask of a photo or of an inversion.

    Args:
        editor: with the network.
        photo: an inversion, or a photo, which is inverted by ``ddim`` if a source looks at it.
        spec: the mask in words, see :mod:`p2p_real.masks.grammar`.
        target: the new prompt, for diffedit.
        grow, shrink, feather: pixels of the photo, or below 1 a fraction of its shorter side.
        source: what the photo shows (default: its caption); steps, fit: of its inversion.
        progress: called through long work.
        **settings: of the sources.

    Raises:
        MaskError: it cannot be read, or is empty; names the place or the source.
    """
    asked = MaskAsked(spec, grow, shrink, feather, settings)
    if isinstance(photo, Inversion):
        photo.check_model(editor.backbone.name, editor.backbone.weights_hash)
        source = photo.prompt
        subject = subject_of(editor, photo, target=target, progress=progress)
    else:
        opened = editor.open(photo)

        def recorded() -> Inversion:
            made: Inversion = editor.invert(
                opened, source, method="ddim", steps=steps, fit=fit, verify=False, progress=progress
            )
            return made

        backbone = editor.backbone
        placed = fit_photo(
            opened.image, multiple=backbone.multiple, native=backbone.native_size, mode=fit
        )[1]
        subject = Subject(placed, lambda: opened.image, backbone, recorded, target, 0, progress)
    asked.check(subject.fit.original, subject.fit.fitted, source=source)
    return asked.make(subject)
