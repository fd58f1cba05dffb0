"""Photos of many kinds, an inversion, and a cache that is nobody's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .commands import FEW, RED_BALL, SOURCE, call


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the cache of whoever runs it, or asks the network."""
    before = {k: os.environ.get(k) for k in ("XDG_CACHE_HOME", "HF_HUB_OFFLINE")}
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _red_ball(size: tuple[int, int]) -> Image.Image:
    return Image.open(RED_BALL).convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _rotated(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    _red_ball((90, 60)).save(folder / "rotated.jpg", exif=exif, quality=95)


def _alpha(folder: Path) -> None:
    image = _red_ball((300, 120)).convert("RGBA")
    alpha = np.full((120, 300), 255, np.uint8)
    alpha[:, :40], alpha[:, 260:] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    image.save(folder / "alpha.png")


def _sixteen(folder: Path) -> None:
    grey = np.asarray(_red_ball((64, 64)).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(folder / "sixteen.png")


MAKERS: dict[str, Callable[[Path], None]] = {
    "odd.png": lambda f: _red_ball((101, 67)).save(f / "odd.png"),
    "least.png": lambda f: _red_ball((8, 8)).save(f / "least.png"),
    "alpha.png": _alpha,
    "rotated.jpg": _rotated,
    "grey.png": lambda f: _red_ball((64, 64)).convert("L").save(f / "grey.png"),
    "cmyk.jpg": lambda f: _red_ball((64, 64)).convert("CMYK").save(f / "cmyk.jpg"),
    "sixteen.png": _sixteen,
    "large.jpg": lambda f: _red_ball((4000, 3000)).save(f / "large.jpg", quality=60),
}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos by kind."""
    folder = tmp_path_factory.mktemp("photos")
    for make in MAKERS.values():
        make(folder)
    return folder


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inversion of the red ball in three steps."""
    path = tmp_path_factory.mktemp("saved") / "ball.inv.safetensors"
    assert call("invert", RED_BALL, "--prompt", SOURCE, *FEW, "--out", path).code == 0
    return path
