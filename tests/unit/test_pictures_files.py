"""Files are written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from p2p_real.files import OutputError, atomic_file, check_output_folder, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_text_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one\n")
    write_text(str(path), "zwölf\n")
    assert path.read_text(encoding="utf-8") == "zwölf\n"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_failure_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="stop"):
        _write_and_stop(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def _write_and_stop(path: Path) -> None:
    with atomic_file(path) as stream:
        stream.write(b"new, but only ha")
        raise RuntimeError("stop")


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.bin") as stream:
        stream.write(b"half")
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"half"


@dataclass(frozen=True)
class Record:
    name: str
    sides: tuple[int, int]


def test_json_takes_what_reports_are_made_of(tmp_path: Path) -> None:
    import torch

    report = {
        "psnr": float("inf"),
        "nan": np.float32("nan"),
        "half": np.float64(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "record": Record("a", (1, 2)),
        "path": Path("x") / "y",
        "set": {"b", "a"},
        "tensor": torch.tensor([1.0, 2.0]),
        3: "é",
    }
    write_json(tmp_path / "r.json", report)
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert "Infinity" not in text
    assert "NaN" not in text
    assert "é" in text
    assert json.loads(text) == {
        "psnr": None,
        "nan": None,
        "half": 0.5,
        "count": 3,
        "flag": True,
        "record": {"name": "a", "sides": [1, 2]},
        "path": os.path.join("x", "y"),
        "set": ["a", "b"],
        "tensor": [1.0, 2.0],
        "3": "é",
    }
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "s.json", {"a": object()})
    assert names(tmp_path) == ["r.json"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"folder .*missing.* does not exist"):
        write_text(tmp_path / "missing" / "a.txt", "x")
    with pytest.raises(OutputError, match="is a folder"):
        write_text(tmp_path, "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file.*a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_an_output_folder_is_made_and_left_clean(tmp_path: Path) -> None:
    folder = check_output_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert names(folder) == []
    assert check_output_folder(str(folder)) == folder


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    for path in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputError, match="is a file"):
            check_output_folder(path)


def test_an_output_folder_is_probed_by_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match="not allowed"):
        check_output_folder(tmp_path)
    assert names(tmp_path) == []
