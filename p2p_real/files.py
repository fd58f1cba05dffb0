"""Files written whole or not at all, and folders that are known to be writable."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class OutputError(ValueError):
    """Something cannot be written; the message is one line that says where and why."""


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to, which takes its place only when the block ends well.

    The bytes go to a hidden file in the same folder and are moved over `path` at the end: nobody
    ever sees half a file, and what stood there before stays if anything fails.

    Raises:
        OutputError: The folder is missing, not writable or full, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write")
    hidden = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        stream = hidden.open("xb")
    except OSError as error:
        raise OutputError(_why(path, error)) from None
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(hidden, path)
    except OSError as error:
        raise OutputError(_why(path, error)) from None
    finally:
        hidden.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text atomically; OutputError as `atomic_file`."""
    data = text.encode("utf-8")
    with atomic_file(path) as stream:
        stream.write(data)


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Writes an object as strict, indented JSON atomically; see `plain` for what it takes."""
    write_text(path, json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(obj: Any) -> Any:
    """An object as JSON knows it.

    Dataclasses become objects, tuples and sets lists, paths strings, one-element arrays and
    tensors numbers, other arrays lists; a number that is not finite becomes null, because JSON
    has no word for it.

    Raises:
        TypeError: Something else.
    """
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, set | frozenset):
        return sorted(plain(value) for value in obj)
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):  # numpy and torch, without importing either
        return plain(obj.tolist())
    raise TypeError(f"cannot write {type(obj).__name__} as JSON: {obj!r}")


def check_output_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder, parents included, and proves that it can be written to.

    Returns:
        The folder.

    Raises:
        OutputError: It is a file, cannot be made, or a small file cannot be written into it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputError(
            f"{folder} cannot be the output folder: it, or a part of its path, is a file"
        ) from None
    except (OSError, ValueError) as error:
        raise OutputError(_why(folder, error)) from None
    probe = folder / f".probe.{uuid.uuid4().hex[:8]}.tmp"
    try:
        probe.write_bytes(b"p2p-real")
    except OSError as error:
        raise OutputError(_why(folder, error)) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return folder


def _why(path: Path, error: OSError | ValueError) -> str:
    """One line about a failed write, with what to do."""
    code = getattr(error, "errno", None)
    if code == errno.ENOENT:
        return f"cannot write {path}: the folder {path.parent} does not exist; make it first"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write {path}: it is not allowed there; choose another folder"
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write {path}: the disk is full; make room or choose another folder"
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"cannot write {path}: {reason}"
