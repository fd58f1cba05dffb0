"""Masks: their text, their algebra, what needs no photo, and the options of an edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from captioning.matching import WordNotInPrompt
from inversion.registry import SettingError, UnknownMethod
from p2p_real.fitting import fit_photo
from p2p_real.masks import (
    EmptyMask,
    Mask,
    MaskAsked,
    MaskError,
    Subject,
    feather,
    grow,
    invert,
    parse,
    shrink,
)
from p2p_real.masks.combine import difference, intersection, union
from p2p_real.masks.sources.box import corners
from p2p_real.numbers import OptionError
from p2p_real.steering import EditControl

RED_BALL = "a red ball on a wooden table at noon"


def draw(height: int, width: int, seed: int = 0, hard: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width), np.float32)
    return (values > 0.9).astype(np.float32) if hard else values


def box(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    values = np.zeros((height, width), np.float32)
    values[y0:y1, x0:x1] = 1
    return values


# The text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("words:red ball", "words:red ball"),
        ("diffedit", "diffedit"),
        ("words:a|box:0,0,1,1 - file:b.png", "words:a | box:0,0,1,1 - file:b.png"),
        ("words:a - (words:b | words:c)", "words:a - (words:b | words:c)"),
        ("(words:a - words:b) | words:c", "words:a - words:b | words:c"),
        ("words:a | words:b & words:c", "words:a | words:b & words:c"),
        ("(words:a | words:b) & words:c", "(words:a | words:b) & words:c"),
        ("~words:a & ~(words:b | words:c)", "~words:a & ~(words:b | words:c)"),
        ("WORDS: t-shirt - file: a-b.png", "words:t-shirt - file:a-b.png"),
        ('file:"a (1) & b.png"', 'file:"a (1) & b.png"'),
        ("words:cat#2", "words:cat#2"),
    ],
)
def test_a_text_is_read_as_it_says(text: str, read: str) -> None:
    assert str(parse(text)) == read
    assert parse(read) == parse(text)  # what is written is read the same again


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("words:a |", r"expected a source such as words:ball, at its end"),
        ("(words:a", "a bracket is not closed, at its end"),
        ("words:a) | words:b", r"expected \|, & or - between two masks, at character 8"),
        ("| words:a", r"expected a source .*, at character 1, before '\| words:a'"),
        ("words:a & & words:b", "expected a source .*, at character 11"),
        ("~", "expected a source .*, at its end"),
        ('file:"a', "at character 6"),
        ("words:a | 3", "no source and no sign starts here, at character 11, before '3'"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_at_its_place(text: str, said: str) -> None:
    with pytest.raises(MaskError, match=said):
        parse(text)


def test_the_signs_bind_as_stated() -> None:
    size, boxes = (10, 10), "box:0,0,6,6|box:4,4,10,10"
    given = {
        boxes: union(box(*size, 0, 0, 6, 6), box(*size, 4, 4, 10, 10)),
        f"{boxes} & box:0,0,2,2": union(box(*size, 0, 0, 6, 6), np.zeros(size, np.float32)),
        f"({boxes}) & box:0,0,2,2": box(*size, 0, 0, 2, 2),
        "box:0,0,6,6 - box:0,0,3,6 | box:0,0,2,2": union(
            box(*size, 3, 0, 6, 6), box(*size, 0, 0, 2, 2)
        ),
        "~box:0,0,6,10 & box:0,0,10,5": box(*size, 6, 0, 10, 5),
    }
    given[f"{boxes} & box:0,0,2,2"] = box(*size, 0, 0, 6, 6)
    for text, want in given.items():
        found = made(text, size)
        assert np.array_equal(found.values, want), text


def nothing(*_: Any) -> Any:
    raise AssertionError("this source looks at nothing of the kind")


def subject(size: tuple[int, int], mode: str = "resize", native: int = 64, **more: Any) -> Subject:
    height, width = size
    fit = fit_photo(Image.new("RGB", (width, height)), multiple=8, native=native, mode=mode)[1]
    return Subject(fit, nothing, None, nothing, **more)  # type: ignore[arg-type]


def made(text: str, size: tuple[int, int], **edge: Any) -> Mask:
    return MaskAsked(text, **edge).make(subject(size))


# The algebra -----------------------------------------------------------------------------------


def test_fuzzy_sets() -> None:
    a, b = draw(9, 14, 1), draw(9, 14, 2)
    np.testing.assert_allclose(invert(invert(a)), a, atol=1e-7)
    hard = draw(9, 14, 3, hard=True)
    assert np.array_equal(invert(invert(hard)), hard)
    assert np.array_equal(union(a, b), union(b, a))
    assert np.array_equal(intersection(a, b), intersection(b, a))
    assert np.array_equal(invert(union(a, b)), intersection(invert(a), invert(b)))
    assert np.array_equal(difference(a, b), intersection(a, invert(b)))
    assert not difference(hard, hard).any()


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("size", [(13, 22), (1, 7), (8, 1)])
def test_growing_and_shrinking(size: tuple[int, int], hard: bool) -> None:
    mask = draw(*size, 5, hard)
    assert np.array_equal(grow(mask, 0), mask)
    for n in range(4):
        assert (grow(mask, n + 1) >= grow(mask, n)).all()
        assert (shrink(mask, n + 1) <= shrink(mask, n) + 1e-7).all()
    assert (shrink(grow(mask, 2), 2) >= mask - 1e-6).all()  # holes may close, nothing is lost


def test_growing_is_by_that_many_pixels() -> None:
    dot = box(21, 21, 10, 10, 11, 11)
    for n in (1, 2, 5):
        wide = grow(dot, n)
        rows, columns = np.nonzero(wide)
        assert (rows.min(), rows.max()) == (10 - n, 10 + n)
        assert (columns.min(), columns.max()) == (10 - n, 10 + n)
        assert np.array_equal(wide, wide.T)
        assert wide.sum() < (2 * n + 1) ** 2 or n == 0  # an octagon, not a square
        assert np.array_equal(shrink(wide, n), dot)


@pytest.mark.parametrize("hard", [True, False])
def test_a_feather_stays_inside(hard: bool) -> None:
    mask = draw(20, 30, 6) if not hard else grow(draw(20, 30, 6, True), 3)
    soft = feather(mask, 4)
    assert (soft <= mask).all()
    assert ((soft > 0) == (mask > 0)).all()  # no pixel is lost
    np.testing.assert_allclose(feather(soft, 4), soft, atol=1e-6)  # soft enough already
    assert np.abs(np.diff(soft, axis=0)).max() <= 1 / 5 + 1e-6
    assert np.abs(np.diff(soft, axis=1)).max() <= 1 / 5 + 1e-6


def test_a_feather_rises_step_by_step() -> None:
    soft = feather(box(9, 12, 3, 0, 12, 9), 3)  # the picture's border is no edge
    np.testing.assert_allclose(soft[4], [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_a_feather_is_what_whole_pictures_step_by_step_give(share: float) -> None:
    """Bit for bit, though only the pixels beside what was lowered are looked at."""

    def lowered(values: torch.Tensor, step: float) -> torch.Tensor:
        (h, w), framed = values.shape, torch.nn.functional.pad(values, (1,) * 4, value=2.0)
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                cost = step * (2**0.5 if dy != 1 and dx != 1 else 1.0)
                values = torch.minimum(values, framed[dy : dy + h, dx : dx + w] + cost)
        return values

    for size in ((1, 1), (1, 9), (12, 7), (31, 40)):
        mask = draw(*size, 8)
        mask = (mask > share).astype(np.float32) if share else mask
        for n in (1, 2, 5, 20):
            want = torch.from_numpy(mask)
            for _ in range(n):
                want = lowered(want, 1 / (n + 1))
            assert np.array_equal(feather(mask, n), want.numpy())


def test_a_mask_of_numbers() -> None:
    mask = Mask(np.array([[0, 0.25], [1, 1]]))
    assert (mask.size, mask.coverage, mask.is_hard) == ((2, 2), 0.5625, False)
    assert np.asarray(mask.image).tolist() == [[0, 64], [255, 255]]
    assert made("box:0,0,1,1", (5, 7)).coverage == 1.0  # a mask of everything is allowed
    for wrong in (np.zeros((2, 2, 2)), np.full((2, 2), 1.5), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="a mask"):
            Mask(wrong)


@pytest.mark.parametrize("mode", ["resize", "pad", "crop"])
@pytest.mark.parametrize("size", [(64, 64), (61, 83), (40, 131), (200, 97)])
def test_masks_go_to_the_latents_and_back(mode: str, size: tuple[int, int]) -> None:
    """Of any size and fit: what the mask fills is free, what it does not touch is not."""
    there = subject(size, mode)
    height, width = size
    values = box(height, width, 0, 0, width // 2, height)
    h, w = there.fit.fitted[1] // 8, there.fit.fitted[0] // 8
    found = Mask(values).latent((h, w), there.fit)
    assert found.shape == (1, 1, h, w)
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    edge = (width / 2 - there.fit.box[0]) * there.fit.scaled[0] / there.fit.part[0] / 8
    inside = min(w, there.fit.scaled[0] // 8)  # what lies beyond is padding
    assert found[0, 0, :, : max(0, int(edge) - 1)].all()
    assert not found[0, 0, :, int(edge) + 2 : inside].any()


# Sources that look at nothing -------------------------------------------------------------------


def test_boxes() -> None:
    assert corners("0.25,0,0.5,1", (8, 6)) == (2, 0, 4, 6)
    assert corners("0,0,1,1", (8, 6)) == (0, 0, 8, 6)
    assert corners("0.3,0.3,0.31,0.31", (8, 6)) == (2, 1, 3, 2)  # whatever it touches
    assert corners("2,1,8,6", (8, 6)) == (2, 1, 8, 6)
    for text, said in (
        ("1,2,3", "give four numbers"),
        ("a,b,c,d", "give four numbers"),
        ("3,0,2,5", "left top corner comes first"),
        ("-1,0,2,5", "left top corner comes first"),
        ("0,0,nan,1", "left top corner comes first"),
        ("0,0,9,6", "beyond the photo, which has 8 x 6"),
        ("0,0,2.5,3", "whole pixels, or fractions"),
    ):
        with pytest.raises(MaskError, match=said):
            corners(text, (8, 6))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "keep (1).png"
    Image.fromarray((draw(20, 30, 7) * 255).astype(np.uint8)).save(path)
    grey = np.asarray(Image.open(path), np.float32) / 255
    text = f'file:"{path}"'
    assert np.array_equal(made(text, (20, 30)).values, (grey > 0.5).astype(np.float32))
    soft = made(text, (20, 30), settings={"soft": "yes"})
    assert np.array_equal(soft.values, grey)
    assert not soft.is_hard
    with pytest.raises(MaskError, match="is 30 x 20, the photo 31 x 20"):
        made(text, (20, 31))
    Image.new("L", (30, 20)).save(path)
    with pytest.raises(MaskError, match="nothing white"):
        made(text, (20, 30))


def test_an_edge_may_be_a_fraction() -> None:
    assert np.array_equal(
        made("box:5,5,15,15", (20, 40), grow=0.1).values,
        made("box:5,5,15,15", (20, 40), grow=2).values,
    )
    for edge, said in (
        ({"grow": -1}, "--grow -1"),
        ({"feather": 1.5}, "--feather 1.5: give whole"),
    ):
        with pytest.raises(MaskError, match=said):
            made("box:0,0,1,1", (20, 40), **edge)


@pytest.mark.parametrize(
    ("text", "more", "error", "said"),
    [
        ("box:0,0,5,5 - box:0,0,1,1", {}, EmptyMask, "box:0,0,5,5 - box:0,0,1,1' is empty"),
        ("~box:0,0,1,1", {}, EmptyMask, "'~box:0,0,1,1' is empty"),
        ("box:0,0,5,5", {"shrink": 9}, EmptyMask, "'box:0,0,5,5' is empty.*smaller --shrink"),
        ("wrods:ball", {}, UnknownMethod, "no mask method 'wrods'.*did you mean 'words'"),
        (
            "box:0,0,1,1",
            {"settings": {"soft": 1}},
            MaskError,
            "has such a setting; there are: none",
        ),
        ("words:ball", {"settings": {"threshold": 2}}, SettingError, "threshold=2 is out of range"),
        ("words", {}, MaskError, "say which, such as words:ball"),
        ("diffedit", {}, MaskError, "diffedit needs a new prompt"),
        (
            "segment:cat",
            {},
            MaskError,
            "needs a GroundingDINO and a SAM.*--segment-models DINO,SAM",
        ),
        (
            "segment:cat",
            {"settings": {"models": "/no/dino,/no/sam"}},
            MaskError,
            "there is no folder /no/dino",
        ),
    ],
)
def test_masks_that_cannot_be_made(
    text: str, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        made(text, (20, 30), **more)


def test_words_are_checked_without_any_weight() -> None:
    MaskAsked("words:ball - words:table").check(source=RED_BALL)
    with pytest.raises(WordNotInPrompt, match="no word 'cube'"):
        MaskAsked("words:ball | words:cube").check(source=RED_BALL)


# Options ---------------------------------------------------------------------------------------


def test_options_become_one_mask() -> None:
    how = EditControl(mask_from="words:a | words:b", mask_box=(0, 0, 0.5, 1), feather=2)
    assert how.mask_asked().spec == "(words:a | words:b) & box:0,0,0.5,1"
    assert how.settings()["mask_from"] == "words:a | words:b"
    photo = subject((40, 30))
    settled = EditControl(mask=np.ones((40, 30)), mask_box="0,0,15,40", grow=1).settled(photo)
    assert isinstance(settled.mask, Mask)
    assert settled.mask.coverage == 16 / 30
    assert settled.mask.spec == "box:0,0,15,40 & given image"
    again = EditControl(mask=settled.mask).settled(photo)
    assert np.array_equal(again.mask.values, settled.mask.values)  # type: ignore[union-attr]
    for options, said in (
        ({"grow": 2}, "--grow belongs to a mask"),
        ({"local": "ball", "feather": 2}, "--feather belongs to a mask"),
        ({"mask_box": "0,0,1,1", "mask_options": {"threshold": 1}}, "--mask-option belongs to"),
    ):
        with pytest.raises(OptionError, match=said):
            EditControl(**options)
    with pytest.raises(OptionError, match="--mask is 3 x 4, the photo 30 x 40"):
        EditControl(mask=Mask(np.ones((4, 3)))).settled(photo)


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 4, 7, 12, 29])
def test_growing_at_once_is_growing_step_by_step(pixels: int) -> None:
    rng = np.random.default_rng(pixels)
    mask = (rng.random((23, 31)) > 0.98).astype(np.float32) * rng.random((23, 31), np.float32)
    slow = torch.from_numpy(mask)[None, None]
    for n in range(pixels):
        four = torch.maximum(
            max_pool2d(slow, (3, 1), 1, (1, 0)), max_pool2d(slow, (1, 3), 1, (0, 1))
        )
        slow = max_pool2d(slow, 3, 1, 1) if n % 2 else four
    assert (grow(mask, pixels) == slow[0, 0].numpy()).all()
