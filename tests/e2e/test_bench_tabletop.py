"""The verb `bench tabletop`: its files, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .commands import call, files_in

SHORT = ("bench", "tabletop", "--kinds", "material", "--per-kind", 1, "--steps", 2, "--quiet")


def test_one_edit_by_two_ways(cwd: Path) -> None:
    run = call(*SHORT, "--methods", "direct", "--edits", "p2p,plain", "--local", "both")
    assert run.code == 0, run.err
    assert "| direct, p2p local |" in run.out
    assert "| direct, plain |" in run.out
    files = {"results.csv", "table.md", "summary.json", "manifest.json", "plot.png", "sheet.png"}
    assert {f for f in files_in(cwd / "bench") if not f.startswith("cells/")} == files
    made = {f: f.stat().st_mtime_ns for f in (cwd / "bench/cells").iterdir()}
    again = call(*SHORT, "--methods", "direct", "--json", "--local", "both")
    assert again.code == 0, again.err
    found = again.json
    assert found["manifest"]["edits"] == 1
    assert found["summary"] == json.loads((cwd / "bench/summary.json").read_text())
    assert {f: f.stat().st_mtime_ns for f in made} == made


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--kinds", "colour,style"), "there are colour, object, material"),
        (("--per-kind", 0), "--per-kind 0"),
        (("--methods", "directly"), "did you mean 'direct'"),
        (("--guidance", "x"), "--guidance 'x'"),
        (("--processes", 0), "--processes 0"),
        (("--quick",), "--quick belongs to bench speed"),
        (("--model", "no/such/folder"), "no/such/folder"),
    ],
)
def test_bad_input(argv: tuple[object, ...], why: str, cwd: Path) -> None:
    assert why in call("bench", "tabletop", *argv, "--out", "out").line()
    assert not (cwd / "out").exists()


def test_speed_takes_no_option_of_tabletop(cwd: Path) -> None:
    assert "--per-kind belongs to bench tabletop" in call("bench", "speed", "--per-kind", 3).line()


def test_two_objects_without_and_with_excitement(cwd: Path) -> None:
    run = call("bench", "excite", "--limit", 1, "--steps", 2, "--guidance", 1, "--quiet")
    assert run.code == 0, run.err
    assert "| 1 | without |" in run.out
    assert "| 1 | with |" in run.out
    files = {"results.csv", "table.md", "summary.json", "manifest.json", "sheet.png"}
    assert {f for f in files_in(cwd / "bench") if not f.startswith("cells/")} == files
    assert "--limit 0" in call("bench", "excite", "--limit", 0).line()
    assert "--edits belongs to bench" in call("bench", "excite", "--edits", "p2p").line()
