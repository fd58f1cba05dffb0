"""The verb compare: its files, what fails, and what a killed run leaves to the next."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import re
import signal
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inversion import inverters
from p2p_real import compare as package
from p2p_real.compare import CompareError, read_edits, read_methods
from p2p_real.compare.curves import chart
from p2p_real.compare.table import COSTS
from p2p_real.images import psnr
from p2p_real.metrics import ssim
from p2p_real.tabletop import PHOTOS

from .commands import call, start

BALL, MUG = PHOTOS / "red_ball.png", PHOTOS / "green_mug.png"
SOURCES = ("--source", "a red ball on a wooden table", "--source", "a red mug on tiles")
ASKED = (
    *("compare", BALL, MUG, *SOURCES, "--swap", "red=blue", "--steps", "3", "--no-cache"),
    *("--methods", "direct,null-text:inner_steps=1", "--quiet", "--json", "--no-local"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    run = call(*ASKED, "--out", folder)
    assert run.code == 0, run.err
    return folder, run.json


def table(folder: Path) -> list[dict[str, Any]]:
    """The rows of results.json without what a run costs."""
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k not in COSTS} for row in rows]


def cells(folder: Path) -> dict[str, int]:
    """The finished cells and when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "cells").glob("[!.]*.json")}


# --- what is there ---------------------------------------------------------------------------


def test_all_ways_of_the_table_say_the_same(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = whole
    saved = json.loads((folder / "results.json").read_text())
    lines = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    assert printed["rows"] == saved["rows"]
    assert printed["failed"] == 0
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == sorted(printed["files"])
    names = [(r["photo"], r["method"], r["edit"]) for r in saved["rows"]]
    methods = ["direct", "null-text:inner_steps=1"]
    assert names == [(p, m, "p2p") for p in ("red_ball", "green_mug") for m in methods]
    assert names == [(r["photo"], r["method"], r["edit"]) for r in lines]
    for row, line in zip(saved["rows"], lines, strict=True):
        assert row["status"] == "ok"
        for key in ("psnr", "ssim", "edit_psnr", "drift_max", "unet_forwards", "edit_seconds"):
            assert float(line[key]) == row[key]


def test_figures_are_those_of_the_pictures(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = whole
    photo = Image.open(BALL).convert("RGB")
    for row in printed["rows"][:2]:
        back = Image.open(folder / row["files"]["reconstruction"])
        edited = Image.open(folder / row["files"]["edited"])
        assert row["psnr"] == pytest.approx(psnr(back, photo))
        assert row["ssim"] == pytest.approx(ssim(back, photo))
        assert row["edit_psnr"] == pytest.approx(psnr(edited, photo))
        assert row["target"] == "a blue ball on a wooden table"
        assert np.asarray(edited).shape == (128, 128, 3)
    direct, null = printed["rows"][:2]
    assert direct["psnr"] == direct["ceiling_psnr"]
    assert direct["psnr_to_ceiling"] is None  # equal pictures
    assert direct["drift"] == [0, 0, 0, 0]
    assert null["drift"][3] == 0
    assert min(null["drift"][:3]) > 0
    assert null["drift_max"] == max(null["drift"])
    assert len(null["curves"]["losses"]) == 3
    assert null["unet_backwards"] > 0 == direct["unet_backwards"]
    assert direct["peak_memory_bytes"] > 2**20


class _Page(HTMLParser):
    """Checks that tags are closed in order, and gathers what matters."""

    VOID = ("meta", "img", "input", "line", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []  # type: ignore[list-item]
        self.links += [found["href"]] if found.get("href") else []  # type: ignore[list-item]
        self.pictures += [found["src"]] if found.get("src") else []  # type: ignore[list-item]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "line"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(folder: Path) -> _Page:
    text = (folder / "compare.html").read_text(encoding="utf-8")
    assert not re.search(
        r"(?i)https?:|//[a-z]+\.[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", text)
    )
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    return page


def test_the_page_is_whole_and_needs_no_network(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = whole
    page = read(folder)
    shown = set()
    for uri in page.pictures:
        assert uri.startswith("data:image/png;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
        shown.add(picture.tobytes())
    for row in printed["rows"]:
        for file in row["files"].values():
            assert Image.open(folder / file).convert("RGB").tobytes() in shown
    assert Image.open(BALL).convert("RGB").tobytes() in shown
    assert len(page.pictures) == 2 * (2 + 2 + 2)  # photo and ceiling, reconstructions, edits
    text = " ".join(page.words)
    for word in ("null-text:inner_steps=1", "a blue mug on tiles", "drift from the record"):
        assert word in text


def test_the_sheet_shows_all(whole: tuple[Path, dict[str, Any]]) -> None:
    sheet = Image.open(whole[0] / "compare.png")
    assert sheet.width > 4 * 256
    assert sheet.height > 4 * 256


# --- going on ---------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_table(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, wait = tmp_path / "out", np.random.default_rng().uniform(0, 0.6)
    kills = int(os.environ.get("P2P_KILLS", "2"))
    for least in np.linspace(1, 7 if kills > 2 else 3, kills).astype(int):  # of 8 cells
        process = start([*ASKED, "--out", out], tmp_path)
        end = time.monotonic() + 120
        while len(cells(out)) < least and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(wait)  # any moment: within a cell, a picture or a file
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert len(cells(out)) >= least
    before = cells(out)
    run = call(*ASKED, "--out", out)
    assert run.code == 0, run.err
    assert table(out) == table(whole[0]), wait
    assert before.items() <= cells(out).items()
    read(out)
    assert not [p for p in out.rglob("*.tmp") if p.parent == out]


def test_nothing_is_made_twice_and_nothing_wrong_is_reused(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    one = (*ASKED[:2], *ASKED[3:5], *ASKED[7:], "--methods", "direct", "--out", tmp_path)
    first = call(*one)
    assert first.code == 0, first.err
    before = cells(tmp_path)
    assert set(before) <= set(cells(whole[0]))  # a cell does not depend on what stands beside it
    assert call(*one).code == 0
    assert cells(tmp_path) == before
    # another window of the edit: the inversion stays, the edit is made
    other = call(*one, "--self-replace", "0.9")
    assert len(cells(tmp_path)) == 3
    assert other.json["rows"][0]["edit_psnr"] != first.json["rows"][0]["edit_psnr"]
    # outside a mask the photo's own pixels were asked for: every figure says equal
    local = [word for word in one if word != "--no-local"]
    pasted = call(*local, "--local", "ball", "--paste-back").json["rows"][0]
    assert pasted["region"] == "outside the mask"
    assert pasted["edit_psnr"] is None
    assert pasted["edit_ssim"] == pytest.approx(1, abs=1e-12)
    # a damaged picture is made again
    row = first.json["rows"][0]
    file = tmp_path / row["files"]["reconstruction"]
    good = file.read_bytes()
    file.write_bytes(good[:-20])
    again = call(*one)
    assert file.read_bytes() == good
    assert [again.json["rows"][0][k] for k in ("psnr", "edit_psnr")] == [
        row["psnr"],
        row["edit_psnr"],
    ]


# --- what fails -------------------------------------------------------------------------------


def test_a_failure_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of <memory>\nfor once")

    monkeypatch.setattr(inverters["null-text"], "invert", broken)
    asked = ("compare", BALL, *SOURCES[:2], "--steps", "2", "--no-cache", "--json", "--quiet")
    asked = (*asked, "--methods", "null-text,ddim", "--out", tmp_path)
    run = call(*asked, "--edits", "p2p,plain", "--weight", "red=2")
    assert run.code == 0, run.err
    rows = run.json["rows"]
    assert [r["status"] for r in rows] == ["failed", "failed", "ok", "failed"]
    assert run.json["failed"] == 3
    assert rows[0]["reason"] == "RuntimeError: out of <memory> for once"
    assert "Traceback" in rows[0]["traceback"]
    assert rows[3]["reason"].startswith("--weight belongs to p2p")
    assert rows[3]["psnr"] == rows[2]["psnr"]  # its inversion is there
    assert "null-text failed: RuntimeError: out of <memory> for once" in run.err
    assert "out of <memory>" in " ".join(read(tmp_path).words)
    # nothing but failures is no success, but the table is there
    run = call(*asked[:-4], "--methods", "null-text", "--out", tmp_path, "--swap", "red=blue")
    assert run.code == 2
    assert "every row failed" in run.err.splitlines()[-1]
    assert table(tmp_path)[0]["status"] == "failed"
    # made good again
    monkeypatch.undo()
    run = call(*asked)
    assert [r["status"] for r in run.json["rows"]] == ["ok", "ok"]
    assert [r["edit"] for r in run.json["rows"]] == ["", ""]
    assert "edit PSNR" not in " ".join(read(tmp_path).words)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--methods", "magic"), "no inversion method 'magic'"),
        (("--methods", "ddim,ddim"), "--methods: ddim is given twice"),
        (("--methods", "ddim,"), "--methods: a name is missing"),
        (("--methods", "null-text:inner_steps"), "give NAME:SETTING=VALUE"),
        (("--methods", "null-text:inner_steps=-1"), "inner_steps=-1 is out of range"),
        (("--edits", "p2p"), "--edits: say what to change"),
        (("--edits", "magic", "--swap", "red=blue"), "no edit method 'magic'"),
        (("--edits", "p2p", "--edit", "p2p", "--swap", "red=blue"), "give one of them"),
        (("--edits", "plain", "--self-replace", "0.1", "--swap", "red=blue"), "belongs to p2p"),
        (("--swap", "cat=dog", "--source", "a red ball"), "no word 'cat'"),
        (("--local", "ball"), "--local has nothing to act on"),
        ((BALL,), "the photo red_ball is given twice"),
        (("--source", "a", "--source", "b"), "1 photos and 2 source prompts"),
        (("none.png",), "there is no file none.png"),
    ],
)
def test_what_is_wrong_is_one_line(cwd: Path, argv: tuple[object, ...], said: str) -> None:
    assert said in call("compare", BALL, *argv, "--out", "out").line()
    assert list(cwd.iterdir()) == []


def test_no_input_is_overwritten(tmp_path: Path) -> None:
    photo = tmp_path / "compare.png"
    photo.write_bytes(BALL.read_bytes())
    assert "would be overwritten" in call("compare", photo, "--out", tmp_path).line()
    assert photo.read_bytes() == BALL.read_bytes()


# --- parts ------------------------------------------------------------------------------------


def test_lists_of_methods() -> None:
    assert [m.name for m in read_methods()] == list(inverters)
    first, second = read_methods("null-text:inner-steps=5:lr=0.1, ddim")
    assert first.resolved()["inner_steps"] == 5
    assert first.label == "null-text:inner_steps=5:lr=0.1"
    assert second.settings == {}
    assert read_edits("p2p,plain")[1].control({"cross_replace": 0.5}).cross_replace is None
    with pytest.raises(CompareError, match="twice"):
        read_methods("null-text,null-text:inner_steps=10")  # 10 is the default
    assert "compare" in package.__all__


def test_curves_have_round_ticks_and_gaps() -> None:
    svg = chart("drift", {"a<b": [0.0, None, 0.29, 0.1], "c": [math.inf, 0.1, 0.1]}, "level")
    assert svg.count("<polyline") == 3
    assert ">0.3</text>" in svg
    assert "a&lt;b" in svg
    assert chart("nothing", {"a": [None]}, "level") == ""
    log = chart("loss", {"a": [1.0, 1e-3, 2e-5]}, "step", first=1)
    assert ">1e-05</text>" in log
