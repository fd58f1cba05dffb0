"""Attend-and-Excite before and after: what is read of a picture, and the files of a run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from p2p_real.bench.excite import Read, excited_words, run, summarise
from p2p_real.bench.tabletop import TabletopError, two_object_scenes
from p2p_real.bench.tabletop.running import load_tabletop
from p2p_real.tabletop.scene import caption, parse_caption

SAID = "a red ball and a blue metal cube on the sand at noon"


@pytest.mark.parametrize(
    ("said", "two", "shapes", "right", "scene"),
    [
        (SAID, True, True, True, True),
        ("a blue metal cube and a red ball on the sand at noon", True, True, True, True),
        ("a blue ball and a red metal cube on the sand at night", True, True, False, False),
        ("a red ball and a red ball on the sand at noon", True, False, False, True),
        ("a red ball on the sand at noon", False, False, False, True),
        ("a red and blue thing", False, False, False, False),
    ],
)
def test_a_picture_is_held_to_its_prompt(
    said: str, two: bool, shapes: bool, right: bool, scene: bool
) -> None:
    assert Read.of(said, parse_caption(SAID)) == Read(said, two, shapes, right, scene)


def test_both_nouns_are_excited() -> None:
    assert excited_words(parse_caption(SAID)) == ["ball", "cube"]
    assert excited_words(parse_caption("a red ball and a blue ball on the sand")) == ["ball"]


def test_what_is_mended_and_spoiled_is_counted() -> None:
    def row(without: bool, with_: bool) -> dict[str, Any]:
        keys = ("right", "shapes", "two", "scene")
        read = {"without": without, "with": with_, "truth": True}
        figures = {f"{name}_{key}": value for name, value in read.items() for key in keys}
        return figures | dict.fromkeys(("moves", "refinements", "unet_rows", "seconds"), 1)

    found = summarise([row(False, True), row(False, True), row(True, False), row(True, True)])
    assert (found["without"]["right"][0], found["with"]["right"][0]) == (0.5, 0.75)
    assert found["gain"]["right"][0] == 0.25
    assert (found["mended"]["right"], found["spoiled"]["right"]) == (2, 1)


def test_a_run_and_its_files(tmp_path: Path) -> None:
    editor = load_tabletop()
    asked: dict[str, Any] = {"limit": 1, "guidance": "1,3", "steps": 2}
    made = run(tmp_path, load=lambda: editor, **asked)
    (record,) = two_object_scenes(1)
    low, high = made["rows"]
    assert (low["guidance_scale"], high["guidance_scale"]) == (1, 3)
    assert low["prompt"] == high["prompt"] == caption(record)
    assert low["moves"] > 0
    assert high["unet_rows"] > low["unet_rows"]
    lines = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8")))
    assert [line["with_said"] for line in lines] == [low["with_said"], high["with_said"]]
    assert "| 3 | mended |" in (tmp_path / "table.md").read_text()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > sheet.width / 2
    with Image.open(next((tmp_path / "cells").glob("excite-000-1-*-without.png"))) as drawn:
        alone = editor.generate(caption(record), steps=2, seed=0, guidance_scale=1.0)
        gap = np.asarray(drawn).astype(int) - np.asarray(alone.image).astype(int)
        assert abs(gap).max() <= 1  # of rounding: the pair is drawn in one batch
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    again = run(tmp_path, load=lambda: editor, **asked)
    assert again["rows"] == made["rows"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()} == times


def test_no_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TabletopError, match="--limit 0"):
        run(tmp_path / "out", limit=0)
    assert not (tmp_path / "out").exists()
