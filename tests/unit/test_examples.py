"""The examples run as they stand, few steps, and write what they say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = {
    "01_edit_a_photo.py": (["--steps", "4"], ["01_edit.png"]),
    "02_invert_once_edit_often.py": (
        ["--steps", "3"],
        ["02_many.png", "02_photo.inv.safetensors"],
    ),
    "03_reweight_a_word.py": (["--steps", "3", "--weights", "-1", "3"], ["03_weights.png"]),
    "04_compare_inversions.py": (["--steps", "3"], ["04_inversions.png"]),
    "06_against_truth.py": (["--steps", "3", "--count", "1"], []),
    "07_tutorial.py": (
        ["--only", "colour", "--options=--steps 3", "--pictures", "made"],
        ["made/colour.png", "runs/colour/edited.png"],
    ),
    "08_masks_against_truth.py": (["--steps", "3", "--count", "3"], []),
}


@pytest.mark.parametrize("name", RUNS)
def test_example(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    options, files = RUNS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out.strip()
    for file in files:
        assert (tmp_path / file).stat().st_size > 0
        if file.endswith(".png") and "edited" not in file:
            with Image.open(tmp_path / file) as picture:
                assert picture.width > 2 * 256


def test_a_new_inversion_is_one_registration(capsys) -> None:
    from inversion import inverters
    from p2p_real import Editor
    from p2p_real.tabletop import PHOTOS

    try:
        runpy.run_path(str(EXAMPLES / "05_your_own_inversion.py"), run_name="example")
        assert "two-times" in list(inverters)
        editor = Editor.load("tabletop", cache=False)
        made = editor.invert(
            PHOTOS / "blue_cube.png",
            "a blue cube",
            method="two-times",
            share="0.25",
            guidance_scale=1,
            steps=8,
        )
        assert made.settings == {"share": 0.25}
        assert made.extra["reconstruction_psnr"] > 30
    finally:
        inverters._classes.pop("two-times", None)


def test_the_tutorial_shows_what_each_command_makes() -> None:
    page = EXAMPLES.parent / "docs" / "tutorial.md"
    text = page.read_text()
    shown = re.findall(r"!\[.+?\]\((tutorial/\w+\.png)\)", text)
    assert len(shown) == len(set(shown)) == text.count("```") // 2
    assert all((page.parent / name).is_file() for name in shown)
    made = {p.name for p in (page.parent / "tutorial").iterdir()}
    assert made == {Path(name).name for name in shown}


def test_all_examples_are_short_and_run() -> None:
    names = {p.name for p in EXAMPLES.glob("*.py")}
    assert names == {*RUNS, "05_your_own_inversion.py"}
    for name in names:
        assert len((EXAMPLES / name).read_text().splitlines()) <= 40, name
