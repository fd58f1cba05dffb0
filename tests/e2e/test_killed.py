"""kill -9 at random moments: nothing half-written, and what was going on can be done again.

P2P_KILLS says how many times (once in an ordinary run of the tests).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from inversion import Inversion

from .commands import RED_BALL, ROOT, SOURCE, call

KILLS = int(os.environ.get("P2P_KILLS", "1"))
INVERT = (
    *("invert", RED_BALL, "--prompt", SOURCE, "--steps", 4, "--guidance", 5),
    *("--method", "null-text", "--method-option", "inner_steps=4", "--json", "--quiet"),
)


def environment(folder: Path) -> dict[str, str]:
    own = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return os.environ | own | {"OMP_NUM_THREADS": "1"}


def started(argv: tuple[object, ...], folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "p2p_real", *(str(a) for a in argv)]
    return subprocess.Popen(
        command,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )


def seconds_of(argv: tuple[object, ...], folder: Path) -> float:
    """How long an undisturbed run takes here and now."""
    begin = time.monotonic()
    assert started(argv, folder).wait(timeout=300) == 0
    return time.monotonic() - begin


def shown(folder: Path) -> set[str]:
    """Files that a person sees; a killed write may leave a hidden one."""
    return {p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


def test_a_killed_inversion_leaves_a_whole_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    length = seconds_of((*INVERT, "--out", "x.inv.safetensors"), whole)
    expected = Inversion.load(whole / "x.inv.safetensors")
    folder = tmp_path / "killed"
    folder.mkdir()
    killed = 0
    for _ in range(KILLS):
        process = started((*INVERT, "--out", "x.inv.safetensors"), folder)
        time.sleep(random.uniform(0.2, 1.0) * length)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        for name in shown(folder):
            if name.endswith(".inv.safetensors"):  # the result, or one in the cache
                file = next(folder.rglob(name))
                assert torch.equal(Inversion.load(file).trajectory, expected.trajectory)
    if not killed:
        pytest.skip("every run was done before it was killed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert call(*INVERT, "--out", folder / "x.inv.safetensors").code == 0
    made = Inversion.load(folder / "x.inv.safetensors")
    assert torch.equal(made.trajectory, expected.trajectory)
    assert torch.equal(made.tape["uncond"], expected.tape["uncond"])


def test_a_killed_edit_leaves_whole_pictures_or_none(tmp_path: Path) -> None:
    edit = ("edit", RED_BALL, "--source", SOURCE, "--swap", "red=blue", "--steps", 4, "--quiet")
    whole = tmp_path / "whole"
    whole.mkdir()
    length = seconds_of((*edit, "--out", "e"), whole)
    expected = {n: (whole / "e" / n).read_bytes() for n in shown(whole / "e") if n != "report.json"}
    folder = tmp_path / "killed"
    folder.mkdir()
    for _ in range(KILLS):
        process = started((*edit, "--out", "e"), folder)
        time.sleep(random.uniform(0.5, 1.0) * length)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        left = shown(folder / "e") if (folder / "e").exists() else set()
        for name in left & expected.keys():
            assert (folder / "e" / name).read_bytes() == expected[name], name
    assert call(*edit, "--out", folder / "e").code == 0
    assert expected.keys() <= shown(folder / "e")
