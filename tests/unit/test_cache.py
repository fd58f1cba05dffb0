"""The cache of inversions: what makes a key, what is thrown out, and what may go wrong."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from inversion import Inversion
from inversion.schedule import Level, Schedule
from p2p_real.cache import InversionCache, default_folder


def inversion(prompt: str = "a cat") -> Inversion:
    schedule = Schedule((10,), (Level(0.5, 0.5),), (Level(1.0, 0.0),), "epsilon")
    return Inversion(
        trajectory=torch.ones(2, 4, 8, 8),
        tape={},
        schedule=schedule,
        method="ddim",
        settings={},
        prompt=prompt,
        guidance_scale=7.5,
    )


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path / "deep" / "folder")
    key = cache.key(prompt="a cat")
    assert cache.get(key) is None
    cache.put(key, inversion())
    found = cache.get(key)
    assert found is not None
    assert found.prompt == "a cat"
    assert torch.equal(found.trajectory, inversion().trajectory)


def test_every_field_counts_and_order_does_not() -> None:
    key = InversionCache.key
    base: dict[str, Any] = {"prompt": "a", "steps": 50, "settings": {"share": 0.0, "b": [1, 2]}}
    keys = {
        key(**base),
        key(**{**base, "prompt": "b"}),
        key(**{**base, "steps": 51}),
        key(**{**base, "settings": {"share": 0.5, "b": [1, 2]}}),
        key(**{**base, "settings": {"share": 0.0, "b": [2, 1]}}),
        key(**base, more=None),
    }
    assert len(keys) == 6
    assert key(a=1, b=2) == key(b=2, a=1)
    assert key(a=1) != key(a="1")


def test_damaged_files_are_named_removed_and_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = InversionCache(tmp_path)
    cache.put("k", inversion())
    path = cache.path("k")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    logging.getLogger("p2p_real").propagate = True  # the command line turns it off
    with caplog.at_level(logging.WARNING):
        assert cache.get("k") is None
    assert str(path) in caplog.text
    assert not path.exists()


def test_the_oldest_goes_first_and_use_makes_young(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    for n, key in enumerate("abc"):
        cache.put(key, inversion())
        os.utime(cache.path(key), (n + 1, n + 1))
    size = cache.path("a").stat().st_size
    assert cache.get("a") is not None  # now the youngest
    cache.quota = 3 * size
    cache.put("d", inversion())
    assert {p.name.split(".")[0] for p in tmp_path.iterdir()} == {"a", "c", "d"}


def test_the_newest_stays_whatever_the_quota(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path, quota=1)
    cache.put("a", inversion())
    cache.put("b", inversion())
    assert {p.name.split(".")[0] for p in tmp_path.iterdir()} == {"b"}


def test_a_folder_that_cannot_be_written_is_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    logging.getLogger("p2p_real").propagate = True
    with caplog.at_level(logging.WARNING):
        InversionCache(tmp_path / "file" / "below").put("k", inversion())
    assert "could not be cached" in caplog.text


def test_a_full_disk_is_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("inversion.result.save_file", full)
    logging.getLogger("p2p_real").propagate = True
    with caplog.at_level(logging.WARNING):
        InversionCache(tmp_path).put("k", inversion())
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "p2p-real" / "inversions"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert default_folder() == tmp_path / "me" / ".cache" / "p2p-real" / "inversions"
