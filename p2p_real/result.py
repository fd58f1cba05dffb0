"""What an edit gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .fitting import Fit
from .images import Photo, psnr
from .masks.mask import Mask
from .numbers import finite
from .pictures import strip


@dataclass(frozen=True)
class EditResult:
    """An edited picture and how it came about.

    Args:
        image: the edit, of the photo's own size.
        reconstruction: the photo as the model regenerates it beside the edit, same size.
        source: the photo as the model saw it (for generated pictures: the picture itself).
        mask: where the picture could change, or None (everywhere).
        report: what acted, figures, settings, versions; plain data.
        latents: [2, C, h, w] clean latents of reconstruction and edit.
        others: results of further targets of the same walk.
    """

    image: Image.Image
    reconstruction: Image.Image
    source: Image.Image
    mask: Image.Image | None = None
    report: dict[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None
    others: tuple[EditResult, ...] = ()

    def strip(self) -> Image.Image:
        """Photo, reconstruction, edit (and mask) side by side, words below."""
        report = self.report
        if "photo" in report:
            pictures = [self.source, self.reconstruction, self.image]
            labels = [f"photo: {report.get('source', '')}", "reconstruction"]
            if report.get("reconstruction_psnr") is not None:
                labels[1] += f" ({report['reconstruction_psnr']:.1f} dB)"
        else:  # drawn, so there is nothing to reconstruct
            same = self.image is self.source
            pictures = [self.image] if same else [self.source, self.image]
            labels = [] if same else [report.get("source", "")]
        more = report.get("direction")
        wanted = report.get("target", "") + (f" + ({more['name']})" if more else "")
        labels.append("; ".join([wanted, *report.get("moves", ())]))
        pictures += [other.image for other in self.others]
        labels += [other.report["target"] for other in self.others]
        if self.mask is not None:
            pictures.append(self.mask.convert("RGB"))
            labels.append(f"may change: {self.report['mask_coverage']:.0%}")
        return strip(pictures, labels)


@dataclass
class Outcome:
    """What a walk gave, before it is put back on the photo.

    Args:
        pictures: decoded rows: source and edit, or one drawn picture.
        latents: their latents.
        mask: [h, w] at latent size, or None.
        report: figures of the walk.
        shape: a mask of the photo's own size that acted besides, or None.
    """

    pictures: list[Image.Image]
    latents: Tensor
    mask: Tensor | None
    report: dict[str, Any]
    shape: Mask | None = None

    def finish(
        self,
        *,
        report: dict[str, Any],
        fitted: Image.Image | None = None,
        fit: Fit | None = None,
        photo: Photo | None = None,
        paste_back: bool = False,
    ) -> EditResult:
        """Undo the fit, paste back, measure."""
        source_row, edit_row = self.pictures[0], self.pictures[-1]
        figures = {**report, **self.report}
        reference = source_row if fitted is None else fitted
        if fitted is not None:
            figures["reconstruction_psnr"] = finite(psnr(source_row, fitted))
        original = photo.image if photo is not None else None
        whole = fit is not None and (original is not None or fit.is_whole)

        def undo(picture: Image.Image) -> Image.Image:
            return fit.undo(picture, original) if whole and fit is not None else picture

        edited, back = undo(edit_row), undo(source_row)
        shown_source = original or undo(reference)
        share = self._share(reference.size, fit, whole)
        if share is not None and self.shape is not None:
            figures["mask_coverage"] = round(float(share.mean(dtype=np.float64)), 4)
        if paste_back and share is not None:
            edited = _laid(edited, shown_source, share)
        if photo is not None:
            edited = photo.finish(edited)
        return EditResult(
            image=edited,
            reconstruction=back,
            source=shown_source,
            mask=None if share is None else Mask(share).image,
            report=figures,
            latents=self.latents,
        )

    def _share(self, size: tuple[int, int], fit: Fit | None, whole: bool) -> np.ndarray | None:
        """How much each pixel of the picture that is given back may change, [H, W] in [0, 1].

        Args:
            size: (width, height) that the model saw.
            fit: how the photo came to that size.
            whole: whether the picture is given back at the photo's size.
        """
        parts = []
        if self.mask is not None:
            shown = Image.fromarray((self.mask.numpy() * 255).astype(np.uint8))
            shown = shown.resize(size, Image.Resampling.NEAREST)
            if whole and fit is not None:
                shown = fit.undo(shown, Image.new("L", fit.original))
            parts.append((np.asarray(shown) > 127).astype(np.float32))
        if self.shape is not None:
            values = self.shape.values
            if fit is not None and not whole:
                values = np.array(fit.apply(Image.fromarray(values)))
            parts.append(values)
        return np.minimum.reduce(parts) if parts else None


def _laid(edited: Image.Image, photo: Image.Image, share: np.ndarray) -> Image.Image:
    """An edit laid into a photo: where ``share`` is 0 the photo's own pixels, bit for bit."""
    new, old = np.array(edited), np.array(photo)
    laid = np.where(share[..., None] >= 1, new, old)
    soft = (share > 0) & (share < 1)
    weight, before = share[soft][:, None], old[soft]
    laid[soft] = np.rint(before + weight * (new[soft].astype(np.float32) - before)).astype(np.uint8)
    return Image.fromarray(laid)
