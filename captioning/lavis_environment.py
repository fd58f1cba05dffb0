"""The environment in which LAVIS runs: a thin one of its own, laid over the one of this program.

LAVIS 1.0.2 asks for versions that cannot stand beside a current transformers, and for torchvision.
Both stay out of here: the environment takes torch and the rest from this one by a path, and adds
or overrides only what LAVIS needs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

WORKER = Path(__file__).with_name("lavis_worker.py")
MAKE = "p2p-real doctor --make-lavis-env"
MARK = "p2p-real-lavis.json"
POINTER = "lavis-env.txt"


@dataclass(frozen=True)
class LavisEnvironment:
    """An environment that was made to its end.

    Attributes:
        folder: where it lies.
        pins: "own" or "current".
        base: versions of this program's libraries when it was made.
        packages: what was installed into it, by name.
        seconds: that it took to make.
        bytes: on disk.
        fetched_bytes: of the packages as downloaded, from the network or a cache.
    """

    folder: Path
    pins: str
    base: Mapping[str, str]
    packages: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0
    fetched_bytes: int = 0

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return python_in(self.folder)


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/p2p-real``, or ``~/.cache/p2p-real``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "p2p-real"


def environment_folder() -> Path:
    """Where the environment is looked for: where it was last made, or ``lavis`` in the cache."""
    try:
        said = (cache_folder() / POINTER).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        said = ""
    return Path(said) if said else cache_folder() / "lavis"


def find_environment(folder: Path | None = None) -> LavisEnvironment | None:
    """The whole environment in a folder; None where there is none, or only half of one."""
    folder = environment_folder() if folder is None else folder
    try:
        said = json.loads((folder / MARK).read_text(encoding="utf-8"))
        found = LavisEnvironment(folder=folder, **said)
    except (OSError, ValueError, TypeError):
        return None
    return found if found.python.is_file() else None


def clean_environ() -> dict[str, str]:
    """The environment variables for a python of another environment, which asks no model hub."""
    drop = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return {**kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def trouble_with(found: LavisEnvironment, timeout: float = 300.0) -> str | None:
    """Imports LAVIS there: None when that works, or a line that says why not."""
    try:
        done = subprocess.run(
            [str(found.python), "-I", str(WORKER), "--check"],
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return f"importing LAVIS took more than {timeout:.0f} s"
    except OSError as error:
        return f"{found.python} cannot be run: {error.strerror or error}"
    try:
        answer = json.loads(done.stdout)
        why = None if answer.get("ready") is True else str(answer.get("error"))
    except (ValueError, AttributeError):
        why = _last_line(done.stderr) or f"its python ended with code {done.returncode}"
    return None if why is None else f"LAVIS cannot be imported there ({why})"


def base_versions() -> dict[str, str]:
    """Of the libraries that the environment takes from this one."""
    names = ("torch", "transformers", "numpy")
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, **{name: importlib.metadata.version(name) for name in names}}


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
