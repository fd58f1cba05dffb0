"""The contact sheet of a comparison: photos and edits down, inversions across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..pictures import grid
from .cells import Cell
from .entries import Comparison, Entry
from .table import Column, text

_MANY, _LOW, _HIGH = 6, 256, 512  # more columns than these are 256 pixels high, others 512
_PSNR = Column("psnr", "", "", 1)


def sheet(made: Comparison, rows: Sequence[dict[str, Any]]) -> Image.Image:
    """Each photo with its ceiling at the left, then one column an inversion.

    The first row of a photo shows reconstructions, one further row each edit.
    """
    methods = list(dict.fromkeys(e.method.label for e in made.entries))
    photos = list(dict.fromkeys(e.subject.label for e in made.entries))
    edits = list(dict.fromkeys(e.edit.label for e in made.entries if e.edit))
    places = {
        (e.subject.label, e.method.label, e.edit.label if e.edit else ""): n
        for n, e in enumerate(made.entries)
    }
    tallest = max(e.subject.photo.size[1] for e in made.entries)
    height = _HIGH if len(methods) + 2 <= _MANY and tallest > _LOW else _LOW
    pictures: list[list[Image.Image | None]] = []
    labels: list[list[str]] = []
    names: list[str] = []
    for photo in photos:
        for edit in ["", *edits]:
            line: list[Image.Image | None] = []
            words: list[str] = []
            first = next(e for e in made.entries if e.subject.label == photo)
            lead, said = _lead(first, edit)
            line += lead
            words += said
            for method in methods:
                n = places[photo, method, edit or (edits[0] if edits else "")]
                picture, label = _cell(made.entries[n], edit, rows[n])
                line.append(picture)
                words.append(label)
            pictures.append([None if p is None else _at_height(p, height) for p in line])
            labels.append(words)
            names.append(f"{photo}\n{edit or 'reconstruction'}")
    return grid(pictures, names, ["photo", "ceiling", *methods], labels)


def _lead(entry: Entry, edit: str) -> tuple[list[Image.Image | None], list[str]]:
    """The two pictures at the left: once a photo, white beside its edits."""
    subject = entry.subject
    white = Image.new("RGB", subject.photo.size, "white")
    if edit:
        target = subject.prompts.target if subject.prompts else ""
        return [white, white], [f"to: {target}", ""]
    try:
        ceiling = subject.undo(subject.ceiling)
    except Exception:  # the rows say why
        return [subject.photo.image, None], [subject.prompt, "failed"]
    return [subject.photo.image, ceiling], [subject.prompt, "what the autoencoder keeps"]


def _cell(entry: Entry, edit: str, row: dict[str, Any]) -> tuple[Image.Image | None, str]:
    made = entry.edited if edit else entry.inversion
    if not isinstance(made, Cell):
        reason = row["reason"]
        return None, "failed: " + (reason if len(reason) < 90 else reason[:88] + " ...")
    if edit:
        return made.pictures["edited"], _decibels(row.get("edit_psnr"), "to the photo")
    return entry.subject.undo(made.pictures["reconstruction"]), _decibels(row.get("psnr"), "")


def _decibels(value: float | None, what: str) -> str:
    if value is None:
        return ""
    figure = text(value, _PSNR)
    return f"{figure} {'' if figure == 'equal' else 'dB '}{what}".strip()


def _at_height(picture: Image.Image, height: int) -> Image.Image:
    """A picture at this height, by a whole factor without smoothing where one fits."""
    factor = height / picture.height
    size = max(1, round(picture.width * factor)), height
    way = Image.Resampling.NEAREST if factor == int(factor) else Image.Resampling.LANCZOS
    return picture if factor == 1 else picture.resize(size, way)


def smaller(picture: Image.Image, most: int) -> Image.Image:
    """A picture whose longer side is at most `most`."""
    if max(picture.size) <= most:
        return picture
    factor = most / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)
