"""Making the environment of LAVIS: venv, pip, and a path to the libraries of this program.

LAVIS's whole list of requirements would bring a hundred packages for one model; captions need the
few that are named here. None is installed over a library of this program: the environment only
takes precedence over it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.captioner import CaptionerError
from captioning.lavis_environment import (
    MARK,
    POINTER,
    LavisEnvironment,
    base_versions,
    cache_folder,
    clean_environ,
    environment_folder,
    find_environment,
    python_in,
    trouble_with,
)

LAVIS = "salesforce-lavis==1.0.2"
_COMMON = ("timm==0.4.12", "fairscale==0.4.4", "omegaconf==2.4.0", "iopath==0.1.10")
PINS: Mapping[str, tuple[str, ...]] = {
    # what LAVIS was released with, as far as captions need it
    "own": (
        *_COMMON,
        "transformers==4.26.1",
        "numpy==1.26.4",
        "opencv-python-headless==4.5.5.64",
        "pandas==3.0.6; python_version >= '3.11'",
        "pandas==2.3.3; python_version < '3.11'",
    ),
    # the transformers and numpy of this program
    "current": (*_COMMON, "opencv-python-headless>=4.5.5", "pandas>=2.2"),
}
_BORROWED = ("torch", "transformers", "numpy", "PIL", "safetensors", "yaml", "tqdm")
_DAY = 24 * 3600
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}

Progress = Callable[[str, int, int, str], None]


def make_environment(
    folder: Path | None = None,
    pins: str = "current",
    progress: Progress | None = None,
) -> tuple[LavisEnvironment, bool]:
    """Makes the environment by venv and pip, or finds it there, whole and working.

    It is built beside its place and moved there when LAVIS can be imported in it, so that nothing
    half-made is ever taken for whole; the place is then what `environment_folder` says.

    Args:
        folder: where; None for `environment_folder`.
        pins: "own", the versions LAVIS was released with (Python 3.10 and 3.11 only), or
            "current", the transformers and numpy of this program.
        progress: called with what is done.

    Returns:
        The environment, and whether it was made now.

    Raises:
        CaptionerError: Says what failed.
    """
    tell = progress or (lambda stage, done, total, note: None)
    folder = Path(os.path.abspath(environment_folder() if folder is None else folder.expanduser()))
    if pins not in PINS:
        raise CaptionerError(f"there are no pins {pins!r}; there are: {', '.join(PINS)}")
    if pins == "own" and sys.version_info[:2] not in ((3, 10), (3, 11)):
        raise CaptionerError(
            "LAVIS's own pins are for Python 3.10 and 3.11 (no tokenizers 0.13.3 is built for "
            "later ones); take --lavis-pins current"
        )
    there = find_environment(folder)
    if there is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CaptionerError(
            f"{folder} is there and is no LAVIS environment; name another folder, or remove it"
        )
    if there is not None and (there.pins, there.base) == (pins, base_versions()):
        tell("the environment that is there", 0, 1, "")
        if trouble_with(there) is None:
            _remember(folder)
            tell("the environment that is there", 1, 1, "")
            return there, False
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        said = _build(part, pins, tell)
        (part / MARK).write_text(json.dumps(said, indent=2), encoding="utf-8")
        _put(part, folder)
        _remember(folder)
    except OSError as error:
        raise CaptionerError(
            f"the LAVIS environment cannot be made in {folder}: {error.strerror or error}"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return LavisEnvironment(folder=folder, **said), True


def _build(part: Path, pins: str, tell: Progress) -> dict[str, Any]:
    """Makes an environment and tries it; what its mark is to say."""
    start = time.perf_counter()
    tell("empty environment", 0, 1, "")
    list(_run([sys.executable, "-m", "venv", str(part)]))
    _borrow(part)
    before = _installed(part)
    tell("empty environment", 1, 1, "")
    fetched = _install(part, PINS[pins], tell)
    fetched += _install(part, (LAVIS,), tell, "--no-deps")
    tell("first import", 0, 1, "")
    trouble = trouble_with(LavisEnvironment(part, pins, {}))
    if trouble is not None:
        raise CaptionerError(f"the LAVIS environment was made, but {trouble}")
    tell("first import", 1, 1, "")
    return {
        "pins": pins,
        "base": base_versions(),
        "packages": {n: v for n, v in _installed(part).items() if before.get(n) != v},
        "seconds": round(time.perf_counter() - start, 1),
        "bytes": sum(f.lstat().st_size for f in part.rglob("*") if not f.is_dir()),
        "fetched_bytes": fetched,
    }


def _put(part: Path, folder: Path) -> None:
    """Moves a finished environment to its place, where an older one may stand."""
    old = part.with_suffix(".old")
    if folder.is_dir():
        os.replace(folder, old)
    try:
        os.replace(part, folder)
    except OSError:
        if old.is_dir():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what a making that was killed a day ago or longer left behind."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.suffix not in (".part", ".old"):
            continue
        if time.time() - left.stat().st_mtime > _DAY:
            shutil.rmtree(left, ignore_errors=True)


def _remember(folder: Path) -> None:
    """Lets `environment_folder` find it from now on."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    new = cache_folder() / f".{POINTER}.{uuid.uuid4().hex[:8]}.tmp"
    new.write_text(f"{folder}\n", encoding="utf-8")
    os.replace(new, cache_folder() / POINTER)


def _site(part: Path) -> Path:
    if os.name == "nt":
        return part / "Lib" / "site-packages"
    return next(part.glob("lib/python*/site-packages"))


def _borrow(part: Path) -> None:
    """Lets the environment see the libraries of this one, behind its own."""
    folders = []
    for name in _BORROWED:
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            folders.append(str(Path(found.origin).parent.parent))
    lines = "\n".join(dict.fromkeys(folders)) + "\n"
    (_site(part) / "p2p-real.pth").write_text(lines, encoding="utf-8")


def _installed(part: Path) -> dict[str, str]:
    """Name and version of each package in the environment itself."""
    found = importlib.metadata.distributions(path=[str(_site(part))])
    return dict(sorted((d.metadata["Name"], d.version) for d in found))


def _install(part: Path, wanted: Sequence[str], tell: Progress, *options: str) -> int:
    """Lets pip install into the environment; bytes of the packages it took."""
    torch = importlib.metadata.version("torch").partition("+")[0]
    vision = "torchvision==0.28.0" if torch == "2.13.0" else "torchvision"
    extra = () if "--no-deps" in options else (vision,)
    held = part / "constraints.txt"
    held.write_text(f"torch=={torch}\n", encoding="utf-8")  # another would bring gigabytes with it
    command = [str(python_in(part)), "-m", "pip", "install", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--no-input", "-c", str(held)]
    stage = "pip: " + ("LAVIS" if options else "libraries")
    done, total, fetched = 0, 2 * len(wanted), 0
    tell(stage, 0, total, "")
    with contextlib.closing(_run([*command, *options, *wanted, *extra])) as lines:
        for line in lines:
            fetched += bytes_of(line)
            if line.startswith(("Collecting", "Processing")) and done < total - 1:
                done += 1
                tell(stage, done, total, line.split()[1].rpartition("/")[2])
    tell(stage, total, total, "")
    return fetched


def _run(command: Sequence[str]) -> Generator[str, None, None]:
    """The lines of a command as they come; CaptionerError when it fails. Closed, it ends it."""
    process = subprocess.Popen(
        command,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            yield line
        code = process.wait()
    finally:
        process.stdout.close()
        if process.poll() is None:  # interrupted
            process.kill()
            process.wait()
    if code:
        what = "pip" if "pip" in command else "venv"
        raise CaptionerError(f"{what} could not make the LAVIS environment: {_reason(lines)}")


def bytes_of(line: str) -> int:
    """What a line of pip says was fetched; 0 for any other line."""
    found = re.match(r"\s*(?:Downloading|Using cached) (\S+) \(([\d.]+) (kB|MB|GB)\)", line)
    if found is not None and not found[1].endswith(".metadata"):
        return int(float(found[2]) * _UNITS[found[3]])
    local = re.match(r"\s*Processing (\S+\.(?:whl|gz|zip))", line)
    if local is not None and Path(local[1]).is_file():
        return Path(local[1]).stat().st_size
    return 0


def _reason(lines: Sequence[str]) -> str:
    """The first error among lines, or the last line."""
    errors: Iterator[str] = (line for line in lines if line.startswith(("ERROR", "Error")))
    return next(errors, next((line for line in reversed(lines) if line), "no word why"))[:300]
