"""A thing by its name: GroundingDINO finds its boxes, SAM outlines what is in them.

Papers: Grounding DINO (arXiv 2303.05499), Segment Anything (arXiv 2304.02643); the chain is that of
Grounded SAM (arXiv 2401.14159). Both are read by transformers' own classes from folders or hub ids
that the user names; nothing of them is shipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from inversion.registry import setting

from ...backbones.folder import quiet_bars
from ..grammar import MaskError
from ..source import MaskSource, Subject, mask_sources

EXAMPLE = "IDEA-Research/grounding-dino-tiny,facebook/sam-vit-base"
KINDS = ("grounding-dino", "sam")


@mask_sources.register("segment")
class Segment(MaskSource):
    """What a detector and a segmenter find under a name."""

    paper = "Grounding DINO, arXiv 2303.05499; Segment Anything, arXiv 2304.02643"
    about = "what to look for, in words of its own (several: cat. dog)"

    models: str = setting("", "DINO,SAM: folders or hub ids of the two checkpoints")
    box_threshold: float = setting(0.3, "how sure the detector must be of a box", low=0, high=1)

    def check(
        self, text: str, *, sizes: tuple[tuple[int, int], ...] = (), source: str | None = None
    ) -> None:
        if not text.strip(" ."):
            raise MaskError("segment: say what to look for, such as segment:red ball")
        self.names()

    def names(self) -> tuple[str, str]:
        """The detector and the segmenter.

        Raises:
            MaskError: not two, a folder that is not there, or one of another kind of model.
        """
        given = [part.strip() for part in self.models.split(",")]
        if len(given) != 2 or not all(given):
            raise MaskError(
                "segment needs a GroundingDINO and a SAM, which are not part of this program: give "
                f"--segment-models DINO,SAM, two folders or hub ids such as {EXAMPLE}"
            )
        for name, kind in zip(given, KINDS, strict=True):
            _check_model(name, kind)
        return given[0], given[1]

    def read(self, text: str, subject: Subject) -> np.ndarray:
        detector, segmenter = self.names()
        picture = subject.picture().convert("RGB")
        device = subject.backbone.device
        boxes = find_boxes(picture, text, detector, self.box_threshold, device)
        subject.progress("segmenting", 1, 2)
        values = np.zeros((picture.height, picture.width), np.float32)
        if len(boxes):
            values = outline(picture, boxes, segmenter, device)
        subject.progress("segmenting", 2, 2)
        return values


def _check_model(name: str, kind: str) -> None:
    """Refuse a folder that is not there or holds another model, and what can be no hub id."""
    folder = Path(name).expanduser()
    if not folder.exists():
        if name.startswith(("/", ".", "~")) or name.count("/") != 1 or "\\" in name:
            raise MaskError(
                f"--segment-models: there is no folder {name}; give two folders or hub ids such as "
                f"{EXAMPLE}"
            )
        return
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MaskError(f"--segment-models: {name} is no folder of a transformers model") from None
    if found != kind:
        raise MaskError(f"--segment-models: {name} holds a {found!r} model where {kind!r} belongs")


def _class(name: str) -> Any:
    """An image processor that needs no torchvision: under its own name in transformers 5."""
    import transformers

    own = getattr(transformers, f"{name}Pil", None)
    return own if own is not None else getattr(transformers, name)


def _load(cls: Any, name: str, **more: Any) -> Any:
    """A part of a checkpoint, from its folder or from the hub.

    Raises:
        MaskError: it cannot be had.
    """
    folder = Path(name).expanduser()
    local = folder.exists()
    where = str(folder) if local else name
    try:
        with quiet_bars():
            return cls.from_pretrained(where, local_files_only=local, **more)
    except Exception as error:  # transformers raises anything from OSError to SafetensorError
        reason = " ".join(str(error).split())[:200]
        remedy = (
            "is the folder complete?" if local else "is the network there? Else give a local folder"
        )
        raise MaskError(f"--segment-models: cannot load {name}: {remedy} ({reason})") from error


def _model(cls: Any, name: str, device: torch.device) -> Any:
    model = _load(cls, name, dtype=torch.float32, use_safetensors=True)
    return model.to(device).eval()


@torch.no_grad()
def find_boxes(
    picture: Image.Image, text: str, name: str, threshold: float, device: torch.device
) -> torch.Tensor:
    """Boxes [M, 4] (x0, y0, x1, y1 in pixels) of what GroundingDINO finds under a name.

    Its text is in lower case and ends in a dot, as the model was trained.
    """
    import transformers

    processor = transformers.GroundingDinoProcessor(
        _load(_class("GroundingDinoImageProcessor"), name), _load(transformers.AutoTokenizer, name)
    )
    model = _model(transformers.GroundingDinoForObjectDetection, name, device)
    asked = text.strip().lower().rstrip(".") + "."
    inputs = processor(images=picture, text=asked, return_tensors="pt").to(device)
    found = processor.post_process_grounded_object_detection(
        model(**inputs),
        inputs["input_ids"],
        threshold=threshold,
        target_sizes=[(picture.height, picture.width)],
    )[0]
    return found["boxes"].float().cpu()


@torch.no_grad()
def outline(
    picture: Image.Image, boxes: torch.Tensor, name: str, device: torch.device
) -> np.ndarray:
    """The union of what SAM outlines in boxes [M, 4] of a picture, [H, W] in {0, 1}."""
    import transformers

    processor = _load(_class("SamImageProcessor"), name)
    model = _model(transformers.SamModel, name, device)
    image = processor(picture, return_tensors="pt")
    height, width = (int(v) for v in image["reshaped_input_sizes"][0])
    scale = torch.tensor([width / picture.width, height / picture.height] * 2)
    limit = torch.tensor([width, height] * 2)
    there = torch.minimum((boxes * scale).clamp(min=0), limit)
    masks = model(
        pixel_values=image["pixel_values"].to(device),
        input_boxes=there[None].to(device),
        multimask_output=False,
    ).pred_masks
    full = processor.post_process_masks(
        masks.cpu(), image["original_sizes"], image["reshaped_input_sizes"]
    )[0]  # [M, 1, H, W]
    return full.flatten(0, 1).any(0).numpy().astype(np.float32)
