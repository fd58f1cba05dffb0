"""Running command lines, in this process or as their own, and looking at what they leave."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from p2p_real.cli import main
from p2p_real.tabletop import PHOTOS

ROOT = Path(__file__).resolve().parents[2]
RED_BALL = PHOTOS / "red_ball.png"
SOURCE = "a red ball on a wooden table at noon"
FEW = ("--steps", "3", "--quiet")


@dataclass(frozen=True)
class Run:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; NaN and Infinity are no JSON."""
        return strict_json(self.out)

    def line(self) -> str:
        """The one line on stderr of a command that the user got wrong."""
        assert self.code == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


def strict_json(text: str) -> dict[str, Any]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def call(*argv: object) -> Run:
    """A command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(a) for a in argv])
        except SystemExit as left:
            code = int(left.code or 0)
    return Run(code, out.getvalue(), err.getvalue())


def environment(cache: Path) -> dict[str, str]:
    """What a process of its own runs with."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
    }


def start(argv: Sequence[object], cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """A command line as a process."""
    command = [sys.executable, "-m", "p2p_real", *map(str, argv)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(cwd / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> Run:
    out, err = process.communicate(timeout=170)
    return Run(process.returncode, out, err)


def pixels(path: str | Path) -> np.ndarray:
    """A picture's RGB as numbers that can be subtracted."""
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def files_in(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
