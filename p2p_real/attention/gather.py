"""One watched walk: a photo redrawn, or edited, and what the model looked at meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edit import EditContext, sites_of
from edit.align import Alignment, align
from edit.control import Control
from edit.seen import Seen
from edit.words import Tokens
from inversion import ClassifierFree, Inversion

from ..fitting import Fit, fit_photo
from ..images import Photo
from ..inverting import pixel_size, replay_of
from ..numbers import OptionError, check_edit_guidance
from ..prompts import EditWords, PromptError
from ..result import EditResult
from ..walking import Walk, draw
from .naming import Word, choose_words, columns

if TYPE_CHECKING:
    from ..editor import Editor

MAX_PIXELS = 4096  # places of a word map that is kept
SELF_PIXELS = 1024  # of a self-attention map, which has their square in numbers
COMPONENTS = 6
REWRITES = tuple(f.name for f in fields(EditWords))
OF_INVERSION = ("method", "steps", "negative_prompt", "seed", "fit")


@dataclass(frozen=True)
class Attention:
    """What the model looked at.

    Args:
        result: the picture redrawn or edited, and the report.
        words: what was looked at, in order.
        seen: the maps; row 0 is the photo's own prompt, row 1 the edit's.
        prompts: the one, or both.
        fit: how the photo lies under the maps.
        alignment: of the two prompts, or None.
        tokens: of the prompts.
    """

    result: EditResult
    words: tuple[Word, ...]
    seen: Seen
    prompts: tuple[str, ...]
    fit: Fit
    alignment: Alignment | None
    tokens: tuple[Tokens, ...]

    @property
    def edited(self) -> bool:
        return len(self.prompts) > 1

    @property
    def report(self) -> dict[str, Any]:
        return self.result.report

    def pictures(self) -> dict[str, Image.Image]:
        """The pages for people: words, time, layers, self and, of an edit, alignment and
        difference."""
        from .pictures import all_pictures

        return all_pictures(self)

    def film(self) -> list[Image.Image]:
        """The words' maps in motion, a picture for each of at most 25 moments of the walk."""
        from .gif import film

        return film(self)

    def components(self) -> tuple[Tensor, Tensor] | None:
        """Maps [B, N, h, w] and shares [B, N] of the self-attention; see :func:`components`."""
        maps, size = self.seen.self_map(), self.seen.self_size
        if maps is None or size is None:
            return None
        found = [components(m, size, COMPONENTS) for m in maps]
        return torch.stack([m for m, _ in found]), torch.stack([s for _, s in found])

    def numbers(self) -> dict[str, np.ndarray]:
        """All maps as arrays, named as in ``maps.npz``; those of an edit's own prompt begin with
        ``target_``."""
        seen, frames, groups = self.seen, self.seen.frames, self.seen.groups
        total, by_time, by_layer = seen.words(), seen.by_time(), seen.by_layer()
        found: dict[str, Any] = {
            "prompts": np.array(self.prompts),
            "steps": np.array([f.first for f in frames]),
            "step_counts": np.array([f.count for f in frames]),
            "timesteps": np.array([f.t for f in frames]),
            "places": np.array([g.place for g in groups]),
            "scales": np.array([g.scale for g in groups]),
            "layer_counts": np.array([g.layers for g in groups]),
            "layer_sizes": np.array([g.size for g in groups]),
        }
        parts = self.components()
        for b, prefix in enumerate(("", "target_")[: len(self.prompts)]):
            names = [w.names[b] or "" for w in self.words]
            found |= {
                f"{prefix}words": np.array(names),
                f"{prefix}maps": total[b, :-1],
                f"{prefix}rest": total[b, -1],
                f"{prefix}by_time": by_time[:, b, :-1],
                f"{prefix}by_layer": by_layer[:, b, :-1],
            }
            if parts is not None:
                found[f"{prefix}self_components"] = parts[0][b]
                found[f"{prefix}self_shares"] = parts[1][b]
        if parts is not None:
            found["self_scale"] = np.array(seen.self_scale)
        if self.alignment is not None:
            ours, theirs = (t.count for t in self.tokens)
            found["alignment"] = self.alignment.matrix[:ours, :theirs]
        return {name: np.asarray(value) for name, value in found.items()}


def look(
    editor: Editor,
    subject: Any,
    words: Sequence[str] = (),
    *,
    source: str | None = None,
    max_pixels: int = MAX_PIXELS,
    guidance_scale: float | None = None,
    **asked: Any,
) -> Attention:
    """Redraw a photo, or edit it, and keep what the model looks at.

    Args:
        editor: the models.
        subject: an inversion, or a photo (then it is inverted first).
        words: words or phrases of the prompts; none: all that are no mere fillers.
        source: what the photo shows (default: its caption).
        max_pixels: at most so many places of a word map; finer maps are averaged down, and
            self-attention layers with more are left out.
        guidance_scale: default: what the inversion was made for.
        **asked: the edit and the inversion, as in :meth:`p2p_real.editor.Editor.edit`.

    Raises:
        WordNotInPrompt: a word stands in no prompt; lists the words there are.
        OptionError: a number out of range.
    """
    if not 16 <= max_pixels <= 2**20:
        raise OptionError(f"--max-pixels {max_pixels}: give a whole number from 16 to {2**20}")
    watcher = _Watcher(editor, list(words), max_pixels)
    wanted = EditWords(**{k: asked[k] for k in REWRITES if k in asked})
    saved = isinstance(subject, Inversion)
    if not saved:
        subject = editor.open(subject)
        source = str(editor.caption(subject)) if source is None else source
    if wanted.any():
        result = editor.edit(
            subject, source=source, guidance_scale=guidance_scale, watch=watcher, **asked
        )
    else:
        for name in asked.keys() - {*REWRITES, *OF_INVERSION, "method_options", "progress"}:
            raise OptionError(f"{name} says how an edit acts, and none is asked for: give one too")
        if source is not None and not source.strip():
            raise PromptError("the prompt is empty: say what the photo shows, or leave it out")
        photo = None if saved else subject
        if photo is not None:
            watcher.check(source)
            inversion = editor.invert(
                photo,
                source,
                guidance_scale=guidance_scale,
                verify=False,
                progress=asked.get("progress"),
                **{k: asked[k] for k in OF_INVERSION if k in asked},
                **dict(asked.get("method_options") or {}),
            )
        else:
            inversion = subject
        result = _redraw(editor, inversion, photo, watcher, guidance_scale, asked.get("progress"))
    if saved:
        fit = Fit.from_json(subject.photo["fit"])
    else:
        backbone = editor.backbone
        fit = fit_photo(
            subject.image,
            multiple=backbone.multiple,
            native=backbone.native_size,
            mode=asked.get("fit", "resize"),
        )[1]
    return watcher.finish(result, fit)


class _Watcher:
    """Makes the watching control when the prompts are known, and keeps the one that watched."""

    def __init__(self, editor: Editor, asked: list[str], max_pixels: int) -> None:
        self.editor, self.asked, self.max_pixels = editor, asked, max_pixels

    def check(self, source: str | None) -> None:
        """Refuse words that are not there, before the long work."""
        if source is not None:
            choose_words(self.asked, self.editor.backbone.tokens(source), None)

    def __call__(self, context: EditContext) -> list[Control]:
        target = context.targets[0] if context.targets else None
        self.tokens = (context.source, *context.targets[:1])
        self.words = choose_words(self.asked, context.source, target)
        self.seen = Seen(
            columns(self.words, context.source.length),
            context.latent_size,
            context.steps,
            max_pixels=self.max_pixels,
            self_scale=self._self_scale(context.latent_size),
        )
        return [self.seen]

    def _self_scale(self, latent_size: tuple[int, int]) -> int | None:
        """The finest self-attention whose maps may be made."""
        most = min(self.max_pixels, SELF_PIXELS)
        unet: Any = self.editor.backbone.unet
        scales = sorted({s.scale for s in sites_of(unet).values() if not s.cross})
        for scale in scales:
            h, w = (-(-side // scale) for side in latent_size)
            if h * w <= most:
                return scale
        return None

    def finish(self, result: EditResult, fit: Fit) -> Attention:
        both = len(self.tokens) > 1
        made = Attention(
            result=result,
            words=tuple(self.words),
            seen=self.seen,
            prompts=tuple(t.text for t in self.tokens),
            fit=fit,
            alignment=align(self.tokens[0], self.tokens[1]) if both else None,
            tokens=self.tokens,
        )
        result.report.update(summary(made))
        return made


def _redraw(
    editor: Editor,
    inversion: Inversion,
    photo: Photo | None,
    watcher: _Watcher,
    guidance_scale: float | None,
    progress: Any,
) -> EditResult:
    """The photo by its own prompt, watched."""
    backbone, extra = editor.backbone, inversion.extra
    inversion.check_model(backbone.name, backbone.weights_hash)
    guidance = inversion.guidance_scale if guidance_scale is None else guidance_scale
    check_edit_guidance(guidance)
    tokens = backbone.tokens(inversion.prompt)
    h, w = inversion.trajectory.shape[-2:]
    watch = watcher(EditContext(tokens, (), inversion.steps, (h, w)))
    walk = Walk(
        replay=lambda: replay_of(backbone, inversion),
        schedule=inversion.schedule,
        size=pixel_size(backbone, inversion),
        guide=inversion.inverter.guide(ClassifierFree(guidance)),
        negative_prompt=extra.get("negative_prompt", ""),
    )
    fit = Fit.from_json(inversion.photo["fit"])
    picture = inversion.picture
    outcome = draw(backbone, walk, inversion.prompt, progress or editor.progress, watch)
    report = {
        "photo": inversion.photo["name"],
        "method": inversion.method,
        "method_settings": inversion.settings,
        "guidance_scale": guidance,
        "fit": fit.mode,
        "seed": extra.get("seed", 0),
        "ceiling_psnr": extra.get("ceiling_psnr"),
        "inversion_from_cache": bool(extra.get("from_cache")),
        "auto": extra.get("auto"),
    }
    fitted = None if picture is None else Image.fromarray(picture.numpy())
    return outcome.finish(fitted=fitted, fit=fit, photo=photo, report=report)


def components(maps: Tensor, size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """The strongest patterns of a self-attention map: which places look alike.

    Args:
        maps: [P, P]; row p says where place p looks.
        size: (h, w) of the P places.
        count: how many patterns.

    Returns:
        [N, h, w] each place's part in each pattern, in -1..1 with the largest positive; [N] the
        share of all differences between places that a pattern explains.

    Paper: the principal components of the rows; Prompt-to-Prompt's release shows singular vectors.
    """
    centred = (maps - maps.mean(0)).double()
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    count = min(count, len(strength))
    parts = left[:, :count].T
    peak = parts.gather(1, parts.abs().argmax(1, keepdim=True))
    energy = strength.square()
    shares = energy[:count] / energy.sum().clamp(min=1e-30)
    return (parts / peak).float().reshape(-1, *size), shares.float()


def summary(found: Attention) -> dict[str, Any]:
    """What is said of the maps in the report."""
    seen, total = found.seen, found.seen.words()
    rows = []
    for n, word in enumerate(found.words):
        for b, name in enumerate(word.names):
            if name is not None:
                row: dict[str, Any] = {"word": name, "prompt": ("source", "target")[b]}
                rows.append(row | _place(total[b, n], found))
    return {
        "words": rows,
        "watched": {
            "map_size": list(seen.grid),
            "steps": [f.first for f in seen.frames],
            "layers": [
                {"place": g.place, "scale": g.scale, "map_size": list(g.size), "layers": g.layers}
                for g in seen.groups
            ],
            "self_scale": seen.self_scale,
            "self_map_size": seen.self_size,
        },
        "maps_lie_on": found.fit.to_json(),
    }


def _place(part: Tensor, found: Attention) -> dict[str, Any]:
    """A word's share of the attention, and the photo's place (0..1) where it is largest."""
    h, w = part.shape
    fit = found.fit
    used = fit.scaled[1] / fit.fitted[1] * h, fit.scaled[0] / fit.fitted[0] * w
    inside = part[: max(1, round(used[0])), : max(1, round(used[1]))]
    top, left = divmod(int(inside.abs().argmax()), inside.shape[1])
    x = fit.box[0] + min(1.0, (left + 0.5) / used[1]) * fit.part[0]
    y = fit.box[1] + min(1.0, (top + 0.5) / used[0]) * fit.part[1]
    return {
        "mean": float(part.mean()),
        "most": float(inside[top, left]),
        "most_at": [round(x / fit.original[0], 3), round(y / fit.original[1], 3)],
    }
