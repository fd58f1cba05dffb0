"""The verb auto: a folder with an unreadable photo, going on, a dry run, and its error lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from p2p_real import Editor
from p2p_real.auto.results import ENDS
from p2p_real.pictures import read_settings
from p2p_real.tabletop import PHOTOS

from .commands import FEW, RED_BALL, SOURCE, Run, call, files_in, pixels

QUICK = (*FEW, "--method", "direct", "--no-cache")


@pytest.fixture
def folder(cwd: Path) -> Path:
    """Two photos and something else."""
    place = cwd / "photos"
    place.mkdir()
    for name in ("red_ball", "green_mug"):
        shutil.copy(PHOTOS / f"{name}.png", place)
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture at all")
    return place


def times(out: Path) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns for f in (out / "cells").iterdir()}


def test_a_folder(folder: Path, cwd: Path) -> None:
    argv = ("auto", folder, "--do", "make the ball blue", *QUICK, "--out", "out")
    first = call(*argv)
    assert first.code == 0, first.err
    report: dict[str, Any] = json.loads(Path("out/report.json").read_text())
    broken, mug, ball = report["photos"]
    assert (broken["end"], mug["end"]) == ("skipped", "skipped")
    assert "broken.jpg" in broken["why"]
    assert "ball" in mug["why"]
    assert ball["end"] in ENDS[:3]
    assert ball["understood"]["target"] == "a blue ball on a wooden table at noon"
    assert [t["number"] for t in ball["tries"]] == list(range(1, len(ball["tries"]) + 1))
    for one in ball["tries"]:
        assert {"acted", "kept", "said"} <= set(one["check"])
    edited = Path(ball["files"]["edited"])
    assert edited.name == ("red_ball.could-not.png" if ball["end"] == ENDS[2] else "red_ball.png")
    assert (pixels(edited) != pixels(folder / "red_ball.png")).any()
    assert read_settings(edited)["command"]["options"]["do"] == "make the ball blue"
    assert {f for f in files_in(cwd / "out") if not f.startswith("cells/")} == {
        edited.name,
        "sheet.png",
        "report.json",
    }
    assert first.out.splitlines()[-1].startswith("3 photos: ")
    assert "2 skipped" in first.out.splitlines()[-1]
    made = times(cwd / "out")
    again = call(*argv, "--json")
    assert again.json["photos"][2]["from_cache"] is True
    assert again.json["summary"] == report["summary"]
    assert times(cwd / "out") == made


def test_one_photo_gets_the_files_of_an_edit(cwd: Path) -> None:
    done = call(
        *("auto", RED_BALL, "--do", "at night", "--caption", SOURCE, "--no-retry", *QUICK),
        *("--out", "out", "--json"),
    )
    assert done.code == 0, done.err
    (row,) = done.json["photos"]
    assert len(row["tries"]) == 1
    assert row["caption_given"] == SOURCE
    made = {f for f in files_in(cwd / "out") if not f.startswith("cells/")}
    assert made == {"edited.png", "reconstruction.png", "strip.png", "report.json"}


def test_what_the_model_does_not_know_could_not_be_done(cwd: Path) -> None:
    done = call("auto", RED_BALL, "--do", "as a watercolour", *QUICK, "--out", "out")
    assert done.code == 0, done.err  # the captioner of the small world has no such word
    assert done.out.splitlines()[-1] == "1 photo: 1 could not"
    (row,) = json.loads(Path("out/report.json").read_text())["photos"]
    first, second = row["tries"]
    assert "said" in first["check"]["failed"]
    assert "the change is not there" in second["because"]
    assert (first["direction"], second["direction"]) == (None, "photo -> watercolour")
    assert Path("out/edited.png").is_file()
    assert Path("out/other.png").is_file()


def test_the_editor_does_the_same(cwd: Path) -> None:
    editor = Editor.load("tabletop", cache=False)
    asked: dict[str, Any] = {"steps": 3, "method": "direct", "retry": False}
    (result,) = editor.auto([RED_BALL], "make the ball blue", **asked)
    assert result.image is not None
    assert result.image.size == result.source.size
    done = call(
        *("auto", RED_BALL, "--do", "make the ball blue", "--no-retry", *QUICK),
        *("--out", "out", "--json"),
    )
    assert (pixels("out/edited.png") == pixels_of(result)).all()
    assert done.json["photos"][0]["why"] == result.report["why"]
    assert not list(cwd.glob("cells"))


def pixels_of(result: Any) -> Any:
    result.image.save("given.png")
    return pixels("given.png")


def test_a_dry_run_writes_nothing(folder: Path, cwd: Path) -> None:
    before = files_in(cwd)
    done = call("auto", folder, "--do", "make it blue", "--dry-run", "--quiet")
    assert done.code == 0, done.err
    assert "a blue mug on a tiled floor at noon" in done.out
    assert 'words:"mug"' in done.out
    assert "broken.jpg" in done.out
    assert files_in(cwd) == before
    jobs = cwd / "jobs.csv"
    jobs.write_text("photos/red_ball.png,at night\nphotos/green_mug.png,remove the mug\n")
    report = call("auto", "--do-file", jobs, "--dry-run", "--json", "--caption", SOURCE).json
    night, mug = report["photos"]
    assert night["understood"]["target"] == "a red ball on a wooden table at night"
    assert "'mug'" in mug["why"]
    ball = ("photos/red_ball.png", "--dry-run", "--caption", SOURCE)
    once = call("auto", *ball, "--do", "make it blue", "--no-retry", "--json").json
    assert list(once["photos"][0]["tries"]) == ["first"]
    assert "--batch 0" in refused(*ball, "--do", "make it blue", "--batch", 0)
    assert "'mug'" in refused(*ball, "--do", "remove the mug")


def refused(*argv: object) -> str:
    run: Run = call("auto", *argv, "--quiet")
    return run.line()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((RED_BALL,), "give --do"),
        ((), "give --do"),
        (("--do", "at night"), "no photo given"),
        (("gone.png", "--do", "at night"), "there is no file gone.png"),
        (("empty", "--do", "at night"), "empty holds no picture"),
        ((RED_BALL, "--do", "qwerty asdf zxcv"), "qwerty asdf zxcv"),
        ((RED_BALL, "--do", "at night", "--do-file", "x.csv"), "leave PHOTO and --do out"),
        (("--do-file", "gone.csv"), "gone.csv: cannot be read"),
        ((RED_BALL, "--do", "at night", "--caption", " "), "caption is empty"),
        ((RED_BALL, "--do", "at night", "--batch", 0), "--batch 0"),
        ((RED_BALL, "--do", "at night", "--method", "directly"), "did you mean 'direct'"),
        ((RED_BALL, "--do", "remove the mug", "--caption", SOURCE, *QUICK), "'mug'"),
    ],
)
def test_error_lines(argv: tuple[object, ...], said: str, cwd: Path) -> None:
    (cwd / "empty").mkdir()
    assert said in refused(*argv)
    assert not [f for f in files_in(cwd) if f.endswith(".png")]


def test_a_result_never_takes_a_photos_place(folder: Path) -> None:
    said = refused(folder, "--do", "make it blue", "--out", folder)
    assert "would be overwritten" in said
