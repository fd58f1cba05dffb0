"""How an edit acts: the options of an edit made into a plan of controls."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captioning.matching import WordNotInPrompt, find_word
from edit import (
    BlendWords,
    EditContext,
    FixedMask,
    LocalBlend,
    NothingActed,
    Plan,
    edits,
    make_plan,
)
from edit.method import EditMethod
from edit.methods.p2p import P2P, CrossEdit, SelfInject

from .fitting import Fit
from .images import open_photo
from .masks import Mask, MaskAsked, Subject
from .masks.making import EDGES
from .masks.sources.file import File, latent_mask, read_mask
from .moving import MOVE, check_alone, check_masks, plan_moves
from .numbers import OptionError
from .prompts import EditWords, Prompts
from .windows import light_share, with_windows

logger = logging.getLogger(__name__)

EXCITE = "attend-excite"
WordWindows = Mapping[str, float | tuple[float, float]]


@dataclass(frozen=True)
class EditControl:
    """How an edit acts.

    Args:
        edit: edit methods, acting together ("p2p", "pnp").
        excite: words of the target that must be seen; adds attend-excite.
        cross_replace: until which fraction of the walk the source's word maps are used; a mapping
            gives words of the target their own end or (start, end), ``default_`` the others.
        self_replace: until which fraction the source's self-attention is used. Where neither is
            given, 0.8 and 0.4 (the embedded model: 0.7 and 0.4); 0.2 and 0.2 (0.1 and 0.4) for an
            edit of light, weather or season; 0.4 and 0.2 (0.1 and 0.1) where a whole phrase comes
            or goes (where one only goes: 0.7 and 0.1, the padding's maps until 0.1).
        local: keep the picture outside these words: a word, words, or {source word: target word};
            None is what the preset says (the embedded model blends by the thing that the change of
            words is about, where it is one; not where the light changes), () no blend.
        subtract: words whose place is taken out of that mask.
        local_threshold: share of the map's maximum that counts as inside.
        local_start: first fraction of the walk without local blend.
        mask: a picture file, image or array, white where the picture may change, or a
            :class:`~p2p_real.masks.Mask`.
        mask_from: a mask in words, see :mod:`p2p_real.masks.grammar` ("words:ball | box:0,0,1,.5").
        mask_box: a box x0,y0,x1,y1 of pixels, or of fractions. Where several masks are given, and
            beside ``local``, the picture may change where all of them let it.
        mask_options: settings of what ``mask_from`` or a move names ("threshold": 0.4).
        grow, shrink, feather: of the given masks, in pixels of the photo, or below 1 a fraction of
            its shorter side; a feather is soft inside the mask and touches nothing outside it.
        strength: 0 changes nothing, 1 is the whole edit.
        paste_back: give the photo's own pixels outside the mask.
        explicit: make every attention map (slow reference).
        edit_options: settings of the edit methods by name ("self_scale": 1).
    """

    edit: Sequence[str] = ("p2p",)
    excite: Sequence[str] = ()
    cross_replace: float | WordWindows | None = None
    self_replace: float | None = None
    local: str | Sequence[str] | Mapping[str, str] | None = None
    subtract: str | Sequence[str] = ()
    local_threshold: float = 0.3
    local_start: float = 0.2
    mask: str | Path | Image.Image | np.ndarray | Mask | None = None
    mask_from: str | None = None
    mask_box: str | Sequence[float] | None = None
    mask_options: Mapping[str, Any] = field(default_factory=dict)
    grow: float = 0
    shrink: float = 0
    feather: float = 0
    strength: float = 1.0
    paste_back: bool = False
    explicit: bool = False
    edit_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.edit, str):
            object.__setattr__(self, "edit", (self.edit,))
        if isinstance(self.excite, str):
            object.__setattr__(self, "excite", (self.excite,))
        if self.excite and EXCITE not in self.edit:
            object.__setattr__(self, "edit", (*self.edit, EXCITE))
        for name in ("strength", "local_threshold", "local_start"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                option = name.replace("_", "-")
                raise OptionError(f"--{option} {value}: give a number from 0 to 1")
        if not self.local:
            self._check_unlocal()
        if self.paste_back and not (self.local or self.has_mask or MOVE in self.edit):
            raise OptionError("--paste-back needs a mask: give --local WORD or --mask FILE")
        for name in ("grow", "shrink", "feather", "mask_options"):
            if name == "mask_options" and MOVE in self.edit:
                continue
            if getattr(self, name) and not (self.has_mask and (name in EDGES or self.mask_from)):
                option = "mask-option" if name == "mask_options" else name
                needed = "--mask, --mask-box or --mask-from" if name in EDGES else "--mask-from"
                raise OptionError(f"--{option} belongs to a mask: give {needed} too")

    @property
    def has_mask(self) -> bool:
        """Whether a mask is given (a local blend is none)."""
        return any(m is not None for m in (self.mask, self.mask_from, self.mask_box))

    def mask_asked(self) -> MaskAsked:
        """The mask in words and its edge."""
        parts = [] if self.mask_from is None else [self.mask_from]
        if self.mask_box is not None:
            box = self.mask_box
            text = box if isinstance(box, str) else ",".join(f"{v:g}" for v in box)
            parts = [f"({p})" for p in parts] + [f"box:{text}"]
        edges = {name: getattr(self, name) for name in EDGES}
        settings = {} if MOVE in self.edit else self.mask_options  # a move has masks of its own
        return MaskAsked(" & ".join(parts), **edges, settings=settings)

    def _check_unlocal(self) -> None:
        """Refuse options of a local blend that is not there."""
        for name, default in (("subtract", ()), ("local_threshold", 0.3), ("local_start", 0.2)):
            value = getattr(self, name)
            if value != default and value != []:
                option = name.replace("_", "-")
                raise OptionError(f"--{option} belongs to a local blend: give --local WORD too")

    def excite_alone(self) -> EditControl:
        """These options where no word changes, so that p2p has nothing to carry over."""
        return dataclasses.replace(self, edit=tuple(name for name in self.edit if name != "p2p"))

    def check_names(self) -> None:
        """Refuse unknown edit methods, settings and numbers, before any weight is loaded.

        Raises:
            UnknownMethod, SettingError, OptionError: names what there is.
        """
        for name in self.edit:
            if self.edit.count(name) > 1:
                raise OptionError(f"--edit {name} is given twice: once is enough")
        if "plain" in self.edit and len(self.edit) > 1:
            raise OptionError("--edit plain means no control at all: give it alone")
        known = {f.name for n in self.edit for f in dataclasses.fields(edits[n])}  # type: ignore[arg-type]
        given = {key.replace("-", "_") for key in self.edit_options}
        for key in sorted(given - known):
            raise OptionError(
                f"--edit-option {key}: {', '.join(self.edit)} has no such setting; there are: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        if EXCITE in self.edit and not self.excite and not given & {"words", "tokens"}:
            raise OptionError(f"--edit {EXCITE}: which words? give --excite WORD")
        for name in ("cross_replace", "self_replace"):
            option = name.replace("_", "-")
            if getattr(self, name) is None:
                continue
            if "p2p" not in self.edit:
                raise OptionError(f"--{option} belongs to p2p: add --edit p2p")
            if name in given:
                raise OptionError(f"--{option} and --edit-option {name} say the same: give one")
        for name in self.edit:
            self._create(name, self._p2p({}) if name == "p2p" else {})

    def check_words(self, prompts: Prompts) -> None:
        """Refuse words that stand in no prompt, before any weight is loaded.

        Raises:
            WordNotInPrompt: lists the words there are.
        """
        check_alone(self, prompts)
        check_masks(prompts.moves, self.mask_options, source=prompts.source)
        cross = self.cross_replace if isinstance(self.cross_replace, Mapping) else {}
        for word in (*prompts.weight, *self.excite, *(w for w in cross if w != "default_")):
            _find_in_any(prompts.targets, word)
        self.mask_asked().check(source=prompts.source)
        less = [self.subtract] if isinstance(self.subtract, str) else self.subtract
        for names in (*_pairs(self.local or ()), *((w,) for w in less)):
            # a word may be named as it is in the other prompt: it is found by alignment
            for word, here, there in (
                (names[0], (prompts.source,), prompts.targets),
                (names[-1], prompts.targets, (prompts.source,)),
            ):
                try:
                    _find_in_any(here, word)
                except WordNotInPrompt as missing:
                    try:
                        _find_in_any(there, word)
                    except WordNotInPrompt:
                        raise missing from None

    def mask_digest(self) -> str | None:
        """A hash of the pixels of all masks that are given as pictures, or None."""
        files = [leaf.text for leaf in self.mask_asked().leaves() if leaf.kind == "file"]
        given = [] if self.mask is None else [self.mask]
        parts = [
            hashlib.sha256(m.values.tobytes()).hexdigest()
            if isinstance(m, Mask)
            else open_photo(m).sha256
            for m in (*given, *files)
        ]
        return "+".join(parts) or None

    def check_mask(self, *sizes: tuple[int, int]) -> None:
        """Refuse a mask that cannot be read, is empty, or has another size than the photo.

        Args:
            sizes: (width, height) that it may have, the photo's first.

        Raises:
            PhotoError, OptionError: says what is wrong with it.
        """
        if isinstance(self.mask, Mask):
            if sizes and self.mask.size != sizes[0]:
                raise OptionError(_another_size(self.mask.size, sizes[0]))
        elif self.mask is not None:
            read_mask(self.mask, *sizes)
        self.mask_asked().check(*sizes)

    def settled(self, subject: Subject) -> EditControl:
        """The same with its masks made into one of the photo's own size.

        Raises:
            MaskError: a mask of another size, or an empty one; names what it was read from.
        """
        if not self.has_mask:
            return self
        sizes = (subject.fit.original, subject.fit.fitted)
        self.check_mask(*sizes)
        given = self.mask
        if given is not None and not isinstance(given, Mask):
            spec = "given image" if not isinstance(given, str | Path) else str(given)
            given = Mask(File().values(read_mask(given, *sizes), subject), spec)
        return dataclasses.replace(self, mask=self.mask_asked().make(subject, given))

    def _create(self, name: str, settings: Mapping[str, Any]) -> EditMethod:
        known = {f.name for f in dataclasses.fields(edits[name])}  # type: ignore[arg-type]
        options = {key.replace("-", "_"): value for key, value in self.edit_options.items()}
        mine = {key: value for key, value in options.items() if key in known}
        return edits.create(name, **{**settings, **mine})

    def methods(
        self, prompts: Prompts, preset: Mapping[str, Any], steps: int = 1000
    ) -> list[EditMethod]:
        """The edit methods with their settings, none at strength 0.

        Raises:
            UnknownMethod, SettingError: names what there is.
        """
        self.check_names()
        check_alone(self, prompts)
        if "p2p" not in self.edit and prompts.weight:
            raise OptionError("--weight belongs to p2p: add --edit p2p")
        made = []
        for name in self.edit:
            settings = dict(preset.get(name, {}))
            if name == "p2p":
                settings |= self._p2p(prompts.weight)
            if name == EXCITE and self.excite:
                settings["words"] = tuple(self.excite)
            method = self._create(name, settings).at_strength(self.strength)
            if isinstance(method, P2P):  # a window that is open is open for one step at least
                stop = max(method.cross_replace, method.cross_start + 1 / steps)
                if method.cross_replace > method.cross_start and stop <= 1:
                    method = dataclasses.replace(method, cross_replace=stop)  # type: ignore[type-var]
            made.append(method)
        return made if self.strength > 0 else []

    def _p2p(self, weight: Mapping[str, float]) -> dict[str, Any]:
        settings: dict[str, Any] = {"weights": tuple(weight.items())}
        cross = self.cross_replace
        if isinstance(cross, Mapping):
            windows = dict(cross)
            default = windows.pop("default_", None)
            settings["word_windows"] = tuple(
                (word, *(v if isinstance(v, tuple) else (0.0, float(v))))
                for word, v in windows.items()
            )
            cross = default if isinstance(default, float | int) else None
            if isinstance(default, tuple):
                settings["cross_start"], cross = default
        if cross is not None:
            settings["cross_replace"] = float(cross)
        if self.self_replace is not None:
            settings["self_replace"] = float(self.self_replace)
        return settings

    def plan(
        self,
        context: EditContext,
        prompts: Prompts,
        *,
        preset: Mapping[str, Any],
        fit: Fit | None = None,
    ) -> Plan:
        """All controls of this edit; raises what is wrong with words and settings."""
        if prompts.moves:
            return plan_moves(self, context, prompts, fit)
        methods = self.methods(prompts, self._windows(context, preset), context.steps)
        extra = []
        if isinstance(self.mask, Mask):
            extra.append(FixedMask(self.mask.latent(context.latent_size, fit)))
        elif self.mask is not None:
            extra.append(FixedMask(latent_mask(self.mask, context.latent_size, fit)))
        if not isinstance(self.mask, Mask):
            sizes = () if fit is None else (fit.original, fit.fitted)
            self.mask_asked().check(*sizes, source=prompts.source)
        plan = make_plan(context, methods, blend=self._blend(preset), extra=extra)
        if self._blends_itself(preset) and any(isinstance(c, LocalBlend) for c in plan.controls):
            logger.info("only what the changed words name may change (--no-local: everything may)")
        return self._without_idle(plan, prompts)

    def _without_idle(self, plan: Plan, prompts: Prompts) -> Plan:
        """The plan without word maps that ``cross_replace`` 0 leaves out.

        Raises:
            NothingActed: nothing of p2p is left, or weights that act in that window only.
        """
        idle = [c for c in plan.controls if isinstance(c, CrossEdit) and not c.gate.any()]
        if not idle:
            return plan
        if prompts.weight:
            raise NothingActed("--weight acts while --cross-replace does: give that above 0")
        if not any(isinstance(c, SelfInject) for c in plan.controls):
            raise NothingActed(
                "--cross-replace and --self-replace of 0 leave nothing of p2p to act: raise one, "
                "or use --edit plain"
            )
        return dataclasses.replace(plan, controls=tuple(c for c in plan.controls if c not in idle))

    def _windows(self, context: EditContext, preset: Mapping[str, Any]) -> Mapping[str, Any]:
        """The preset, with short windows where the change needs them and none are asked for."""
        return with_windows(preset, context) if self._holds_by_itself() else preset

    def _holds_by_itself(self) -> bool:
        """Whether p2p holds the photo for as long as the change of words decides."""
        asked = self.cross_replace is not None or self.self_replace is not None
        named = {"cross_replace", "self_replace"} & {k.replace("-", "_") for k in self.edit_options}
        return "p2p" in self.edit and not asked and not named

    def source_share(self, context: EditContext, preset: Mapping[str, Any]) -> float:
        """The least share of the source's correction that the targets get: what strength lacks to
        1, and what the preset says of the change."""
        own = light_share(preset, context) if self._holds_by_itself() else 0.0
        if own > 1 - self.strength:
            logger.info("the edit takes %.0f %% of what keeps the photo on its record", 100 * own)
        return max(own, 1 - self.strength)

    def _blend(self, preset: Mapping[str, Any]) -> BlendWords | None:
        if not self.local:
            return BlendWords(None) if self._blends_itself(preset) else None
        less = [self.subtract] if isinstance(self.subtract, str) else self.subtract
        return BlendWords(
            words=_pairs(self.local),
            subtract=tuple((w,) for w in less),
            threshold=(self.local_threshold, self.local_threshold),
            start=self.local_start,
            scales=tuple(preset.get("blend_scales", ())),
        )

    def _blends_itself(self, preset: Mapping[str, Any]) -> bool:
        """Whether the words of the change are blended by though nobody named them."""
        free = self.local is None and not self.has_mask and self.strength > 0
        return free and "p2p" in self.edit and bool(preset.get("local_blend"))

    def resolved(
        self, context: EditContext, prompts: Prompts, *, preset: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """The settings that each edit method really has, by its name."""
        methods = self.methods(prompts, self._windows(context, preset), context.steps)
        return {m.name: edits.settings(m) for m in methods}

    def settings(self) -> dict[str, Any]:
        """These options as plain data."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["edit"] = list(self.edit)
        data["mask_options"] = dict(self.mask_options)
        if isinstance(self.mask, Mask):
            data["mask"] = self.mask.spec
        elif isinstance(self.mask, Image.Image | np.ndarray):
            data["mask"] = "given image"
        elif self.mask is not None:
            data["mask"] = str(self.mask)
        return data


def excited(words: EditWords, how: EditControl) -> tuple[EditWords, EditControl]:
    """An edit without a change of words whose edit is to show some of them; others as they are."""
    if words.any() or EXCITE not in how.edit:
        return words, how
    return dataclasses.replace(words, same=True), how.excite_alone()


def _find_in_any(prompts: Sequence[str], word: str) -> None:
    """Refuse a word that stands in none of some prompts.

    Raises:
        WordNotInPrompt: lists the words of the first.
    """
    missing = None
    for prompt in prompts:
        try:
            find_word(prompt, word)
            return
        except WordNotInPrompt as error:
            missing = missing or error
    if missing is not None:
        raise missing


def _pairs(local: str | Sequence[str] | Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    if isinstance(local, Mapping):
        return tuple(local.items())
    return tuple((w,) for w in ([local] if isinstance(local, str) else local))


def _another_size(size: tuple[int, int], photo: tuple[int, int]) -> str:
    return (
        f"--mask is {size[0]} x {size[1]}, the photo {photo[0]} x {photo[1]}: give a mask of the "
        "photo's size"
    )
