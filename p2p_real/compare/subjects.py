"""A photo of a comparison: its words, what the model sees of it, and the best it can give back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from inversion import Inversion

from ..fitting import Fit
from ..images import Photo, to_tensor
from ..inverting import decode, guarded
from ..prompts import EditWords, Prompts
from .photos import CompareError, check_photos

if TYPE_CHECKING:
    from ..editor import Editor


@dataclass
class Subject:
    """One photo.

    Args:
        editor: whose model is compared.
        photo: the pixels.
        label: its name, another for each photo.
        prompt: what it shows.
        prompts: source and target, or None where inversions alone are compared.
        fitted: what the model sees.
        fit: the way back.
    """

    editor: Editor
    photo: Photo
    label: str
    prompt: str
    prompts: Prompts | None
    fitted: Image.Image
    fit: Fit

    @cached_property
    def ceiling(self) -> Image.Image:
        """The photo through the autoencoder and back, at the size the model sees."""
        backbone = self.editor.backbone

        @torch.no_grad()
        def go() -> Image.Image:
            pixels = to_tensor(self.fitted).to(backbone.device)
            return decode(backbone, backbone.encode(pixels))[0]

        return guarded(backbone, go)

    def undo(self, picture: Image.Image) -> Image.Image:
        """A picture of the model's size at the photo's."""
        return self.fit.undo(picture, self.photo.image)

    def made_of(self) -> dict[str, Any]:
        """What of the photo decides a cell."""
        alpha = self.photo.alpha
        return {
            "photo": self.photo.sha256,
            "alpha": None if alpha is None else hashlib.sha256(alpha.tobytes()).hexdigest(),
            "fit": self.fit.to_json(),
            "prompt": self.prompt,
        }

    def check(self, inversion: Inversion) -> None:
        """Refuse an inversion of another photo (a damaged cache)."""
        if inversion.photo.get("sha256") != self.photo.sha256:
            raise CompareError(f"the inversion at hand is not one of {self.label}")


def make_subjects(
    editor: Editor,
    photos: Sequence[Any],
    sources: Sequence[str],
    words: EditWords,
    fit: str,
) -> list[Subject]:
    """The photos of a comparison, described where no words come with them.

    Args:
        editor: the models.
        photos: paths, pictures or photos.
        sources: a prompt for each photo, one for all, or none.
        words: the edit.
        fit: how photos are put on the model's grid.

    Raises:
        CompareError: no photo, one given twice, or prompts that do not match them.
        PhotoError, PromptError: says what is wrong with a photo or the words.
    """
    opened = [editor.open(p) for p in photos]
    check_photos(opened, sources)
    if sources:
        prompts = list(sources) * (len(opened) if len(sources) == 1 else 1)
    else:
        prompts = [str(t) for t in editor.caption(opened)]
    found, taken = [], set[str]()
    for photo, prompt in zip(opened, prompts, strict=True):
        label, n = photo.name, 1
        while label in taken:
            n += 1
            label = f"{photo.name} #{n}"
        taken.add(label)
        editor.backbone.tokens(prompt).check_length()
        asked = None
        if words.any():
            try:
                asked = words.apply(prompt)
            except (ValueError, LookupError) as error:
                raise CompareError(f"{label}: {error.args[0] if error.args else error}") from None
            editor.backbone.tokens(asked.target).check_length()
        fitted, way = editor._fit(photo, fit)
        found.append(Subject(editor, photo, label, prompt, asked, fitted, way))
    return found
