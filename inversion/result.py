"""An inversion as data: made once, saved, edited many times.

One safetensors file: the trajectory and the method's tape as tensors, everything they came from as
a JSON header. A file is checked field by field when it is read; nothing else is ever executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .inverter import Inverter, inverters
from .schedule import PREDICTIONS, Level, Schedule

FORMAT = "p2p-real inversion 1"
SUFFIX = ".inv.safetensors"


class InversionError(ValueError):
    """A file is not an inversion, is damaged, or does not fit what it is used with."""


@dataclass(frozen=True)
class Inversion:
    """The recorded path of one photo.

    Args:
        trajectory: [S + 1, C, h, w] float32, level 0 = the photo's latents.
        tape: what the method recorded besides, each [S, ...].
        schedule: the sampling schedule of the record.
        method: name of the inversion method.
        settings: the method's settings.
        prompt: the photo's description.
        guidance_scale: the guidance the method was made for.
        model: name of the model.
        model_hash: hash of the model's weights.
        photo: ``sha256`` of the pixels, ``name``, ``size`` and ``fit`` (its place on the grid).
        extra: figures of the run (seconds, UNet rows, PSNR) and library versions.
        picture: [H, W, 3] uint8, the photo as it was put on the grid.
    """

    trajectory: Tensor
    tape: dict[str, Tensor]
    schedule: Schedule
    method: str
    settings: dict[str, Any]
    prompt: str
    guidance_scale: float
    model: str = ""
    model_hash: str = ""
    photo: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    picture: Tensor | None = None

    @property
    def steps(self) -> int:
        return len(self.schedule)

    @property
    def inverter(self) -> Inverter:
        """The method that made this, with its settings."""
        return inverters.create(self.method, **self.settings)

    def check_model(self, name: str, weights_hash: str) -> None:
        """Refuse another model's latents.

        Raises:
            InversionError: names both models.
        """
        if self.model_hash != weights_hash:
            raise InversionError(
                f"this inversion was made with model {self.model!r} (weights "
                f"{self.model_hash[:12]}), not with {name!r} ({weights_hash[:12]}): use "
                f"--model {self.model} or invert again"
            )

    def header(self) -> dict[str, Any]:
        """All fields but the tensors, as plain data."""
        data = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("trajectory", "tape", "schedule", "picture")
        }
        data["schedule"] = {
            "timesteps": list(self.schedule.timesteps),
            "starts": [list(v) for v in self.schedule.starts],
            "ends": [list(v) for v in self.schedule.ends],
            "prediction": self.schedule.prediction,
        }
        return data

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file; it appears whole or not at all.

        Returns:
            the path written.
        """
        path = Path(path)
        tensors = {f"tape/{k}": v for k, v in self.tape.items()} | {"trajectory": self.trajectory}
        if self.picture is not None:
            tensors["picture"] = self.picture
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        header = json.dumps(_plain(self.header()), sort_keys=True, allow_nan=False)
        meta = {"format": FORMAT, "header": header, "sha256": _digest(tensors, header)}
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        try:
            save_file(tensors, name, metadata=meta)
            _settle(name)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Inversion:
        """Read and check a file.

        Raises:
            InversionError: not a file, not an inversion, truncated, or changed since it was saved;
                names the file and the field.
        """
        path = Path(path)
        if not path.is_file():
            raise InversionError(f"{path}: no such inversion file")
        try:
            with safe_open(path, framework="pt") as f:
                meta = f.metadata() or {}
                if meta.get("format") != FORMAT:
                    raise InversionError(
                        f"{path}: not an inversion of this program (format "
                        f"{meta.get('format')!r}): make one with 'p2p-real invert'"
                    )
                tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
            header = json.loads(meta["header"])
            changed = meta["sha256"] != _digest(tensors, meta["header"])
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as e:
            raise InversionError(
                f"{path}: damaged or not a safetensors file ({e}): invert the photo again"
            ) from None
        found = _build(cls, path, header, tensors)
        if changed:
            raise InversionError(
                f"{path}: was changed since it was saved (its sha256 does not match "
                "its tensors and header): invert the photo again"
            )
        return found


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _settle(name: str) -> None:
    """Bring a temporary file to the disk, readable as the user's other files are."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)
    with open(name, "rb") as f:
        os.fsync(f.fileno())


def _digest(tensors: dict[str, Tensor], header: str) -> str:
    """Hash of the header and of the tensors' names, shapes and bytes."""
    h = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        t = tensors[name]
        h.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        h.update(t.contiguous().view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return h.hexdigest()


_TYPES: dict[str, type | tuple[type, ...]] = {
    "method": str,
    "settings": dict,
    "prompt": str,
    "guidance_scale": (int, float),
    "model": str,
    "model_hash": str,
    "photo": dict,
    "extra": dict,
    "schedule": dict,
}


def _build(cls: type[Inversion], path: Path, header: Any, tensors: dict[str, Tensor]) -> Inversion:
    """The inversion of a header and tensors, or an error that names the field."""

    def wrong(field: str, why: str) -> InversionError:
        return InversionError(f"{path}: field {field!r} {why}: invert the photo again")

    if not isinstance(header, dict):
        raise wrong("header", "is not an object")
    for name, kind in _TYPES.items():
        if name not in header:
            raise wrong(name, "is missing")
        if not isinstance(header[name], kind):
            raise wrong(name, f"has the wrong type ({type(header[name]).__name__})")
    raw = header["schedule"]
    try:
        schedule = Schedule(
            tuple(int(t) for t in raw["timesteps"]),
            tuple(Level(*map(float, v)) for v in raw["starts"]),
            tuple(Level(*map(float, v)) for v in raw["ends"]),
            raw["prediction"],
        )
        whole = len(schedule.starts) == len(schedule.ends) == len(schedule) > 0
    except (KeyError, TypeError, ValueError):
        raise wrong("schedule", "cannot be read") from None
    if not whole or schedule.prediction not in PREDICTIONS:
        raise wrong("schedule", "does not fit together")
    picture = tensors.pop("picture", None)
    if picture is not None and (picture.ndim != 3 or picture.dtype != torch.uint8):
        raise wrong("picture", "is not [H, W, 3] of bytes")
    path_tensor = tensors.pop("trajectory", None)
    if path_tensor is None or path_tensor.ndim != 4 or len(path_tensor) != len(schedule) + 1:
        raise wrong("trajectory", f"is not [{len(schedule) + 1}, C, h, w]")
    tape = {k.removeprefix("tape/"): v for k, v in tensors.items()}
    for name, value in tape.items():
        if len(value) != len(schedule):
            raise wrong(name, f"has {len(value)} rows for {len(schedule)} steps")
    if not all(torch.isfinite(v).all() for v in (path_tensor, *tape.values())):
        raise wrong("trajectory", "or the tape holds values that are not finite")
    try:
        inverters.create(header["method"], **header["settings"])
    except ValueError as e:
        raise wrong("method", f"cannot be used ({e})") from None
    return cls(
        trajectory=path_tensor,
        tape=tape,
        schedule=schedule,
        picture=picture,
        **{f: header[f] for f in _TYPES if f != "schedule"},
    )
