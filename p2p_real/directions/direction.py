"""A direction as data: the difference of two mean texts, where it comes from, and its file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edit.words import PromptTooLong
from inversion import TextCond

from ..files import atomic_file
from ..measure import versions
from .sentences import DirectionError, hash_of

if TYPE_CHECKING:
    from ..backbones.base import Backbone

FORMAT = "p2p-real direction 1"
SUFFIX = ".safetensors"
ROWS = 16  # sentences encoded at once
_TYPES: dict[str, type] = {
    "source": str,
    "target": str,
    "made_by": str,
    "sentences": dict,
    "model": str,
    "model_hash": str,
    "extra": dict,
}


@dataclass(frozen=True)
class Direction:
    """What to add to a text's embeddings so that it says ``target`` where it said ``source``.

    Args:
        embeds: [T, D] float32, at every position of the text encoder (SDXL's two side by side).
        pooled: [E] of the pooled text (SDXL), or None.
        source, target: the two words.
        made_by: ``forms``, ``files``, ``model`` or ``sum``.
        sentences: for ``source`` and ``target``: ``count`` used, ``left_out`` (too long) and
            ``sha256``; for a sum its ``parts``.
        model, model_hash: whose text encoders read them.
        extra: how sentences were written, and versions.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    source: str = ""
    target: str = ""
    made_by: str = "files"
    sentences: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    model_hash: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    # Making -----------------------------------------------------------------------------------

    @classmethod
    def between(
        cls,
        backbone: Backbone,
        source: Sequence[str],
        target: Sequence[str],
        *,
        words: tuple[str, str] = ("", ""),
        made_by: str = "files",
        **extra: Any,
    ) -> Direction:
        """The difference of the mean texts of two sets of sentences, target minus source.

        Raises:
            DirectionError: a set without a sentence short enough for the text encoder.
        """
        one, left = _mean(backbone, source)
        other, right = _mean(backbone, target)
        pooled = None
        if one[1] is not None and other[1] is not None:
            pooled = (other[1] - one[1]).float()
        return cls(
            (other[0] - one[0]).float(),
            pooled,
            *words,
            made_by=made_by,
            sentences={"source": left, "target": right},
            model=backbone.name,
            model_hash=backbone.weights_hash,
            extra={**extra, "versions": versions()},
        )

    # Using ------------------------------------------------------------------------------------

    def scale(self, factor: float) -> Direction:
        """The same direction, so many times as far; -1 goes back.

        Raises:
            DirectionError: not a finite number.
        """
        if not math.isfinite(factor):
            raise DirectionError(f"a direction times {factor}: give a finite number")
        pooled = None if self.pooled is None else self.pooled * factor
        return self._summed(self.embeds * factor, pooled, [(factor, self)])

    def add(self, other: Direction) -> Direction:
        """Both, one after the other.

        Raises:
            DirectionError: they are of different models.
        """
        if self.model_hash != other.model_hash or self.embeds.shape != other.embeds.shape:
            raise DirectionError(
                f"directions of different models cannot be added: {self.name} is of "
                f"{self.model!r} (weights {self.model_hash[:12]}), {other.name} of "
                f"{other.model!r} ({other.model_hash[:12]}): make both with one model"
            )
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = self.pooled + other.pooled
        return self._summed(self.embeds + other.embeds, pooled, [(1.0, self), (1.0, other)])

    def _summed(
        self, embeds: Tensor, pooled: Tensor | None, of: list[tuple[float, Direction]]
    ) -> Direction:
        parts = [
            {**part, "factor": part["factor"] * factor} for factor, d in of for part in d.parts()
        ]
        return replace(
            self,
            embeds=embeds,
            pooled=pooled,
            source=" + ".join(p["source"] for p in parts),
            target=" + ".join(p["target"] for p in parts),
            made_by="sum",
            sentences={"parts": parts},
        )

    def parts(self) -> list[dict[str, Any]]:
        """What it was made of, as plain data: factor, words and sentences of each part."""
        if self.made_by == "sum":
            return list(self.sentences["parts"])
        one = {"source": self.source, "target": self.target, "made_by": self.made_by}
        return [{"factor": 1.0, **one, "sentences": self.sentences}]

    @property
    def name(self) -> str:
        """``source -> target``, with its factor; of a sum all of them."""
        named = []
        for part in self.parts():
            factor = "" if part["factor"] == 1 else f" * {part['factor']:g}"
            named.append(f"{part['source'] or '?'} -> {part['target'] or '?'}{factor}")
        return " + ".join(named)

    @property
    def sha256(self) -> str:
        """Hash of its numbers."""
        return _digest(self._tensors(), "")

    def _tensors(self) -> dict[str, Tensor]:
        found = {"embeds": self.embeds, "pooled": self.pooled}
        return {k: t.detach().cpu().contiguous().clone() for k, t in found.items() if t is not None}

    def check_model(self, backbone: Backbone) -> None:
        """Refuse another model's direction.

        Raises:
            DirectionError: names both models.
        """
        if self.model_hash != backbone.weights_hash:
            raise DirectionError(
                f"the direction {self.name} was made with model {self.model!r} (weights "
                f"{self.model_hash[:12]}), not with {backbone.name!r} "
                f"({backbone.weights_hash[:12]}): make it again with --model {backbone.name}"
            )

    def move(self, text: TextCond) -> TextCond:
        """The texts, each with the direction added."""
        embeds = text.embeds + self.embeds.to(text.embeds)
        pooled = text.pooled
        if pooled is not None and self.pooled is not None:
            pooled = pooled + self.pooled.to(pooled)
        return TextCond(embeds, pooled, text.time_ids)

    # Files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            OutputError: it cannot be written there.
        """
        path = Path(path)
        header = json.dumps({name: getattr(self, name) for name in _TYPES}, sort_keys=True)
        tensors = self._tensors()
        meta = {"format": FORMAT, "header": header, "sha256": _digest(tensors, header)}
        with atomic_file(path) as stream:
            stream.write(save(tensors, metadata=meta))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Direction:
        """Read a file, checked field by field.

        Raises:
            DirectionError: missing, foreign, damaged, or changed since it was saved; names the file
                and what is wrong.
        """
        path = Path(path)
        if not path.is_file():
            raise DirectionError(
                f"{path}: no such direction file: make one with p2p-real direction"
            )
        try:
            with safe_open(path, framework="pt") as f:
                meta = f.metadata() or {}
                if meta.get("format") != FORMAT:
                    raise DirectionError(
                        f"{path}: not a direction of this program (format "
                        f"{meta.get('format')!r}): make one with p2p-real direction"
                    )
                tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
            header = json.loads(meta["header"])
            same = meta["sha256"] == _digest(tensors, meta["header"])
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            raise DirectionError(
                f"{path}: damaged or not a safetensors file ({error}): make the direction again"
            ) from None
        found = _build(path, header, tensors)
        if not same:
            raise DirectionError(
                f"{path}: was changed since it was saved (its sha256 does not match its tensors "
                "and header): make the direction again"
            )
        return found


Texts = tuple[Tensor, Tensor | None]


def _mean(backbone: Backbone, sentences: Sequence[str]) -> tuple[Texts, dict[str, Any]]:
    """Mean embeddings [T, D] and pooled text [E] in float64; how many sentences, and their hash."""
    used = [s for s in sentences if _fits(backbone, s)]
    if not used:
        raise DirectionError(
            "none of the sentences is short enough for the text encoder: write shorter ones"
        )
    size = (backbone.native_size, backbone.native_size)
    sums: list[Tensor | None] = [None, None]
    for at in range(0, len(used), ROWS):
        text = backbone.encode_text(used[at : at + ROWS], size)
        for i, part in enumerate((text.embeds, text.pooled)):
            if part is not None:
                total = part.cpu().double().sum(0)
                before = sums[i]
                sums[i] = total if before is None else before + total
    embeds, pooled = (None if s is None else s / len(used) for s in sums)
    assert embeds is not None
    left_out = len(sentences) - len(used)
    return (embeds, pooled), {"count": len(used), "left_out": left_out, "sha256": hash_of(used)}


def _fits(backbone: Backbone, sentence: str) -> bool:
    try:
        backbone.tokens(sentence).check_length()
    except PromptTooLong:
        return False
    return True


def _digest(tensors: dict[str, Tensor], header: str) -> str:
    """Hash of the header and of the tensors' names, shapes and bytes."""
    h = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        h.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        h.update(t.view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return h.hexdigest()


def _build(path: Path, header: Any, tensors: dict[str, Tensor]) -> Direction:
    """The direction of a header and tensors, or an error that names the field."""

    def wrong(name: str, why: str) -> DirectionError:
        return DirectionError(f"{path}: field {name!r} {why}: make the direction again")

    if not isinstance(header, dict):
        raise wrong("header", "is not an object")
    for name, kind in _TYPES.items():
        if name not in header:
            raise wrong(name, "is missing")
        if not isinstance(header[name], kind):
            raise wrong(name, f"has the wrong type ({type(header[name]).__name__})")
    if header["made_by"] == "sum" and not isinstance(header["sentences"].get("parts"), list):
        raise wrong("sentences", "does not list the parts of the sum")
    embeds, pooled = tensors.get("embeds"), tensors.get("pooled")
    for key, tensor, dims in (("embeds", embeds, 2), ("pooled", pooled, 1)):
        if tensor is None and key == "embeds":
            raise wrong(key, "is missing")
        if tensor is None:
            continue
        if tensor.ndim != dims or tensor.dtype != torch.float32 or not tensor.numel():
            raise wrong(key, f"is not a float32 tensor of {dims} dimension(s)")
        if not torch.isfinite(tensor).all():
            raise wrong(key, "holds values that are not finite")
    assert embeds is not None
    return Direction(embeds, pooled, **{name: header[name] for name in _TYPES})
