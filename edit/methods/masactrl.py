"""MasaCtrl: the target looks up its appearance in the photo, and is free to move.

Its queries attend to the source's keys and values, so a new pose is filled with the old textures:
the contrary of prompt-to-prompt, which keeps places and lets looks change.

With ``mask_words`` the object looks at the photo's object only and all else at all else, so that
neither takes the other's looks; where they are is read from the words' maps as the walk goes.

Paper: MasaCtrl: Tuning-Free Mutual Self-Attention Control for Consistent Image Synthesis and
Editing (arXiv 2304.08465), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from inversion.denoiser import COND, Denoiser
from inversion.registry import SettingError, setting
from inversion.schedule import Step

from ..attention import sites_of
from ..blend import nearest
from ..control import Call, Control, NothingActed, RowSwap, Sides, Site
from ..features import FromSource, Places, decoder_levels
from ..gates import steps_of
from ..method import EditContext, EditMethod, edits
from ..plan import word_rows


class MutualSelfAttention(FromSource):
    """The targets' queries over the source's keys and values, each half its own.

    Args:
        window: first and last-plus-one step.
        places: which layers; None is the decoder without its coarsest level of attention.
        first_layer: if not negative: from this self-attention layer on, in call order, instead.
    """

    label = "mutual attention"
    remedy = "start earlier, or at an earlier layer"

    def __init__(
        self, window: tuple[int, int], places: Places | None = None, first_layer: int = -1
    ) -> None:
        super().__init__(window)
        self.places, self.first_layer = places, first_layer

    def begin(self, denoiser: Denoiser) -> None:
        if self.places is None and self.first_layer < 0:
            unet = denoiser.model.unet  # type: ignore[attr-defined]
            levels = decoder_levels(sites_of(unet))
            self._finest = levels[1:] or levels

    def watches(self, site: Site) -> bool:
        if site.cross:
            return False
        if self.first_layer >= 0:
            return site.index >= self.first_layer
        if self.places is not None:
            return self.places.has(site)
        return site.place == "up" and site.scale in self._finest

    def rows(self, call: Call) -> RowSwap:
        index = self.taken(call.layout)
        return RowSwap(k=index, v=index)


class GuidedAttention(MutualSelfAttention):
    """The same, where an object looks at the photo's object only and all else at all else.

    Under the same prompt this is not the reconstruction, whose places look everywhere.

    Args:
        window, places, first_layer: as of :class:`MutualSelfAttention`.
        words: [B, T] in {0, 1}; the tokens whose maps say where the object is, a row a prompt.
        threshold: share of the range of a prompt's map above which a place is the object's.
        scale: the scale whose maps are read, or the nearest that the network has.
    """

    label = "mask-guided mutual attention"

    def __init__(
        self,
        window: tuple[int, int],
        places: Places | None,
        first_layer: int,
        *,
        words: Tensor,
        threshold: float,
        scale: int,
    ) -> None:
        super().__init__(window, places, first_layer)
        self.words, self.threshold, self.scale = words, threshold, scale

    def begin(self, denoiser: Denoiser) -> None:
        super().begin(denoiser)
        there = {s.scale for s in sites_of(denoiser.model.unet).values() if s.cross}  # type: ignore[attr-defined]
        self._read = nearest(there, (self.scale,))
        self._columns = self.words.float().to(denoiser.cond.embeds.device)[..., None]  # [B, T, 1]
        self._sums: Tensor | None = None
        self._areas: dict[tuple[int, int], Tensor] = {}

    def watches(self, site: Site) -> bool:
        return site.scale in self._read if site.cross else super().watches(site)

    def active(self, step: Step) -> bool:
        return step.index < self.window[1]

    def reads_source_uncond(self, step: Step) -> bool:
        return super().active(step)

    def value_columns(self, call: Call) -> Tensor | None:
        if not call.site.cross:
            return None
        zero = torch.zeros_like(self._columns[0])
        return torch.stack([self._columns[b] if h == COND else zero for h, b in call.layout.rows])

    def seen(self, sums: Tensor, call: Call) -> None:
        rows = [call.layout.index(COND, b) for b in range(len(self._columns))]
        maps = sums[rows].float().mean(1).transpose(1, 2).unflatten(-1, call.size)  # [B, 1, h, w]
        self._sums = maps if self._sums is None else self._sums + maps
        self._areas.clear()

    def rows(self, call: Call) -> RowSwap | None:  # type: ignore[override]
        if call.site.cross or not super().active(call.step):
            return None
        return super().rows(call)

    def sides(self, call: Call) -> Sides | None:
        if call.site.cross or not super().active(call.step) or self._sums is None:
            return None
        areas = self._at(call.size)
        branches = [b for _, b in call.layout.rows]
        free = torch.ones_like(areas[0])  # the source itself looks everywhere
        keys = torch.stack([areas[0] if b else free for b in branches])
        return Sides(areas[branches], keys)

    def _at(self, size: tuple[int, int]) -> Tensor:
        """[B, P] bool where each prompt's object is, from what was seen so far."""
        assert self._sums is not None
        if size not in self._areas:
            low, high = self._sums.amin((2, 3), True), self._sums.amax((2, 3), True)
            share = (self._sums - low) / (high - low).clamp(min=1e-12)
            found = interpolate((share > self.threshold).float(), size, mode="nearest")
            self._areas[size] = found.flatten(1) > 0.5
        return self._areas[size]

    def report(self) -> dict[str, object]:
        """Share of the picture that is the object, in the photo and in each target."""
        if self._sums is None:
            return {"object": []}
        areas = self._at((self._sums.shape[-2], self._sums.shape[-1]))
        return {"object": [round(float(area.float().mean()), 4) for area in areas]}


@edits.register("masactrl")
class MasaCtrl(EditMethod):
    """MasaCtrl: the photo's textures in a new pose; words may move things, not repaint them."""

    paper = "MasaCtrl, arXiv 2304.08465"

    start: float = setting(
        0.08, "the photo is read from this fraction of the walk on; before it, the layout is free",
        low=0, high=1,
    )  # fmt: skip
    stop: float = setting(1.0, "and until this one", low=0, high=1)
    layers: str = setting(
        "auto",
        "self-attention layers: auto (the decoder without its coarsest level), all, or places such "
        "as up/2+up/1",
    )
    start_layer: int = setting(
        -1, "if not negative: from this self-attention layer on, in call order", low=-1, high=1000
    )
    mask_words: str = setting(
        "",
        "words of an object, joined by +: it looks at the photo's object only, and all else at all "
        "else; none: everything looks everywhere",
    )
    mask_threshold: float = setting(
        0.1, "share of the range of their map above which a place is the object's", low=0, high=0.99
    )
    compat: bool = setting(False, "windows rounded down, as published")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start > self.stop:
            raise SettingError("masactrl: start is later than stop: nothing would be read")
        if self.mask_words and not self.mask_words.replace("+", "").strip():
            raise SettingError(f"masactrl: mask_words={self.mask_words!r}: give words joined by +")
        if self.layers != "auto":
            Places.read(self.layers, "masactrl: layers")
            if self.start_layer >= 0:
                raise SettingError("masactrl: layers and start_layer say the same: give one")

    def controls(self, context: EditContext) -> Sequence[Control]:
        window = (self.start, self.stop)
        low, high = steps_of(window, context.steps)
        if self.compat:
            low, high = (int(f * context.steps + 1e-9) for f in window)
        if low >= high:
            raise NothingActed(
                "masactrl: the window is empty, so nothing of the photo is read: start earlier or "
                "stop later, or use --edit plain"
            )
        places = None if self.layers == "auto" else Places.read(self.layers, "masactrl: layers")
        words = [part.strip() for part in self.mask_words.split("+") if part.strip()]
        if not words:
            return [MutualSelfAttention((low, high), places, self.start_layer)]
        return [
            GuidedAttention(
                (low, high),
                places,
                self.start_layer,
                words=word_rows([(word,) for word in words], context),
                threshold=self.mask_threshold,
                scale=context.scale_near(16),
            )
        ]
