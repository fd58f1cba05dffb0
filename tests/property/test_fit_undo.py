"""Any photo, any mode: the way back always ends at the photo's own size."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from p2p_real.images import Fit, fit_photo

SIDES = st.integers(8, 600)
MODES = st.sampled_from(["resize", "crop", "pad"])
GRIDS = st.sampled_from([(8, 512), (8, 128), (16, 256), (64, 512), (1, 100)])


def coloured(width: int, height: int, mode: str = "RGB") -> Image.Image:
    ramp = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3)
    return Image.fromarray((ramp * 7919 % 251).astype(np.uint8)).convert(mode)


@settings(deadline=None, max_examples=60)
@given(width=SIDES, height=SIDES, mode=MODES, grid=GRIDS)
def test_undo_gives_the_original_size(
    width: int, height: int, mode: str, grid: tuple[int, int]
) -> None:
    multiple, native = grid
    photo = coloured(width, height)
    fitted, fit = fit_photo(photo, multiple=multiple, native=native, mode=mode)
    assert fitted.size == fit.fitted
    assert fitted.size[0] % multiple == fitted.size[1] % multiple == 0
    assert fit.undo(fitted, photo).size == (width, height)
    assert Fit.from_json(fit.to_json()) == fit
    if not fit.resamples:  # then every pixel that the model saw comes back as it was
        assert np.array_equal(np.asarray(fit.undo(fitted, photo)), np.asarray(photo))


@settings(deadline=None, max_examples=40)
@given(columns=st.integers(1, 75), rows=st.integers(1, 75), mode=MODES)
def test_on_the_grid_it_is_the_identity(columns: int, rows: int, mode: str) -> None:
    width, height = columns * 8, rows * 8
    native = 8 * max(1, round((columns * rows) ** 0.5))  # so that the area is fine
    if not 0.5 <= width * height / native**2 <= 1.5:
        return
    photo = coloured(width, height)
    fitted, fit = fit_photo(photo, multiple=8, native=native, mode=mode)
    if mode != "crop":
        assert fit.is_whole
        assert np.array_equal(np.asarray(fitted), np.asarray(photo))
    if not fit.resamples:
        assert np.array_equal(np.asarray(fit.undo(fitted, photo)), np.asarray(photo))


@settings(deadline=None, max_examples=60)
@given(width=SIDES, height=SIDES, mode=st.sampled_from(["resize", "pad"]))
def test_the_model_sees_about_its_native_area(width: int, height: int, mode: str) -> None:
    fitted, _ = fit_photo(Image.new("L", (width, height)), multiple=8, native=128, mode=mode)
    ratio = fitted.size[0] * fitted.size[1] / 128**2
    aspect = max(width, height) / min(width, height)
    assert 0.45 < ratio < (1.6 if aspect < 8 else 3.5)
