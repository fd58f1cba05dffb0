"""Plug-and-play: the source's decoder features and self-attention hold the layout.

What a residual block adds and where self-attention looks say what is where, not what it looks like;
given to the target, they leave its words the appearance.

Paper: Plug-and-Play Diffusion Features for Text-Driven Image-to-Image Translation
(arXiv 2211.12572), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inversion.denoiser import Denoiser
from inversion.registry import setting

from ..attention import sites_of
from ..control import Block, BlockCall, Call, Control, NothingActed, RowSwap, Site, take
from ..features import HALVES, FromSource, Places, decoder_levels, fractions
from ..gates import steps_of
from ..method import EditContext, EditMethod, edits


class FeatureInject(FromSource):
    """The targets get what some residual blocks add in the source.

    Args:
        window, half: as of :class:`FromSource`.
        places: which blocks; None is the second one of the decoder's coarsest level with attention.
        share: how much of it is the source's, in [0, 1].
    """

    label = "features"
    remedy = "raise feature_stop"

    def __init__(
        self, window: tuple[int, int], half: str, places: Places | None = None, share: float = 1.0
    ) -> None:
        super().__init__(window, half)
        self.places, self.share = places, share

    def begin(self, denoiser: Denoiser) -> None:
        self._found = self.places
        if self._found is None:
            unet = denoiser.model.unet  # type: ignore[attr-defined]
            self._found = Places((("up", decoder_levels(sites_of(unet))[0], 1),))

    def watches_block(self, block: Block) -> bool:
        return self._found is not None and self._found.has(block)

    def features(self, h: Tensor, call: BlockCall) -> Tensor:
        theirs = take(h, self.taken(call.layout))
        return theirs if self.share == 1 else h.lerp(theirs, self.share)


class QueryKeyInject(FromSource):
    """The targets attend to themselves by the source's queries and keys.

    Args:
        window, half: as of :class:`FromSource`.
        places: which layers; None is the decoder's coarsest level with attention from its second
            transformer on, and all that follow.
    """

    label = "pnp self-attention"
    remedy = "raise attention_stop"

    def __init__(self, window: tuple[int, int], half: str, places: Places | None = None) -> None:
        super().__init__(window, half)
        self.places = places

    def begin(self, denoiser: Denoiser) -> None:
        unet = denoiser.model.unet  # type: ignore[attr-defined]
        self._coarsest = 0 if self.places else decoder_levels(sites_of(unet))[0]

    def watches(self, site: Site) -> bool:
        if site.cross:
            return False
        if self.places is not None:
            return self.places.has(site)
        later = site.scale < self._coarsest or site.number > 0
        return site.place == "up" and site.scale <= self._coarsest and later

    def rows(self, call: Call) -> RowSwap:
        index = self.taken(call.layout)
        return RowSwap(q=index, k=index)


@edits.register("pnp")
class PlugAndPlay(EditMethod):
    """Plug-and-play: the photo's features and self-attention keep its layout, words the rest."""

    paper = "Plug-and-Play Diffusion Features, arXiv 2211.12572"

    feature_start: float = setting(
        0.0, "the photo's features are used from this fraction of the walk on", low=0, high=1
    )
    feature_stop: float = setting(0.8, "and until this one", low=0, high=1)
    feature_share: float = setting(1.0, "how much of them is the photo's", low=0, high=1)
    features: str = setting(
        "auto",
        "residual blocks: auto (the second of the decoder's coarsest level with attention), all, "
        "or places such as up/4.1+up/2",
    )
    attention_start: float = setting(
        0.0, "its self-attention is used from this fraction of the walk on", low=0, high=1
    )
    attention_stop: float = setting(0.5, "and until this one", low=0, high=1)
    layers: str = setting(
        "auto",
        "self-attention layers: auto (the decoder's from that block on), all, or places such as "
        "up/2+up/1",
    )
    half: str = setting(
        "own",
        "own: each half of the guidance reads its own half of the photo; cond: both read the "
        "conditional one, which saves a row",
        choices=HALVES,
    )
    compat: bool = setting(False, "the published port's one source row, and windows rounded down")

    def __post_init__(self) -> None:
        super().__post_init__()
        fractions("pnp", (self.feature_start, self.feature_stop), "feature")
        fractions("pnp", (self.attention_start, self.attention_stop), "attention")
        self._places()

    def _places(self) -> tuple[Places | None, Places | None]:
        texts = (("features", self.features), ("layers", self.layers))
        read = [None if t == "auto" else Places.read(t, f"pnp: {name}") for name, t in texts]
        return read[0], read[1]

    def controls(self, context: EditContext) -> Sequence[Control]:
        half = "cond" if self.compat else self.half
        blocks, layers = self._places()
        windows = [
            self._steps(w, context.steps)
            for w in (
                (self.feature_start, self.feature_stop),
                (self.attention_start, self.attention_stop),
            )
        ]
        made: list[Control] = []
        if windows[0][1] > windows[0][0] and self.feature_share > 0:
            made.append(FeatureInject(windows[0], half, blocks, self.feature_share))
        if windows[1][1] > windows[1][0]:
            made.append(QueryKeyInject(windows[1], half, layers))
        if not made:
            raise NothingActed(
                "pnp: both windows are empty, so nothing of the photo is kept: raise feature_stop "
                "or attention_stop, or use --edit plain"
            )
        return made

    def _steps(self, window: tuple[float, float], steps: int) -> tuple[int, int]:
        if self.compat:
            return int(window[0] * steps), int(window[1] * steps)
        return steps_of(window, steps)
