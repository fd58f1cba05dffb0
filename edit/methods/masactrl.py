"""MasaCtrl: the target looks up its appearance in the photo, and is free to move.

Its queries attend to the source's keys and values, so a new pose is filled with the old textures:
the contrary of prompt-to-prompt, which keeps places and lets looks change.

Paper: MasaCtrl: Tuning-Free Mutual Self-Attention Control for Consistent Image Synthesis and
Editing (arXiv 2304.08465), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from inversion.denoiser import Denoiser
from inversion.registry import SettingError, setting

from ..attention import sites_of
from ..control import Call, Control, NothingActed, RowSwap, Site
from ..features import FromSource, Places, decoder_levels
from ..gates import steps_of
from ..method import EditContext, EditMethod, edits


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
    compat: bool = setting(False, "windows rounded down, as published")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start > self.stop:
            raise SettingError("masactrl: start is later than stop: nothing would be read")
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
        return [MutualSelfAttention((low, high), places, self.start_layer)]
