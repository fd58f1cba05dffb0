"""The front door: open, caption, invert, edit, reconstruct, generate.

Two verbs for two costs: ``invert`` is expensive and returns data, ``edit`` is cheap and takes it.
The editor keeps models and nothing about photos, so photos interleave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captioning import Captioner
from edit import Control, EditContext
from inversion import Inversion, InversionError
from inversion.sampling import Progress, quiet

from . import defaults
from .backbones import load_backbone
from .backbones.base import Backbone
from .cache import InversionCache
from .captions import captioner_for, on_caption
from .choosing import Auto, choose, inversions
from .directions import Direction
from .directions.applying import settled
from .drawing import generate
from .editing import edit_inversion, plan_of
from .fitting import Fit, fit_photo
from .images import Photo, open_photo
from .inverting import Job, decode, walk_back
from .making import Request
from .masks import Mask
from .masks.making import mask_of
from .moving import check_inversion
from .numbers import OptionError, check_negative
from .prompts import EditWords, PromptError
from .result import EditResult
from .steering import EditControl, excited
from .sweeping import Swept, sweep_photo

if TYPE_CHECKING:
    from .attention import Attention
    from .auto import AutoResult

logger = logging.getLogger(__name__)

PhotoLike = str | Path | Image.Image | np.ndarray | Photo
Watch = Callable[[EditContext], Sequence[Control]]


class Editor:
    """Models, ready to edit photos.

    Args:
        backbone: the network.
        captioner: name of the captioner ("blip"), a folder or hub id of a BLIP, or a Captioner.
        cache: where inversions are kept; None keeps none.
        progress: called through all long work; raise ``inversion.Cancelled`` in it to stop.

    Example:
        >>> editor = Editor.load("tabletop")                             # doctest: +SKIP
        >>> inversion = editor.invert("cup.png")                         # doctest: +SKIP
        >>> editor.edit(inversion, swap={"red": "blue"}).image           # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        captioner: str | Captioner = "blip",
        cache: InversionCache | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.backbone, self.cache, self.progress = backbone, cache, progress
        self._captioner = captioner

    @classmethod
    def load(
        cls,
        model: str | Path = "tabletop",
        *,
        device: str = "auto",
        dtype: str = "auto",
        captioner: str | Captioner = "blip",
        offload: str | None = None,
        lora: str | None = None,
        cache: bool | str | Path = True,
        progress: Progress = quiet,
    ) -> Editor:
        """An editor of a model's name.

        Args:
            model: ``tabletop``, ``sd1.5``, ``sd2.1``, ``sdxl``, a hub id, a folder, a file.
            device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
            dtype: ``auto``, ``float32``, ``float16``, ``bfloat16``.
            captioner: who describes photos that come without a prompt.
            offload: ``model`` keeps only the module in use on the accelerator.
            lora: a LoRA to fuse.
            cache: keep inversions (True, False, or a folder).

        Raises:
            ModelError: the model cannot be had; says what works.
        """
        backbone = load_backbone(model, device=device, dtype=dtype, lora=lora, offload=offload)
        kept = None
        if cache:
            kept = InversionCache(None if cache is True else cache)
        return cls(backbone, captioner=captioner, cache=kept, progress=progress)

    # Photo and words --------------------------------------------------------------------------

    def open(self, photo: PhotoLike) -> Photo:
        """A photo from a path, a PIL image or an array; upright, RGB, any size from 8 px.

        Raises:
            PhotoError: says what is wrong with the file.
        """
        return photo if isinstance(photo, Photo) else open_photo(photo)

    def captioner(self) -> Captioner:
        """The captioner, loaded when first needed."""
        if isinstance(self._captioner, str):
            device = str(self.backbone.device)
            self._captioner = captioner_for(self._captioner, self.backbone.name, device)
        return self._captioner

    def caption(self, photo: PhotoLike | Sequence[PhotoLike], prefix: str = "") -> Any:
        """What a photo shows, in words; a list of photos gives a list."""
        photos, many = self._photos(photo)
        texts = self.captioner().caption([p.image for p in photos], prefix)
        return texts if many else texts[0]

    def _photos(self, photo: Any) -> tuple[list[Photo], bool]:
        many = isinstance(photo, list | tuple)
        return [self.open(p) for p in (photo if many else [photo])], many

    # Inversion --------------------------------------------------------------------------------

    def invert(
        self,
        photo: PhotoLike | Sequence[PhotoLike],
        prompt: str | Sequence[str] | None = None,
        *,
        method: str | None = None,
        steps: int = defaults.STEPS,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        fit: str = "resize",
        seed: int = 0,
        verify: bool = True,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """The latents that regenerate a photo: made once, edited many times.

        Args:
            photo: one photo, or a list (then a list comes back).
            prompt: what it shows; None asks the captioner.
            method: an inversion method (see ``p2p-real methods``); None is ``auto``: the cheapest
                whose reconstruction, measured, is near the best possible.
            steps: sampling steps, 1 to 1000.
            guidance_scale: the guidance the edits will use; None is the model's own.
            negative_prompt: text of the unconditional half, where the method leaves it free.
            fit: how the photo is put on the model's grid: resize, crop or pad.
            seed: of every random draw.
            verify: walk back once and measure the reconstruction.
            progress: instead of the editor's own.
            **settings: of the method.

        Returns:
            Inversion, or a list of them.

        Raises:
            PhotoError, PromptError, UnknownMethod, SettingError, PromptTooLong: one line each.
        """
        method = method or defaults.METHOD
        inverter = inversions.create(method, **settings)
        defaults.check_numbers(steps=steps, guidance_scale=guidance_scale, seed=seed)
        if seed and not inverter.draws:
            logger.info("%s draws nothing at random, so --seed changes nothing", method)
        check_negative(inverter, negative_prompt)
        photos, many = self._photos(photo)
        prompts = self._prompts(photos, prompt)
        request = Request(
            self.backbone,
            self.cache,
            steps,
            guidance_scale,
            negative_prompt,
            seed,
            progress or self.progress,
        )
        jobs = [Job(p, t, *self._fit(p, fit)) for p, t in zip(photos, prompts, strict=True)]
        if isinstance(inverter, Auto):
            found = choose(request, jobs, inverter, verify=verify)
        else:
            found = request.make(jobs, method, settings, verify=verify)
        return found if many else found[0]

    def _fit(self, photo: Photo, mode: str) -> tuple[Image.Image, Fit]:
        backbone = self.backbone
        multiple, native = backbone.multiple, backbone.native_size
        return fit_photo(photo.image, multiple=multiple, native=native, mode=mode)

    def _prompts(self, photos: Sequence[Photo], prompt: Any) -> list[str]:
        if prompt is None:
            return list(self.caption(list(photos)))
        prompts = [prompt] * len(photos) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(photos):
            raise PromptError(f"{len(photos)} photos need as many prompts, got {len(prompts)}")
        if not all(p.strip() for p in prompts):
            raise PromptError("the prompt is empty: say what the photo shows, or leave it out")
        for p in prompts:
            self.backbone.tokens(p).check_length()
        return prompts

    def reconstruct(self, inversion: Inversion) -> Image.Image:
        """The photo as the model regenerates it (of a crop: the part that the model saw)."""
        inversion.check_model(self.backbone.name, self.backbone.weights_hash)
        latents = walk_back(self.backbone, inversion, self.progress)
        fit = Fit.from_json(inversion.photo["fit"])
        picture = decode(self.backbone, latents)[0]
        return fit.undo(picture) if fit.is_whole else picture

    # Editing ----------------------------------------------------------------------------------

    def edit(
        self,
        inversion: Inversion | PhotoLike,
        target: str | None = None,
        *,
        swap: Mapping[str, str] | None = None,
        add: str | Sequence[str] = (),
        remove: str | Sequence[str] = (),
        weight: Mapping[str, float] | None = None,
        style: str | None = None,
        direction: str | Direction | None = None,
        also: str | Sequence[str] = (),
        move: Mapping[str, Any] | None = None,
        resize: Mapping[str, Any] | None = None,
        source: str | None = None,
        method: str | None = None,
        steps: int = defaults.STEPS,
        method_options: Mapping[str, Any] | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        seed: int = 0,
        fit: str = "resize",
        progress: Progress | None = None,
        photo: PhotoLike | None = None,
        watch: Watch | None = None,
        **control: Any,
    ) -> EditResult:
        """Edit a photo by its words.

        Args:
            inversion: what :meth:`invert` gave, or a photo (then it is inverted first).
            target: the whole new prompt; or, instead,
            swap: old -> new words; ``add``: phrases; ``remove``: words; ``style``: a phrase.
            weight: word -> factor of its attention (also beside ``target``).
            direction: an edit direction, or names and files of some ("cat2dog*0.8 + day2night"),
                added to the new prompt's embeddings (the source's, where no words change).
            also: more whole prompts, edited in the same walk beside the first: the photo's row
                serves all of them; their results are ``others`` of the result.
            move: words or a mask ("box:0.1,0.2,0.5,0.6") -> (right, down): how far that object
                goes, in fractions of the photo; it stands alone or beside
            resize: the same -> factor of its size.
            source: what the photo shows (default: its caption).
            method, steps, method_options, negative_prompt, seed, fit: of the inversion, if one is
                made here.
            guidance_scale: default: what the inversion was made for.
            photo: the photo itself beside its inversion, to be laid back into it.
            watch: makes controls that look on after the others (see :mod:`edit.seen`).
            **control: how the edit acts, see :class:`p2p_real.steering.EditControl`; ``excite``
                alone, without any change of words, makes the picture show these words.

        Returns:
            EditResult with ``image``, ``reconstruction``, ``mask`` and ``report``.

        Raises:
            NothingActed: the edit changed nothing.
        """
        words = _words(target, swap, add, remove, weight, style, direction, also, move, resize)
        words = settled(words, self.backbone)
        words, how = excited(words, EditControl(**{**words.control(), **control}))
        check_inversion(words, inversion.method if isinstance(inversion, Inversion) else method)
        opened = None if photo is None else self.open(photo)
        if not isinstance(inversion, Inversion):
            opened = self.open(inversion)
            captioned = source is None
            if source is None:
                words.check()
                source = str(self.caption(opened))
            with on_caption(self.backbone.name, captioned):
                prompts = words.apply(source)
            w, h = self._fit(opened, fit)[1].fitted
            factor = self.backbone.vae_scale_factor
            # words and settings are checked before the long work
            size = (h // factor, w // factor)
            inverter = inversions.create(method or defaults.METHOD, **dict(method_options or {}))
            first = steps - inverter.start_level(steps)
            place = self._fit(opened, fit)[1]
            plan_of(self.backbone, prompts, how, steps, size, place, watch, first)
            inversion = self.invert(
                opened,
                source,
                method=method,
                steps=steps,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
                seed=seed,
                fit=fit,
                verify=False,
                progress=progress,
                **dict(method_options or {}),
            )
            assert isinstance(inversion, Inversion)
        elif source is not None and source != inversion.prompt:
            raise PromptError(
                f"this inversion was made for the prompt {inversion.prompt!r}, not {source!r}: "
                "invert the photo again with that prompt"
            )
        inversion.check_model(self.backbone.name, self.backbone.weights_hash)
        prompts = words.apply(inversion.prompt)
        if opened is None:
            self._without_photo(inversion, how)
        elif opened.sha256 != inversion.photo.get("sha256"):
            raise InversionError(f"{opened.name} is not the photo that this inversion was made of")
        progress = progress or self.progress
        return edit_inversion(
            self,
            inversion,
            prompts,
            how,
            guidance_scale,
            photo=opened,
            progress=progress,
            watch=watch,
        )

    def _without_photo(self, inversion: Inversion, how: EditControl) -> None:
        """What an inversion cannot give where the photo itself is not at hand."""
        fit = Fit.from_json(inversion.photo["fit"])
        if how.paste_back and (fit.resamples or not fit.is_whole):
            raise OptionError(
                "--paste-back needs the photo's own pixels, and this inversion holds it scaled or "
                "cut: give the photo instead"
            )
        if not fit.is_whole:
            logger.warning(
                "this inversion holds only the middle of the photo (fit crop), so only that is "
                "edited; give the photo instead to have it laid back into the whole"
            )

    def sweep(
        self, inversion: Inversion | PhotoLike, over: str, target: str | None = None, **asked: Any
    ) -> Swept:
        """The same edit over a range of one number, from one inversion.

        Args:
            inversion: what :meth:`invert` gave, or a photo (then it is inverted first).
            over: ``"strength=0:1:6"`` (from, to, how many) or ``"self_scale=1,2,4"``: guidance, an
                option of every edit, or a setting of an edit method.
            target, **asked: the edit, as in :meth:`edit`.

        Raises:
            OptionError, SettingError: there is no such number, or it cannot take a value.
        """
        return sweep_photo(self, inversion, over, target, asked)

    def auto(
        self, photos: Any, instruction: str | Sequence[str], **asked: Any
    ) -> AutoResult | list[AutoResult]:
        """Edit photos by an instruction in plain words, checked, and tried again where it fails.

        Args:
            photos: a photo, a folder of some, or a list.
            instruction: such as "make the ball blue", for all, or one each.
            **asked: see :func:`p2p_real.auto.auto`: ``out``, ``caption``, ``retry`` ...
        """
        from .auto import auto

        return auto(self, photos, instruction, **asked)

    def mask(
        self, inversion: Inversion | PhotoLike, spec: str, target: str | None = None, **asked: Any
    ) -> Mask:
        """Where a photo may change, to look at or to give to :meth:`edit` as ``mask``.

        Args:
            inversion: what :meth:`invert` gave, or a photo (then, if need be, it is inverted).
            spec: the mask in words, see :mod:`p2p_real.masks.grammar`.
            target: the new prompt, for diffedit.
            **asked: see :func:`p2p_real.masks.making.mask_of`: ``grow``, ``shrink``, ``feather``,
                ``source``, ``steps``, ``fit``, and settings of the sources.

        Raises:
            MaskError: it cannot be read, or is empty; names the place or the source.
        """
        return mask_of(self, inversion, spec, target, **{"progress": self.progress, **asked})

    def attention(
        self, inversion: Inversion | PhotoLike, words: Sequence[str] = (), **asked: Any
    ) -> Attention:
        """What the model looks at for each word, while it redraws a photo or edits it.

        Args:
            inversion: what :meth:`invert` gave, or a photo (then it is inverted first).
            words: words or phrases; none: all of the prompts that say more than "a" or "of".
            **asked: see :func:`p2p_real.attention.look`; all that :meth:`edit` takes.
        """
        from .attention import look

        return look(self, inversion, words, **asked)

    def generate(
        self,
        prompt: str,
        target: str | None = None,
        *,
        swap: Mapping[str, str] | None = None,
        add: str | Sequence[str] = (),
        remove: str | Sequence[str] = (),
        weight: Mapping[str, float] | None = None,
        style: str | None = None,
        direction: str | Direction | None = None,
        also: str | Sequence[str] = (),
        move: Mapping[str, Any] | None = None,
        resize: Mapping[str, Any] | None = None,
        steps: int = defaults.STEPS,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        seed: int = 0,
        size: tuple[int, int] | None = None,
        progress: Progress | None = None,
        **control: Any,
    ) -> EditResult:
        """A picture from a seed and, if an edit is asked for, the same picture edited.

        Args:
            prompt: what to draw.
            size: (width, height) in pixels, multiples of the model's grid; default: its own.
            target, swap, add, remove, weight, style, direction, **control: the edit, as in
                :meth:`edit`.

        Returns:
            EditResult; without an edit, ``image`` is the picture itself. With ``excite`` and no
            other edit it is the picture in which these words are seen, ``source`` that without.
        """
        words = _words(target, swap, add, remove, weight, style, direction, also, move, resize)
        return generate(
            self,
            prompt,
            words,
            EditControl(**{**words.control(), **control}),
            steps=steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            seed=seed,
            size=size,
            progress=progress or self.progress,
        )


def _words(
    target: str | None,
    swap: Mapping[str, str] | None,
    add: str | Sequence[str],
    remove: str | Sequence[str],
    weight: Mapping[str, float] | None,
    style: str | None,
    direction: str | Direction | None,
    also: str | Sequence[str],
    move: Mapping[str, Any] | None,
    resize: Mapping[str, Any] | None,
) -> EditWords:
    lists = (_list(add), _list(remove), _list(also))
    return EditWords(
        target, dict(swap or {}), lists[0], lists[1], weight or {}, style, direction, lists[2],
        move or {}, resize or {},
    )  # fmt: skip


def _list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
