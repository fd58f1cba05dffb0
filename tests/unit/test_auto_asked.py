"""What auto is asked for: photos, folders, files of instructions, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from captioning.instructions import NotUnderstood
from p2p_real.auto.asked import AutoError, pictures_of, read_asked, read_file
from p2p_real.auto.report import file_of
from p2p_real.auto.results import ENDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "c.txt", ".hidden.png", "sheet.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inner.png").mkdir()
    return tmp_path


def test_a_folder_stands_for_its_pictures(folder: Path) -> None:
    assert [p.name for p in pictures_of([folder])] == ["a.jpg", "b.png", "sheet.png"]
    asked = read_asked([folder], ["make it blue"])
    assert [one.label for one in asked] == ["a", "b", "sheet-2"]  # sheet.png is ours
    assert {one.instructions[0].value for one in asked} == {"blue"}


def test_labels_differ(folder: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    (folder / "A.png").write_bytes(b"x")
    asked = read_asked([folder / "a.jpg", folder / "A.png", picture, picture], ["at night"])
    assert [one.label for one in asked] == ["a", "A-2", "photo", "photo-2"]


def test_one_instruction_each(folder: Path) -> None:
    asked = read_asked([folder / "a.jpg", folder / "a.jpg"], ["make it blue", "at night"])
    assert [one.text for one in asked] == ["make it blue", "at night"]


@pytest.mark.parametrize(
    ("photos", "texts", "why"),
    [
        ([], ["make it blue"], "no photo given"),
        (["gone.png"], ["make it blue"], "there is no file gone.png"),
        (["a.jpg", "./a.jpg"], ["make it blue"], "given twice"),
        (["a.jpg"], ["make it blue", "at night"], "1 photos and 2 instructions"),
        (["inner.png"], ["make it blue"], "holds no picture"),
    ],
)
def test_what_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, photos: list[str], texts: list[str], why: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(AutoError, match=why):
        read_asked(photos, texts)


def test_an_instruction_that_nobody_can_read(folder: Path) -> None:
    with pytest.raises(NotUnderstood):
        read_asked([folder / "a.jpg"], ["qwerty asdf zxcv"])


def test_files_of_instructions(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    table = tmp_path / "jobs.csv"
    table.write_text('photo,instruction\na.png,"make it blue, then add a mug"\n\nb.png,at night\n')
    lines = tmp_path / "jobs.jsonl"
    lines.write_text(
        '{"photo": "a.png", "instruction": "make it blue, then add a mug"}\n'
        '{"photo": "b.png", "instruction": "at night"}\n'
    )
    assert read_file(table) == read_file(lines)
    photos, texts = read_file(table)
    assert photos == [tmp_path / "a.png", tmp_path / "b.png"]
    assert texts == ["make it blue, then add a mug", "at night"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x.csv", "a.png,make it blue, now\n", "line 1: give photo,instruction"),
        ("x.csv", "photo,instruction\n", "holds no line"),
        ("x.jsonl", '{"photo": "a.png"}\n', "line 1"),
        ("x.jsonl", "\n{\n", "line 2"),
        ("x.txt", "a.png,at night\n", "give a .csv or a .jsonl"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AutoError, match=why):
        read_file(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AutoError, match=r"gone\.csv: cannot be read"):
        read_file(tmp_path / "gone.csv")


def test_no_picture_takes_the_name_of_one_that_could_not_be_done(folder: Path) -> None:
    """ "a" that could not be done is written as a.could-not.png: that photo gets another name."""
    for name in ("cup.could-not.png", "cup.png"):
        (folder / name).write_bytes(b"x")
    for names in (("cup.could-not", "cup"), ("cup", "cup.could-not")):
        asked = read_asked([folder / f"{name}.png" for name in names], ["at night"])
        files = [{file_of(one.label, end) for end in ENDS} for one in asked]
        assert not files[0] & files[1]


def test_a_quote_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a.png,"' + "make it blue " * 20000)
    with pytest.raises(AutoError, match=r"x\.csv, line 1: field larger"):
        read_file(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a.jpg,zzzz", "line 2: cannot read 'zzzz'"),
        ("gone.png,at night", "line 2: there is no file"),
        ("inner.png,at night", "line 2: .*is a folder"),
    ],
)
def test_the_line_that_cannot_be_done_is_named(folder: Path, line: str, why: str) -> None:
    (folder / "do.csv").write_text(f"b.png,at night\n{line}\n")
    with pytest.raises(AutoError, match=why):
        read_file(folder / "do.csv")
