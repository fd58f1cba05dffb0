"""The bench of auto-edit: its own verdict is held to the readers', and a second run goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from captioning.instructions import parse_instruction
from p2p_real.auto.asked import Asked
from p2p_real.auto.results import COULD_NOT, DONE, SKIPPED, skipped
from p2p_real.bench.auto import NAMES, judged, run, summarise, table
from p2p_real.bench.tabletop import TabletopError
from p2p_real.bench.tabletop.instructions import instruction_of
from p2p_real.bench.tabletop.truths import truth_set


def row(kind: str, end: str, right: bool, *, first: bool | None = None) -> dict[str, Any]:
    retried = first is not None
    return {
        "kind": kind,
        "end": end,
        "done": end == DONE,
        "done_again": False,
        "could_not": end == COULD_NOT,
        "skipped": end == SKIPPED,
        "retried": retried,
        "right": right,
        "asked": right,
        "caption_right": True,
        "first_right": right if first is None else first,
        **({} if end == SKIPPED else {"psnr_outside": 30.0, "unet_rows": 40, "seconds": 1.0}),
        **({} if end == SKIPPED else {"saved": retried and right and not first}),
        **({} if end == SKIPPED else {"false_alarm": end == COULD_NOT and right}),
        **({} if end == SKIPPED else {"missed": end == DONE and not right}),
    }


def test_figures_by_kind() -> None:
    rows = [
        row("colour", DONE, True),
        row("colour", DONE, False),
        row("remove", COULD_NOT, True, first=False),
        row("remove", SKIPPED, False),
    ]
    found = summarise(rows)
    whole = found["all"]
    assert whole["count"] == 4
    assert whole["ends"] == {DONE: 2, "done after a retry": 0, COULD_NOT: 1, SKIPPED: 1}
    assert whole["right"][0] == 0.5
    assert [whole[f"{k}_count"] for k in ("saved", "false_alarm", "missed")] == [1, 1, 1]
    assert whole["psnr_outside"][0] == 30.0  # of those that have a picture
    assert found["colour"]["missed_count"] == 1
    settings = {
        "seed": 1,
        "steps": 2,
        "device": "cpu",
        "dtype": "float32",
        "truth_right": [1, 1, 1],
    }
    text = table(found, settings)
    assert 'Of 1 that ended in "could not", 0 are truly not right; of 2 called done, 1 are' in text
    assert "| remove | 0 | 0 | 1 | 1 | 1 | 1 |" in text


def test_a_bench_of_which_every_photo_is_skipped_has_a_table() -> None:
    (truth,) = truth_set("colour", per_kind=1, limit=1)
    text = instruction_of(truth)
    one = Asked(truth.photo, truth.id, text, parse_instruction(text))
    made = judged(skipped(one, "it names no cup"), truth, None, None)  # type: ignore[arg-type]
    settings = {"seed": 1, "steps": 2, "device": "cpu", "dtype": "float32", "truth_right": [1] * 3}
    found = table(summarise([made]), settings)
    assert "| all | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0 |" in found
    assert 'Of 0 that ended in "could not", 0 are truly not right' in found


def test_a_run_and_its_second(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"kinds": "colour", "limit": 1, "seed": 3, "steps": 2}
    first = run(tmp_path, **asked)
    assert {f.name for f in tmp_path.iterdir()} == {*NAMES, "cells"}
    (line,) = csv.DictReader((tmp_path / "results.csv").open())
    assert line["id"] == "colour-000"
    assert line["source"] == line["source"].lower() != ""
    made = {f: f.stat().st_mtime_ns for f in (tmp_path / "cells").iterdir()}
    again = run(tmp_path, **asked)
    assert {f: f.stat().st_mtime_ns for f in made} == made
    assert again["summary"] == first["summary"]
    assert json.loads((tmp_path / "summary.json").read_text()) == first["summary"]


def test_numbers_that_make_no_bench(tmp_path: Path) -> None:
    with pytest.raises(TabletopError, match="--limit 0"):
        run(tmp_path / "out", limit=0)
    assert not (tmp_path / "out").exists()
