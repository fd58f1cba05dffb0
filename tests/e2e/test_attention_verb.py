"""The verb attention as a user types it: its files, its numbers, its one-line errors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from p2p_real.pictures import read_settings

from .commands import FEW, RED_BALL, SOURCE, call, files_in, strict_json

ALWAYS = {"words.png", "time.png", "time.gif", "layers.png", "self.png", "maps.npz", "report.json"}
SHOWN = ["red", "ball", "wooden", "table", "noon"]


def numbers(folder: str | Path) -> dict[str, np.ndarray]:
    with np.load(Path(folder) / "maps.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_a_photo(cwd: Path) -> None:
    run = call("attention", RED_BALL, *FEW, "--out", "looks", "--json")
    assert (run.code, run.err) == (0, "")
    assert files_in(cwd) == {f"looks/{name}" for name in ALWAYS}
    report = run.json
    assert strict_json((cwd / "looks/report.json").read_text()) == report
    assert [row["word"] for row in report["words"]] == SHOWN
    assert {row["prompt"] for row in report["words"]} == {"source"}
    ball = report["words"][1]
    assert 0 < ball["mean"] < ball["most"] < 1
    assert 0.5 < ball["most_at"][0] < 0.9, "the ball lies right of the middle"
    assert 0.25 < ball["most_at"][1] < 0.7
    watched = report["watched"]
    assert watched["map_size"] == [16, 16]
    assert watched["steps"] == [0, 1, 2]
    assert {row["scale"] for row in watched["layers"]} == {1, 2, 4}
    hooked = report["controls"][0]["layers_hooked"]
    assert hooked["cross up 1/1"] == 2
    assert report["method"] == "direct"
    assert report["source"] == report["target"] == SOURCE
    assert report["seconds"] > 0
    for name, path in report["files"].items():
        assert (cwd / path).is_file(), name
    command = read_settings("looks/words.png")["command"]
    assert command["verb"] == "attention"
    assert command["options"]["steps"] == 3
    with Image.open("looks/time.gif") as film:
        assert film.n_frames == 3

    found = numbers("looks")
    assert found["words"].tolist() == SHOWN
    assert found["maps"].shape == (5, 16, 16)
    assert found["by_time"].shape == (3, 5, 16, 16)
    groups = len(watched["layers"])
    assert found["by_layer"].shape == (groups, 5, 16, 16)
    for name in ("places", "scales", "layer_counts", "layer_sizes"):
        assert len(found[name]) == groups
    assert found["self_components"].shape[1:] == (16, 16)
    assert 0 < found["self_shares"].sum() <= 1 + 1e-6
    np.testing.assert_allclose(found["by_time"].mean(0), found["maps"], atol=1e-6)
    np.testing.assert_allclose(found["maps"].sum(0) + found["rest"], 1, atol=1e-5)
    assert not [name for name in found if name.startswith("target")]
    inside = found["maps"][1][5:11, 8:14].mean()
    assert inside > 3 * found["maps"][1].mean(), "the word is seen where the ball is"


def test_an_edit(cwd: Path) -> None:
    run = call(
        "attention", RED_BALL, "--words", "red,ball", "--swap", "red=blue", "--local", "ball",
        *FEW, "--out", "e", "--json",
    )  # fmt: skip
    assert (run.code, run.err) == (0, "")
    assert files_in(cwd) == {f"e/{n}" for n in ALWAYS | {"alignment.png", "difference.png"}}
    report = run.json
    assert report["target"] == SOURCE.replace("red", "blue")
    assert 0 < report["mask_coverage"] < 1
    assert {c["control"] for c in report["controls"]} >= {"cross-attention", "attention maps"}
    rows = [(row["word"], row["prompt"]) for row in report["words"]]
    assert rows[:2] == [("red", "source"), ("blue", "target")]
    found = numbers("e")
    assert found["target_words"].tolist() == ["blue", "ball"]
    for name in ("maps", "by_time", "by_layer", "rest", "self_components", "self_shares"):
        assert found[f"target_{name}"].shape == found[name].shape
    matrix = found["alignment"]
    assert matrix.shape == (11, 11), "start, nine words, end"
    assert matrix[2, 2] == 1
    plain = call("edit", RED_BALL, "--swap", "red=blue", "--local", "ball", *FEW, "--json").json
    for name in ("mask_coverage", "reconstruction_psnr"):
        assert plain[name] == pytest.approx(report[name], abs=1e-3), "looking changed the edit"


def test_a_saved_inversion_shows_what_its_photo_shows(cwd: Path, saved: Path) -> None:
    words = ("--words", "ball,wooden table")
    assert call("attention", saved, *words, "--quiet", "--out", "a").code == 0
    assert call("attention", RED_BALL, "--source", SOURCE, *words, *FEW, "--out", "b").code == 0
    one, other = numbers("a"), numbers("b")
    assert one["words"].tolist() == ["ball", "wooden table"]
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name
    assert Path("a/words.png").stat().st_size == pytest.approx(
        Path("b/words.png").stat().st_size, rel=0.02
    )


def test_for_people(cwd: Path) -> None:
    run = call("attention", RED_BALL, "--source", SOURCE, "--words", "ball", "--steps", 2)
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == f"source  {SOURCE}"
    assert lines[1].split()[:3] == ["word", "mean", "most"]
    assert lines[2].split()[0] == "ball"
    assert "attention/words.png" in run.out
    assert "attention/maps.npz" in run.out


@pytest.mark.parametrize(
    ("photo", "fit"), [("odd.png", "resize"), ("alpha.png", "crop"), ("alpha.png", "pad")]
)
def test_photos_of_other_shapes(cwd: Path, photos: Path, photo: str, fit: str) -> None:
    run = call(
        "attention", photos / photo, "--source", SOURCE, "--words", "ball", "--add", "in the snow",
        "--fit", fit, "--steps", 2, "--quiet", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    size = Image.open(photos / photo).size
    assert run.json["maps_lie_on"]["original"] == list(size)
    assert run.json["maps_lie_on"]["mode"] == fit
    shown = 256 * size[0] / size[1]
    assert abs(Image.open("attention/words.png").width - 2 * shown) < 120


def test_less_memory_for_larger_maps(cwd: Path) -> None:
    small = ("--max-pixels", 64, "--words", "ball")
    run = call("attention", RED_BALL, "--source", SOURCE, *small, *FEW, "--json")
    assert run.code == 0
    assert run.json["watched"]["map_size"] == [8, 8]
    assert run.json["watched"]["self_map_size"] == [8, 8]
    assert numbers("attention")["maps"].shape == (1, 8, 8)


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "a word that is not there": (("--words", "cube"), "no word 'cube' in the prompt"),
    "a second one that is not there": (("--words", "ball#2"), "stands only 1 time"),
    "no word": (("--words", "ball,,table"), "with commas between"),
    "a word twice": (("--words", "ball,ball"), "twice"),
    "too small a map": (("--max-pixels", 3), "--max-pixels 3: give a whole number from 16"),
    "how to edit without an edit": (("--local", "ball"), "none is asked for"),
    "a word to excite without an edit": (("--excite", "ball"), "none is asked for"),
    "an edit of nothing": (("--swap", "red=red"), "changes nothing"),
    "a swap of a word that is not there": (("--swap", "cat=dog"), "no word 'cat'"),
    "no guidance": (("--guidance", 0), "does not read the prompts"),
    "no source": (("--source", " "), "--source is empty"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line(cwd: Path, wrong: str) -> None:
    options, said = WRONG[wrong]
    source = () if "--source" in options else ("--source", SOURCE)
    run = call("attention", RED_BALL, *source, *options, *FEW)
    line = run.line()
    assert line.startswith("p2p-real attention: ")
    assert said in line
    assert files_in(cwd) == set()


def test_files_that_are_wrong_are_one_line(cwd: Path, saved: Path) -> None:
    assert "there is no file nowhere.png" in call("attention", "nowhere.png", *FEW).line()
    Path("out").mkdir()
    Image.open(RED_BALL).save("out/words.png")
    run = call("attention", "out/words.png", "--out", "out", "--source", SOURCE, *FEW)
    assert "would be overwritten" in run.line()
    assert "belongs to the inversion" in call("attention", saved, "--method", "ddim").line()
    assert "was made for the prompt" in call("attention", saved, "--source", "a cat").line()
    assert "no word 'cube'" in call("attention", saved, "--words", "cube").line()


def test_a_word_is_missed_before_the_long_work(cwd: Path) -> None:
    """The caption is not known beforehand, but the inversion is not begun."""
    run = call("attention", RED_BALL, "--words", "cube", "--steps", 3)
    assert run.code == 2
    assert "no word 'cube'" in run.err
    assert "inversion" not in run.err


def test_help_teaches() -> None:
    run = call("attention", "--help")
    assert (run.code, run.err) == (0, "")
    assert "\n  p2p-real attention cat.jpg" in run.out
    module: Any = sys.modules["p2p_real.verbs.attention"]
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert all(action.help for action in parser._actions)
    for name in ALWAYS | {"alignment.png", "difference.png"}:
        assert name in run.out
