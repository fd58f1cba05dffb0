"""The same mistakes as processes of their own, full disks and kills included."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .commands import RED_BALL, SOURCE, Run, files_in, finish, start

SAID = ("--source", SOURCE, "--swap", "red=blue")
FEW = ("--steps", "3")


def two_at_a_time(commands: Sequence[Sequence[object]], cwd: Path) -> list[Run]:
    """All command lines, two running at any time."""
    runs = []
    for i in range(0, len(commands), 2):
        runs += [finish(p) for p in [start(c, cwd) for c in commands[i : i + 2]]]
    return runs


def test_fourteen_kinds(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(RED_BALL.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("words")
    data = bytearray(saved.read_bytes())
    data[-9] ^= 1
    (tmp_path / "bad.inv.safetensors").write_bytes(data)
    edit = ("edit", RED_BALL)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("edit", "none.png", *SAID), "p2p-real edit: there is no file none.png; check the name"),
        (("invert", tmp_path), "is a folder; name the picture inside it"),
        (("caption", "empty.png"), "p2p-real caption: empty.png is empty (0 bytes)"),
        (("edit", "cut.png", *SAID), "cut.png is cut short"),
        (("edit", "text.png", *SAID), "text.png is text, not a picture"),
        ((*edit, *SAID, "--target", ""), "the target prompt is empty"),
        ((*edit, "--source", SOURCE, "--swap", "cat=dog"), "no word 'cat' in the prompt"),
        ((*edit, "--source", SOURCE, "--target", SOURCE), "equals the source prompt"),
        ((*edit, *SAID, "--steps", 1001), "--steps 1001: give a whole number from 1 to 1000"),
        ((*edit, *SAID, "--guidance", "nan"), "--guidance nan: give a number from 0 to 100"),
        ((*edit, *SAID, "--model", "sd9"), "unknown model 'sd9'; did you mean 'sdxl'?"),
        ((*edit, *SAID, "--method", "magic"), "no inversion method 'magic'"),
        (("edit", "bad.inv.safetensors", "--swap", "red=blue"), "bad.inv.safetensors: "),
        (("tokens", "ball " * 80), "tokens, the model reads 75: shorten it"),
    ]
    before = files_in(tmp_path)
    runs = two_at_a_time([argv for argv, _ in cases], tmp_path)
    for run, (argv, said) in zip(runs, cases, strict=True):
        assert said in run.line(), argv
        assert run.line().startswith(f"p2p-real {argv[0]}: ")
    assert files_in(tmp_path) == before


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 24 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("a file system can only be mounted by root; see the test by file size")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(little_disk: Path, tmp_path: Path, saved: Path) -> None:
    out = little_disk / "out"
    edit = start(["edit", saved, "--swap", "red=blue", "--out", out, "--quiet"], tmp_path)
    to = little_disk / "x.inv.safetensors"
    invert = start(["invert", RED_BALL, "--prompt", SOURCE, *FEW, "--quiet", "--out", to], tmp_path)
    line = finish(edit).line()
    assert f"cannot write {out}/" in line
    assert "the disk is full; make room or choose another folder" in line
    line = finish(invert).line()
    assert f"cannot write {to}: " in line
    assert "make room or choose another folder" in line
    assert files_in(little_disk) == set()


def limited() -> None:
    """At most 20 kB a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.skipif(sys.platform != "linux", reason="SIGXFSZ is ignored by Python on Linux")
def test_a_limit_on_file_sizes(tmp_path: Path, saved: Path) -> None:
    old = tmp_path / "out"
    old.mkdir()
    (old / "edited.png").write_text("before")
    edit = start(["edit", saved, "--swap", "red=blue", "--quiet"], tmp_path, preexec_fn=limited)
    argv = ["invert", RED_BALL, "--prompt", SOURCE, *FEW, "--quiet", "--no-cache"]
    invert = start([*argv, "--out", "x.inv.safetensors"], tmp_path, preexec_fn=limited)
    assert "cannot write out/strip.png: " in finish(edit).line()
    assert "cannot write x.inv.safetensors: " in finish(invert).line()
    assert files_in(tmp_path) == {"out/edited.png"}
    assert (old / "edited.png").read_text() == "before"


def until(process: subprocess.Popen[str], stage: str) -> None:
    """Wait until a process shows on stderr that it is in a stage."""
    assert process.stderr is not None
    seen, end = "", time.monotonic() + 100
    while stage not in seen:
        ready, _, _ = select.select([process.stderr], [], [], end - time.monotonic())
        more = os.read(process.stderr.fileno(), 1000).decode() if ready else ""
        if not more:
            process.kill()
            raise AssertionError(f"no {stage!r} in {seen!r}")
        seen += more


def test_killed_or_interrupted_in_the_middle(tmp_path: Path) -> None:
    killed = start(["edit", RED_BALL, "--steps", 400, *SAID], tmp_path)
    # a suite that runs in the background is deaf to interrupts, and its children would be too
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    stopped = start(["invert", RED_BALL, "--steps", 400, "--prompt", SOURCE], tmp_path, **heard)
    until(killed, "ddim inversion")
    killed.kill()
    killed.communicate()
    until(stopped, "ddim inversion")
    stopped.send_signal(signal.SIGINT)
    run = finish(stopped)
    assert run.code == 130
    assert run.err.splitlines()[-1].endswith("interrupted; nothing half-written is left")
    assert "Traceback" not in run.err
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(p.name.startswith(".") and p.suffix == ".tmp" for p in left), left


def test_a_closed_pipe_is_no_failure(tmp_path: Path) -> None:
    process = start(["methods"], tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0
