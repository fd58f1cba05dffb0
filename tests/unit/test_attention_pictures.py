"""What the model looks at: numbers against plain softmax, names of words, places on the picture."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from captioning.matching import WordNotInPrompt
from edit import ControlStack, sites_of
from edit.seen import Seen, grid_of
from inversion import ClassifierFree, sample
from p2p_real.attention.canvas import Canvas, outline, percent
from p2p_real.attention.gather import components
from p2p_real.attention.gif import film, save_gif
from p2p_real.attention.naming import Word, choose_words, columns, parse_words
from p2p_real.attention.pictures import a_row, all_pictures, moments
from p2p_real.backbones import load_backbone
from p2p_real.editor import Editor
from p2p_real.fitting import Fit, fit_photo
from p2p_real.numbers import OptionError
from tests.small import small_sd, small_sdxl
from tests.walks import Record, Walker, off

CAT, DOG = "a fluffy cat on a mat", "a fluffy dog on a mat"
STEPS = 3


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("seen") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), (CAT, DOG))


@pytest.fixture(scope="module")
def record(walker: Walker) -> Record:
    return walker.invert("ddim", steps=STEPS, guidance=3.0)


def watching(walker: Walker, prompts: tuple[str, ...], **settings: Any) -> tuple[list[Word], Seen]:
    """The words of prompts and the control that watches them."""
    tokens = [walker.backbone.tokens(p) for p in prompts]
    words = choose_words([], tokens[0], tokens[1] if len(tokens) > 1 else None)
    settings = {"self_scale": 1, **settings}
    return words, Seen(columns(words, 77), walker.latent_size, STEPS, **settings)


# Numbers --------------------------------------------------------------------------------------


class Eager:
    """Attention as diffusers writes it out, which keeps the maps of every call."""

    def __init__(self, kept: list[Tensor]) -> None:
        self.kept = kept

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            attn.head_to_batch_dim(linear(x))
            for linear, x in ((attn.to_q, hidden_states), (attn.to_k, text), (attn.to_v, text))
        )
        p = attn.get_attention_scores(q, k)
        self.kept.append(p.unflatten(0, (len(hidden_states), attn.heads)))  # [R, N, P, K]
        out = attn.batch_to_head_dim(torch.bmm(p, v))
        return attn.to_out[0](out)  # type: ignore[no-any-return]


def plainly(walker: Walker, record: Record, prompts: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """Every map [R, N, P, K] of a walk without any control, by layer, a list over the steps."""
    unet = walker.backbone.unet
    before = dict(unet.attn_processors)
    kept: dict[str, list[Tensor]] = {name: [] for name in before}
    unet.set_attn_processor({name: Eager(kept[name]) for name in before})
    try:
        denoiser = walker.denoiser(prompts, ClassifierFree(3.0))
        sample(denoiser, record.replay(), record.schedule, all_rows=True)
    finally:
        unet.set_attn_processor(before)
    return kept


def test_numbers_are_those_of_plain_softmax(walker: Walker, record: Record) -> None:
    prompts = (CAT, DOG)
    words, seen = watching(walker, prompts)
    walker.walk(record, prompts, [seen])
    kept = plainly(walker, record, prompts)
    sites = sites_of(walker.backbone.unet)
    by_step: list[list[Tensor]] = [[] for _ in range(STEPS)]
    by_group: dict[tuple[str, int], list[Tensor]] = {}
    looks = []
    for name, maps in kept.items():
        site = sites[name]
        side = 16 // site.scale
        for step, p in enumerate(maps):
            mean = p[2:].mean(1)  # the conditional half of two prompts
            if not site.cross:
                looks += [mean] if site.scale == 1 else []
                continue
            rows = []
            for b in range(2):
                groups = [list(w.places[b]) for w in words]
                groups.append(sorted(set(range(77)) - {i for g in groups for i in g}))
                rows.append(torch.stack([mean[b][:, g].sum(-1) for g in groups]))
            part = torch.stack(rows).unflatten(-1, (side, side))
            part = interpolate(part, (16, 16), mode="bilinear")
            by_step[step].append(part)
            by_group.setdefault((site.place, site.scale), []).append(part)
    expected = torch.stack([torch.stack(parts).mean(0) for parts in by_step])
    assert off(seen.by_time(), expected) < 1e-5
    assert off(seen.words(), expected.mean(0)) < 1e-5
    assert {(g.place, g.scale) for g in seen.groups} == by_group.keys()
    for group, part in zip(seen.groups, seen.by_layer(), strict=True):
        assert off(part, torch.stack(by_group[group.place, group.scale]).mean(0)) < 1e-5
        assert group.layers * STEPS == len(by_group[group.place, group.scale])
    self_map = seen.self_map()
    assert self_map is not None
    assert off(self_map, torch.stack(looks).mean(0)) < 1e-5
    assert [f.first for f in seen.frames] == [0, 1, 2]
    assert [f.t for f in seen.frames] == list(record.schedule.timesteps)


def test_means_agree_and_sums_are_whole(walker: Walker, record: Record) -> None:
    words, seen = watching(walker, (CAT,), frames=2)
    walker.walk(record, (CAT,), [seen])
    assert [(f.first, f.count) for f in seen.frames] == [(0, 2), (2, 1)]
    total, by_time, by_layer = seen.words(), seen.by_time(), seen.by_layer()
    assert total.shape == (1, len(words) + 1, 16, 16)
    assert torch.allclose(total, (2 * by_time[0] + by_time[1]) / 3, atol=1e-7)
    layers = torch.tensor([float(g.layers) for g in seen.groups])
    weighted = torch.einsum("l,lbwij->bwij", layers / layers.sum(), by_layer)
    assert torch.allclose(total, weighted, atol=1e-6)
    for maps in (total, by_time, by_layer):
        assert torch.allclose(maps.sum(-3), torch.ones(()), atol=1e-5)
        assert (maps >= 0).all()
    self_map = seen.self_map()
    assert self_map is not None
    assert torch.allclose(self_map.sum(-1), torch.ones(()), atol=1e-5)


def test_large_maps_are_averaged_down(walker: Walker, record: Record) -> None:
    _, fine = watching(walker, (CAT,))
    _, coarse = watching(walker, (CAT,), max_pixels=20, self_scale=None)
    walker.walk(record, (CAT,), [fine])
    walker.walk(record, (CAT,), [coarse])
    assert coarse.grid == (4, 4)
    assert coarse.self_map() is None
    assert torch.allclose(coarse.words().sum(1), torch.ones(()), atol=1e-5)
    for group, f, c in zip(fine.groups, fine.by_layer(), coarse.by_layer(), strict=True):
        if group.scale == 1:  # seen without interpolation
            means = f.unflatten(-1, (4, 4)).unflatten(-3, (4, 4)).mean((-1, -3))
            assert torch.allclose(means, c, atol=1e-6)
    assert grid_of((64, 96), 4096) == (32, 48)
    assert grid_of((33, 50), 500) == (17, 25)
    assert grid_of((64, 64), 4096) == (64, 64)


def test_the_same_prompt_twice_gives_equal_rows(walker: Walker, record: Record) -> None:
    tokens = walker.backbone.tokens(CAT)
    words = choose_words([], tokens, tokens)
    assert all(len(set(w.names)) == 1 for w in words)
    seen = Seen(columns(words, 77), (16, 16), STEPS, self_scale=2)
    controls = walker.controls((CAT, CAT), STEPS)
    walker.walk(record, (CAT, CAT), [*controls, seen])
    total, self_map = seen.words(), seen.self_map()
    assert self_map is not None
    assert torch.allclose(total[0], total[1], atol=1e-6)
    assert torch.allclose(self_map[0], self_map[1], atol=1e-6)


def test_an_edit_is_seen_as_it_acted(walker: Walker, record: Record) -> None:
    """Word maps that are held all the way are the source's."""
    words, seen = watching(walker, (CAT, DOG))
    controls = walker.controls((CAT, DOG), STEPS, cross_replace=1.0, self_replace=0.0)
    walker.walk(record, (CAT, DOG), [*controls, seen])
    total = seen.words()
    assert [w.names for w in words][1] == ("cat", "dog")
    assert torch.allclose(total[0, :-1], total[1, :-1], atol=1e-6)
    _, free = watching(walker, (CAT, DOG))
    walker.walk(record, (CAT, DOG), [free])
    assert off(free.words()[1, :-1], total[0, :-1]) > 0.01


def test_looking_changes_nothing_and_leaves_nothing(walker: Walker, record: Record) -> None:
    processors = dict(walker.backbone.unet.attn_processors)
    _, seen = watching(walker, (CAT, DOG))
    controls = walker.controls((CAT, DOG), STEPS)
    alone = walker.walk(record, (CAT, DOG), controls)
    watched = walker.walk(record, (CAT, DOG), [*controls, seen])
    assert off(watched, alone) < 1e-5
    after = walker.backbone.unet.attn_processors
    assert all(after[name] is p for name, p in processors.items())
    first = seen.words()
    walker.walk(record, (CAT, DOG), [*controls, seen])  # a second walk starts anew
    assert torch.equal(seen.words(), first)


def test_a_row_that_was_left_out_is_an_error(walker: Walker, record: Record) -> None:
    _, seen = watching(walker, (CAT, DOG))
    stack = ControlStack([seen])
    denoiser = walker.denoiser((CAT,), ClassifierFree(3.0))
    with pytest.raises(RuntimeError, match="left out"):
        sample(denoiser, record.replay(), record.schedule, [stack])


def test_sdxl_has_two_resolutions(tmp_path: Any) -> None:
    editor = Editor(load_backbone(str(small_sdxl(tmp_path)), device="cpu", dtype="float32"))
    picture = Image.effect_noise((144, 112), 60).convert("RGB")
    found = editor.attention(picture, source=CAT, steps=2, method="ddim", swap={"cat": "dog"})
    assert {g.scale for g in found.seen.groups} == {2, 4}
    numbers = found.numbers()
    assert numbers["maps"].shape == numbers["target_maps"].shape == (3, 14, 18)
    assert numbers["self_scale"] == 2
    assert numbers["self_components"].shape == (6, 7, 9)
    assert all(picture.width > 400 for picture in all_pictures(found).values())


def test_components_tell_kinds_of_places_apart() -> None:
    """Places that look at the same parts share their part in a pattern."""
    kinds = torch.zeros(4, 6)
    kinds[:, :2], kinds[3] = 1, 2
    kinds = kinds.flatten().long()
    looks = torch.tensor([[0.9, 0.0, 0.1], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]])
    sizes = torch.bincount(kinds)
    maps = looks[kinds][:, kinds] / sizes[kinds]
    assert torch.allclose(maps.sum(-1), torch.ones(24))
    parts, shares = components(maps, (4, 6), 6)
    assert parts.shape == (6, 4, 6)
    assert shares[:2].sum() > 0.999
    assert (shares[:-1] >= shares[1:] - 1e-6).all()
    for kind in range(3):
        for part in parts[:2]:
            assert float(part.flatten()[kinds == kind].std()) < 1e-5
    assert torch.allclose(parts[:2].amax((1, 2)), torch.ones(2))


# Words ----------------------------------------------------------------------------------------


def names(walker: Walker, source: str, target: str | None, *asked: str) -> list[Any]:
    tokens = [None if p is None else walker.backbone.tokens(p) for p in (source, target)]
    assert tokens[0] is not None
    words = choose_words(list(asked), tokens[0], tokens[1])
    return [w.names if target else w.names[0] for w in words]


def test_words_that_are_shown_without_being_named(walker: Walker) -> None:
    assert names(walker, "a red cat and a black cat on the mat", None) == [
        "red", "cat#1", "black", "cat#2", "mat",
    ]  # fmt: skip
    assert names(walker, "a the of", None) == ["a", "the", "of"]
    assert names(walker, CAT, "a big fluffy dog on a mat in the snow") == [
        ("fluffy", "fluffy"), ("cat", "dog"), ("mat", "mat"), (None, "big"), (None, "snow"),
    ]  # fmt: skip
    assert names(walker, "a red cat on a mat", "a big blue dog on a mat") == [
        ("red cat", "big blue dog"), ("mat", "mat"),
    ]  # fmt: skip
    assert names(walker, "a fluffy cat on grass", "a cat on grass") == [
        ("fluffy", None), ("cat", "cat"), ("grass", "grass"),
    ]  # fmt: skip


def test_words_that_are_named(walker: Walker) -> None:
    two = "a red cat and a black cat"
    assert names(walker, two, None, "CAT", "cat#2", "black cat") == ["CAT", "cat#2", "black cat"]
    tokens = walker.backbone.tokens(two)
    places = [w.places[0] for w in choose_words(["cat", "cat#2", "black cat"], tokens, None)]
    assert places == [(3, 7), (7,), (6, 7)]
    assert names(walker, CAT, DOG, "cat", "dog", "mat") == [
        ("cat", "dog"), ("cat", "dog"), ("mat", "mat"),
    ]  # fmt: skip
    with pytest.raises(WordNotInPrompt, match=r"'horse'.*Its words are: 1 a, 2 fluffy, 3 cat"):
        names(walker, CAT, DOG, "horse")
    labels = [Word(n, ()).label for n in (("cat", "dog"), ("cat", None), (None, "dog"), ("a", "A"))]
    assert labels == ["cat > dog", "cat (dropped)", "dog (new)", "a"]


def test_many_words_are_too_many(walker: Walker, caplog: pytest.LogCaptureFixture) -> None:
    colours = "red green blue black white big small cup snow grass bird horse table"
    with caplog.at_level(logging.INFO, logger="p2p_real"):
        logging.getLogger("p2p_real").propagate = True
        found = names(walker, f"{colours} dog", f"{colours} cat")
    assert len(found) == 12
    assert ("dog", "cat") in found
    assert "12 of 14 words" in caplog.text
    assert parse_words(None) == []
    assert parse_words(' ball, "wooden table",cat#2') == ["ball", "wooden table", "cat#2"]
    for text, wrong in (
        ("ball,,table", "commas"),
        ("", "commas"),
        ("cat,Cat", "twice"),
        (",".join(f"w{n}" for n in range(25)), "at most 24"),
    ):
        with pytest.raises(OptionError, match=wrong):
            parse_words(text)


def test_columns_hold_every_token_once(walker: Walker) -> None:
    words = choose_words([], walker.backbone.tokens(CAT), walker.backbone.tokens(DOG))
    made = columns(words, 77)
    assert made.shape == (2, len(words) + 1, 77)
    assert torch.equal(made.sum(1), torch.ones(2, 77))
    assert made[0, 1].nonzero().flatten().tolist() == list(words[1].places[0])


# Pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["resize", "crop", "pad"])
@pytest.mark.parametrize("size", [(300, 140), (101, 167), (128, 128)])
def test_maps_lie_where_the_model_saw(mode: str, size: tuple[int, int]) -> None:
    """A spot of the photo, fitted and made a map, comes back to its place."""
    photo = Image.new("RGB", size)
    spot = (size[0] // 2 + 9, size[1] // 2 - 12)
    photo.paste((255, 255, 255), (spot[0] - 6, spot[1] - 6, spot[0] + 6, spot[1] + 6))
    fitted, fit = fit_photo(photo, multiple=8, native=128, mode=mode)
    grid = (fitted.width // 4, fitted.height // 4)
    part = np.asarray(fitted.convert("L").resize(grid, Image.Resampling.BOX), np.float32) / 255
    canvas = Canvas(photo, fit)
    laid = canvas.lay(part)
    assert laid.shape == canvas.size[::-1] == (canvas.picture.height, canvas.picture.width)
    total = laid.sum()
    for axis, where in ((0, spot[1] / size[1]), (1, spot[0] / size[0])):
        along = laid.sum(1 - axis)
        centre = float((along * (np.arange(len(along)) + 0.5)).sum() / total)
        assert abs(centre / laid.shape[axis] - where) < 0.015
    assert canvas.covered == fit.is_whole
    assert 0 <= laid.min() <= laid.max() <= 1
    own = Canvas(fitted, fit)  # the picture as the model saw it
    if fit.fitted != fit.original:
        assert own.covered
        assert own.share == (1.0, 1.0)


def test_a_map_is_smooth_and_glows_where_it_is_strong() -> None:
    whole = Fit("resize", (64, 64), (0, 0, 64, 64), (64, 64), (64, 64))
    canvas = Canvas(Image.new("RGB", (64, 64), (120, 120, 120)), whole)
    part = np.zeros((4, 4), np.float32)
    part[1, 2] = 0.2
    shown = np.asarray(canvas.heat(part, 0.2)).astype(int)
    assert shown.shape == (256, 256, 3)
    assert np.abs(np.diff(shown, axis=1)).max() < 40, "the cells of the map show"
    bright, dark = shown[96, 160].sum(), shown[220, 30].sum()
    assert bright > 2 * dark
    assert np.ptp(shown[220, 30]) <= 2, "no attention is grey"
    flat = np.asarray(canvas.heat(np.zeros((4, 4)), 0.0))
    assert np.ptp(flat) <= 2


@pytest.mark.parametrize("size", [(900, 100), (60, 420), (8, 8), (640, 480)])
def test_canvases_keep_the_aspect(size: tuple[int, int]) -> None:
    whole = Fit("resize", size, (0, 0, *size), (64, 64), (64, 64))
    canvas = Canvas(Image.new("RGB", size), whole, 160)
    width, height = canvas.size
    assert abs(width / height / (size[0] / size[1]) - 1) < 0.03
    assert width <= 640
    assert width >= 88
    assert canvas.lay(np.ones((3, 5))).shape == (height, width)


def test_the_border_of_a_mask() -> None:
    mask = np.zeros((9, 9))
    mask[3:6, 3:6] = 1
    line = outline(mask)
    assert (line == 2).sum() == 8
    assert line[4, 4] == 1
    assert (line[2:7, 2:7] > 0).all()
    assert line[0].sum() == 0
    assert (outline(np.ones((5, 5))) == 0).all(), "the picture's edge is no border"


def test_numbers_for_people() -> None:
    assert [percent(v) for v in (0.5, 0.0996, 0.0214, 0.0087, 0.0, -0.3)] == [
        "50 %", "10 %", "2.1 %", "0.87 %", "0.00 %", "-30 %",
    ]  # fmt: skip
    assert moments(50, 6) == [0, 10, 20, 29, 39, 49]
    assert moments(3, 6) == [0, 1, 2]
    assert moments(1, 6) == [0]
    assert [a_row(n) for n in (1, 5, 6, 7, 12, 13, 24)] == [1, 5, 6, 4, 6, 5, 6]


def test_pictures_have_their_cells(walker: Walker, tmp_path: Any) -> None:
    editor = Editor(walker.backbone)
    picture = Image.effect_noise((128, 128), 60).convert("RGB")
    found = editor.attention(picture, ["cat", "mat"], source=CAT, steps=4, method="ddim")
    made = all_pictures(found)
    assert made.keys() == {"words", "time", "layers", "self"}
    assert made["words"].size[0] == 3 * (256 + 12) + 12
    assert made["time"].size[0] >= 4 * (160 + 12)
    edited = editor.attention(
        picture, ["cat", "mat"], source=CAT, steps=4, method="ddim", swap={"cat": "dog"}
    )
    both = all_pictures(edited)
    assert both.keys() == made.keys() | {"alignment", "difference"}
    assert both["words"].size[1] > made["words"].size[1] + 256
    frames = film(edited)
    assert len(frames) == 4
    assert len({frame.size for frame in frames}) == 1
    with (tmp_path / "a.gif").open("wb") as stream:
        save_gif(frames, stream)
    with Image.open(tmp_path / "a.gif") as moving:
        assert (moving.n_frames, moving.size) == (4, frames[0].size)
        assert moving.info["loop"] == 0
        moving.seek(3)
        first, last = np.asarray(moving.convert("RGB")).astype(int), np.asarray(frames[3])
        assert np.abs(first - last).mean() < 6
    away = editor.attention(
        picture, ["cat"], source=CAT, steps=2, method="ddim", weight={"cat": -2.0}
    )
    rows = {row["prompt"]: row for row in away.report["words"]}
    assert rows["target"]["most"] < 0 < rows["source"]["most"]
    plain, negative = (away.seen.words()[b, 0].numpy() for b in range(2))
    canvas = Canvas(picture, away.fit)
    assert np.asarray(canvas.heat(negative, 0.1)).mean() > np.asarray(canvas.heat(plain, 9)).mean()
    with pytest.raises(OptionError, match="none is asked for"):
        editor.attention(picture, source=CAT, steps=2, local="cat")
    with pytest.raises(OptionError, match="max-pixels 3"):
        editor.attention(picture, source=CAT, steps=2, max_pixels=3)
