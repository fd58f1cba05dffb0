"""Inversions on disk: written whole, read field by field, refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inversion import Inversion, InversionError, Schedule
from inversion.result import FORMAT


def made(**changes: Any) -> Inversion:
    generator = torch.Generator().manual_seed(0)
    fields: dict[str, Any] = {
        "trajectory": torch.randn(4, 4, 3, 5, generator=generator),
        "tape": {"uncond": torch.randn(3, 7, 2, generator=generator)},
        "schedule": Schedule.make([7, 4, 1], [0.9 - 0.1 * i for i in range(8)], 0.95),
        "method": "null-text",
        "settings": {"inner_steps": 3},
        "prompt": "a cat, “quoted” – café 🐈",
        "guidance_scale": 7.5,
        "model": "small",
        "model_hash": "abc123",
        "photo": {"name": "cat.png", "size": [40, 24]},
        "extra": {"seconds": 1.5},
        "picture": torch.arange(72, dtype=torch.uint8).view(4, 6, 3),
    }
    return Inversion(**fields | changes)


def test_round_trip(tmp_path: Path) -> None:
    one = made()
    path = one.save(tmp_path / "cat.inv.safetensors")
    again = Inversion.load(str(path))
    assert again.header() == one.header()
    assert again.schedule == one.schedule
    assert again.schedule.levels == one.schedule.levels
    assert torch.equal(again.trajectory, one.trajectory)
    assert torch.equal(again.tape["uncond"], one.tape["uncond"])
    assert torch.equal(again.picture, one.picture)  # type: ignore[arg-type]
    assert again.inverter.name == "null-text"
    assert again.steps == 3
    assert [p.name for p in tmp_path.iterdir()] == ["cat.inv.safetensors"]


def test_views_and_slices_are_saved(tmp_path: Path) -> None:
    wide = torch.randn(4, 2, 4, 3, 5)
    one = made(trajectory=wide[:, 1], tape={}, picture=None)
    again = Inversion.load(one.save(tmp_path / "x"))
    assert torch.equal(again.trajectory, wide[:, 1])
    assert again.picture is None


def test_a_failed_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made().save(tmp_path / "x")
    before = path.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("inversion.result.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        made(prompt="other").save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def rewritten(path: Path, header: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    meta = {"format": FORMAT, "header": json.dumps(header), "sha256": "0" * 64}
    save_file(load_file(path) if tensors is None else tensors, path, metadata=meta)
    return path


def header_of(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as f:
        return dict(json.loads(f.metadata()["header"]))


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("prompt", None, "field 'prompt' has the wrong type"),
        ("prompt", ..., "field 'prompt' is missing"),
        ("method", "no-such", "field 'method' cannot be used"),
        ("settings", {"inner_steps": -1}, "field 'method' cannot be used"),
        ("settings", {"colour": 1}, "has no setting 'colour'"),
        ("guidance_scale", "much", "field 'guidance_scale' has the wrong type"),
        ("schedule", {}, "field 'schedule' cannot be read"),
        ("schedule", {"timesteps": [], "starts": [], "ends": [], "prediction": "epsilon"},
         "field 'schedule' does not fit together"),
        ("prompt", "another", "was changed since it was saved"),
        ("extra", {"seed": 1}, "was changed since it was saved"),
    ],
)  # fmt: skip
def test_damaged_headers(tmp_path: Path, field: str, value: Any, part: str) -> None:
    path = made().save(tmp_path / "x")
    header = header_of(path)
    if value is ...:
        del header[field]
    else:
        header[field] = value
    with pytest.raises(InversionError) as refused:
        Inversion.load(rewritten(path, header))
    assert part in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_changed_tensors_are_noticed(tmp_path: Path) -> None:
    path = made().save(tmp_path / "x")
    header, tensors = header_of(path), load_file(path)
    tensors["trajectory"][2, 0, 0, 0] += 1e-6
    with pytest.raises(InversionError, match="was changed since it was saved"):
        Inversion.load(rewritten(path, header, tensors))


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("trajectory", torch.zeros(3, 4, 3, 5), r"is not \[4, C, h, w\]"),
        ("trajectory", torch.zeros(4, 4, 3), r"is not \[4, C, h, w\]"),
        ("tape/uncond", torch.zeros(2, 7, 2), "has 2 rows for 3 steps"),
        ("picture", torch.zeros(4, 6, 3), "is not"),
    ],
)
def test_tensors_of_the_wrong_shape(tmp_path: Path, name: str, value: Any, part: str) -> None:
    path = made().save(tmp_path / "x")
    with pytest.raises(InversionError, match=part):
        Inversion.load(rewritten(path, header_of(path), load_file(path) | {name: value}))


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    broken = made().trajectory.clone()
    broken[1, 0, 0, 0] = float("inf")
    path = made(trajectory=broken).save(tmp_path / "x")
    with pytest.raises(InversionError, match="not finite"):
        Inversion.load(path)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(InversionError, match="no such inversion file"):
        Inversion.load(tmp_path / "missing")
    with pytest.raises(InversionError, match="no such inversion file"):
        Inversion.load(tmp_path)
    for content in (b"", b"hello", b"\x89PNG\r\n" + bytes(100)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(InversionError, match="damaged or not a safetensors file"):
            Inversion.load(tmp_path / "x")
    save_file({"a": torch.zeros(1)}, tmp_path / "y")
    with pytest.raises(InversionError, match="not an inversion of this program"):
        Inversion.load(tmp_path / "y")
    save_file({"a": torch.zeros(1)}, tmp_path / "z", metadata={"format": FORMAT})
    with pytest.raises(InversionError, match="damaged"):
        Inversion.load(tmp_path / "z")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_cut_off_files(tmp_path: Path, share: float) -> None:
    path = made().save(tmp_path / "x")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InversionError, match="damaged"):
        Inversion.load(path)


def test_another_model_is_refused() -> None:
    one = made()
    one.check_model("renamed", "abc123")
    with pytest.raises(InversionError) as refused:
        one.check_model("other", "def456")
    for part in ("'small'", "'other'", "--model small"):
        assert part in str(refused.value)
