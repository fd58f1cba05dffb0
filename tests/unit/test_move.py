"""Moving and resizing: whole cells are exact, the background stands still, and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captioning import WordNotInPrompt
from edit import NothingActed, Site, edits
from edit.control import Call
from edit.methods.move import Relocate, Thing, Warp
from inversion import Inversion
from inversion.denoiser import Layout
from inversion.sampling import quiet
from inversion.schedule import Level
from p2p_real.backbones import load_backbone
from p2p_real.editing import edit_inversion
from p2p_real.editor import Editor
from p2p_real.fitting import Fit
from p2p_real.masks import Mask
from p2p_real.masks.grammar import MaskError
from p2p_real.moving import Moved, moved, plan_moves, read_moves
from p2p_real.numbers import OptionError
from p2p_real.prompts import EditWords, PromptError, Prompts
from p2p_real.steering import EditControl
from p2p_real.tabletop import PHOTOS
from p2p_real.verbs import options
from tests.small import small_sd
from tests.walks import Walker, off

PROMPTS = ("a fluffy cat on a mat",) * 2
SAID = "a red ball on a wooden table at noon"
STEPS = 4


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("move") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS)


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Editor.load("tabletop", device="cpu", cache=False)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ball(editor: Editor) -> Inversion:
    found: Inversion = editor.invert(
        PHOTOS / "red_ball.png", SAID, method="direct", steps=STEPS, verify=False
    )
    return found


def square(size: tuple[int, int] = (16, 16), at: tuple[int, int] = (5, 3), side: int = 4) -> Tensor:
    mask = torch.zeros(size)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = 1
    return mask


def relocate(
    by: tuple[int, int] = (0, 6), size: tuple[int, int] = (16, 16), **how: Any
) -> Relocate:
    mask, warp = square(size), Warp.of(size, by)
    thing = Thing(mask, warp(mask), warp, name="cat")
    return Relocate([thing], **{"hold": 3, "hold_rim": 2, "hide": STEPS, **how})


# Where it goes --------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [(0, 0), (2, -3), (-4, 1)])
def test_whole_cells_move_exactly(by: tuple[int, int]) -> None:
    x = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(0))
    moved = Warp.of((9, 13), by)(x)
    (h, w), (dy, dx) = x.shape[-2:], by
    expected = torch.zeros_like(x)
    for y in range(max(0, dy), min(h, h + dy)):
        for c in range(max(0, dx), min(w, w + dx)):
            expected[..., y, c] = x[..., y - dy, c - dx]
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("times", [0.6, 1.0, 1.7])
def test_a_resized_picture_keeps_the_strength_of_its_noise(times: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, fresh = (torch.randn(16, 64, 64, generator=generator) for _ in range(2))
    warp = Warp.of((64, 64), (0.0, 0.0), times, (32.0, 32.0))
    inside = warp(torch.ones(64, 64)) > 0.99
    assert warp.noisy(x, 1.0, fresh)[:, inside].var() == pytest.approx(1, abs=0.05)
    if times != 1:
        assert warp(x)[:, inside].var() < 0.8
    assert warp(torch.ones(64, 64))[inside].eq(1).float().mean() > 0.9


def test_a_resized_object_stands_where_it_stood() -> None:
    mask = square(at=(6, 5))
    for anchor, rows in (("foot", (2, 9)), ("middle", (4, 11))):
        about = edits.create("move", anchor=anchor).about(mask)  # type: ignore[attr-defined]
        new = Warp.of((16, 16), (0, 0), 2.0, about)(mask) >= 0.5
        ys, xs = new.any(1).nonzero(), new.any(0).nonzero()
        assert ((int(ys[0]), int(ys[-1])), (int(xs[0]), int(xs[-1]))) == (rows, (3, 10))


@pytest.mark.parametrize("mode", ["RGB", "F"])
def test_pictures_move_as_latents_do(mode: str) -> None:
    draws = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    image = Image.fromarray(draws) if mode == "RGB" else Image.fromarray(draws[..., 0] / 255.0)
    old = np.array(image)
    there = moved(image, (3, -7), 1.0, (0, 0), Image.Resampling.LANCZOS, "edge")
    assert (there[3:, :-7] == old[:-3, 7:]).all()
    assert (there[3:, -7:] == old[:-3, -1:]).all()  # beyond the border: the border itself
    smooth = Image.fromarray(np.linspace(0, 1, 48, dtype=np.float32)[None].repeat(32, 0))
    half = moved(smooth, (0, 0), 0.5, (32, 24), Image.Resampling.BILINEAR, "edge")
    assert half[20, 18:30] == pytest.approx(
        np.array(smooth)[20, 12:36].reshape(-1, 2).mean(1), abs=0.01
    )


def test_out_of_the_picture_and_not_at_all() -> None:
    with pytest.raises(NothingActed, match="'cat' would leave the picture entirely"):
        relocate((0, 14))
    with pytest.raises(NothingActed, match="give --move or --resize"):
        edits.create("move").controls(None)  # type: ignore[arg-type]


# What a walk does with it ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
@pytest.mark.parametrize("method", ["ddim", "direct", "edit-friendly", "belm"])
def test_outside_the_two_places_the_photo_stands_still(
    walker: Walker, method: str, size: tuple[int, int]
) -> None:
    w = Walker(walker.backbone, PROMPTS, size)
    record = w.invert(method, steps=STEPS)
    control = relocate(size=size)
    plain, moved = w.walk(record, PROMPTS), w.walk(record, PROMPTS, [control])
    assert off(moved[0], plain[0]) < 1e-4  # its maps are made where the target's are
    outside = control.mask[0, 0] == 0
    assert torch.equal(moved[1][:, outside], moved[0][:, outside])
    assert 0.3 < outside.float().mean() < 0.9
    for part in (control.hole, control.core):  # drawn, and laid elsewhere
        assert (moved[1] - moved[0])[:, part].abs().mean() > 0.05
    assert torch.equal(w.walk(record, PROMPTS, [control]), moved)  # the control keeps nothing


def test_held_to_the_end_it_is_the_photo_itself_elsewhere(walker: Walker) -> None:
    record = walker.invert("direct", steps=STEPS)
    control = relocate((2, 6), hold=STEPS, hold_rim=STEPS)
    source, target = walker.walk(record, PROMPTS, [control])
    moved = torch.roll(source, (2, 6), (1, 2))
    place = torch.roll(square(), (2, 6), (0, 1)) > 0
    assert torch.equal(control.core, place)
    there = place | control.rims
    assert torch.equal(target[:, there], moved[:, there])
    free = walker.walk(record, PROMPTS, [relocate((2, 6), hold=1, hold_rim=1)])[1]
    assert not torch.equal(free[:, place], moved[:, place])


def test_the_seed_is_that_of_what_is_uncovered(walker: Walker) -> None:
    record = walker.invert("direct", steps=STEPS)
    one, other = relocate(hold=STEPS, hold_rim=STEPS), relocate(hold=STEPS, hold_rim=STEPS, seed=1)
    a, b = (walker.walk(record, PROMPTS, [c])[1] for c in (one, other))
    assert (a - b)[:, one.hole].abs().amin() > 0
    assert torch.equal(a[:, ~one.hole], b[:, ~one.hole])


def test_what_lacks_is_added_by_the_share_of_the_picture(walker: Walker) -> None:
    source, detail = torch.ones(2, 1, 4, 16, 16).unbind()
    thing = Thing(square(), square(), Warp.of((16, 16), (0, 0)), 3 * detail)
    assert torch.equal(thing.at(source, Level(0.5, 0.8), source), source + 1.5)


def test_what_is_uncovered_attends_as_its_surroundings_do(walker: Walker) -> None:
    control, step = relocate(), next(iter(walker.backbone.schedule(STEPS).down()))
    layout = Layout.full(2)
    site = Site("down_blocks.0.attentions.0", "down", True, 0, 1)
    p = torch.rand(4, 2, 256, 7, generator=torch.Generator().manual_seed(0))
    new = control.probs(p, Call(site, step, layout, (16, 16)))
    hole, around = control.hole.flatten(), torch.zeros(16, 16, dtype=torch.bool)
    around[2:12, :16] = True
    around &= control.mask[0, 0] == 0
    assert torch.equal(new[:3], p[:3])
    assert torch.equal(new[3][:, ~hole], p[3][:, ~hole])
    near = p[3][:, around.flatten()].mean(1, keepdim=True)
    assert torch.allclose(new[3][:, hole], near.expand(-1, int(hole.sum()), -1))
    assert control.watches(site)
    assert not relocate(hide=0).watches(site)


def test_the_row_of_the_photo_is_not_asked(walker: Walker) -> None:
    record = walker.invert("direct", steps=STEPS, guidance=1.0)
    counts: list[int] = []
    hidden, free = (
        walker.walk(record, PROMPTS, [relocate(hide=n)], counts=counts) for n in (STEPS, 0)
    )
    assert counts == [STEPS] * 2
    assert not torch.equal(hidden[1], free[1])


# What is asked for ----------------------------------------------------------------------------


def test_what_is_asked_for() -> None:
    assert read_moves({"red ball": "0.3, -0.1"}, {"red ball": "1.4", "box:0,0,1,.5": 0.5}) == (
        Moved("red ball", (0.3, -0.1), 1.4),
        Moved("box:0,0,1,.5", (0.0, 0.0), 0.5),
    )
    assert [str(m.asked().tree) for m in read_moves({}, {"red ball": 2, "box:0,0,1,.5": 2})] == [
        "words:red ball",
        "box:0,0,1,.5",
    ]
    for move, resize, text in (
        ({"cat": "0.3"}, {}, "--move 'cat' by '0.3': give two fractions"),
        ({"cat": (0.3, 1.2)}, {}, "--move 'cat'"),
        ({"cat": "a,b"}, {}, "--move 'cat'"),
        ({}, {"cat": "0"}, "--resize 'cat' times '0': give a factor from 0.25 to 4"),
        ({}, {"cat": "nan"}, "--resize 'cat'"),
    ):
        with pytest.raises(OptionError, match=text):
            read_moves(move, resize)
    with pytest.raises(NothingActed, match="'cat' is neither moved nor resized"):
        read_moves({"cat": "0,0"}, {"cat": "1"})


def test_what_decides_a_move(tmp_path: Path) -> None:
    file = tmp_path / "here.png"
    found = []
    for grey, right in ((255, 0.1), (255, 0.2), (254, 0.1)):
        Image.new("L", (16, 16), grey).save(file)
        (one,) = read_moves({f"file:{file}": (right, 0)}, {})
        found.append(json.dumps(one.made_of()))
    assert len(set(found)) == 3


def test_the_command_line() -> None:
    parser = argparse.ArgumentParser()
    options.add_edit(parser)
    args = parser.parse_args(["--move", "a=b c=0.3,0", "--resize", "box:0,0,1,1=0.5"])
    words, control = options.edit_words(args), options.edit_control(args)
    assert (words["move"], words["resize"]) == ({"a=b c": "0.3,0"}, {"box:0,0,1,1": "0.5"})
    assert control["edit"] == ("move",)
    with pytest.raises(OptionError, match="--move 'cat': give WHAT=VALUE"):
        options.edit_words(parser.parse_args(["--move", "cat"]))
    with pytest.raises(OptionError, match="--move gives 'cat' twice"):
        options.edit_words(parser.parse_args(["--move", "cat=0.1,0", "--move", "cat=0.2,0"]))


def test_it_stands_alone() -> None:
    for words in ({"swap": {"cat": "dog"}}, {"target": "a dog"}, {"also": ["a dog"]}):
        with pytest.raises(PromptError, match="--move and --resize change no words"):
            EditWords(move={"cat": (0.3, 0)}, **words).check()  # type: ignore[arg-type]
    prompts = EditWords(move={"cat": (0.3, 0)}).apply(PROMPTS[0])
    assert prompts.target == prompts.source
    moving = EditControl(edit="move")
    moving.check_names()
    moving.check_words(prompts)
    with pytest.raises(WordNotInPrompt, match="dog"):
        moving.check_words(EditWords(move={"dog": (0.3, 0)}).apply(PROMPTS[0]))
    for how, text in (
        (EditControl(), "act alone, not beside --edit p2p"),
        (EditControl(edit=("move", "pnp")), "not beside --edit pnp"),
        (EditControl(edit="move", local="cat"), "--local does not go with"),
        (EditControl(edit="move", mask_box="0,0,1,1"), "--mask does not go with"),
    ):
        with pytest.raises(OptionError, match=text):
            how.check_words(prompts)
    with pytest.raises(OptionError, match="which object, and where to"):
        moving.check_words(Prompts("a cat", "a dog"))


def test_half_the_strength_is_half_the_way_of_the_photo(walker: Walker) -> None:
    def acting(strength: float) -> Any:
        mask = np.zeros((128, 256), np.float32)
        mask[40:80, 64:96] = 1
        prompts = Prompts(*PROMPTS, moves=(Moved("cat", (0.25, 0.0), 1.0, Mask(mask)),))
        fit = Fit("crop", (256, 128), (64, 0, 192, 128), (128, 128), (128, 128))
        how = EditControl(edit="move", strength=strength)
        return plan_moves(how, walker.context(PROMPTS, STEPS), prompts, fit).controls

    box = [0.0, 0.3125, 0.25, 0.625]
    for strength, right in ((1.0, 0.5), (0.5, 0.25)):  # a quarter of the photo, half of its crop
        (control,) = acting(strength)
        there = control.report()["moved"][0]["box"]
        assert there == [box, [right, box[1], box[2] + right, box[3]]]
    assert acting(0.0) == ()


# A photo --------------------------------------------------------------------------------------


def test_a_photo_by_words_and_by_a_box(editor: Editor, ball: Inversion) -> None:
    words = editor.edit(ball, move={"red ball": (0.125, 0.0)}, paste_back=True)
    (row,) = words.report["controls"]
    (thing,) = row["moved"]
    shift = [b - a for a, b in zip(*thing["box"], strict=True)]
    assert shift == [0.125, 0.0, 0.125, 0.0]
    assert 0 < row["uncovered"] < row["mask_coverage"][0] < 1
    assert words.mask is not None
    assert words.report["moves"] == ["red ball by 0.125,0"]
    outside = np.asarray(words.mask) == 0
    new, old = (np.asarray(i.convert("RGB")) for i in (words.image, words.source))
    assert outside.any()
    assert (new[outside] == old[outside]).all()
    box = editor.edit(ball, resize={"box:0.2,0.3,0.6,0.7": 0.5})
    before, after = box.report["controls"][0]["moved"][0]["box"]
    assert after[3] == before[3]
    assert after[2] - after[0] < 0.7 * (before[2] - before[0])
    with pytest.raises(NothingActed, match="'red ball' is moved by less than a pixel"):
        editor.edit(ball, move={"red ball": (0.001, 0.0)})
    with pytest.raises(NothingActed, match="'red ball' would leave the picture"):
        editor.edit(ball, move={"red ball": (1.0, 0.0)})


def test_several_objects_move_at_once(editor: Editor, ball: Inversion) -> None:
    move = {"red ball": (0.125, 0.0), "box:0,0.8,0.2,1": (0.5, 0.0)}
    made = editor.edit(ball, move=move, resize={"red ball": 0.5})
    (row,) = made.report["controls"]
    one, other = row["moved"]
    assert (one["name"], other["name"]) == tuple(move)
    assert one["box"][1][2] - one["box"][1][0] < 0.7 * (one["box"][0][2] - one["box"][0][0])
    shift = [b - a for a, b in zip(*other["box"], strict=True)]
    assert shift == pytest.approx([0.5, 0, 0.5, 0])
    assert made.report["moves"] == ["red ball by 0.125,0 x0.5", "box:0,0.8,0.2,1 by 0.5,0"]


def test_settings_of_masks_reach_what_moves(editor: Editor, ball: Inversion) -> None:
    areas = []
    for threshold in (0.2, 0.6):
        options = {"mask_options": {"threshold": threshold}}
        made = editor.edit(ball, move={"red ball": (0.125, 0)}, **options)
        areas.append(made.report["controls"][0]["moved"][0]["coverage"][0])
    assert areas[0] > areas[1] > 0
    both = EditWords(move={"red ball": (0.1, 0), "box:0,0,0.2,0.2": (0.1, 0)}).apply(SAID)
    EditControl(edit="move", mask_options={"threshold": 0.3}).check_words(both)  # a box has none
    with pytest.raises(MaskError, match="--mask-option sharpness: nothing in"):
        EditControl(edit="move", mask_options={"sharpness": 1}).check_words(both)
    with pytest.raises(OptionError, match="--mask-option belongs to a mask"):
        EditControl(mask_options={"threshold": 0.3})


def test_strength_0_is_the_reconstruction(editor: Editor, ball: Inversion) -> None:
    edit = editor.edit(ball, move={"box:0.2,0.3,0.6,0.7": (0.25, 0.0)}, strength=0.0)
    assert edit.latents is not None
    assert torch.allclose(edit.latents[1], edit.latents[0], atol=1e-5)
    half = editor.edit(ball, move={"box:0.2,0.3,0.6,0.7": (0.25, 0.0)}, strength=0.5)
    before, after = half.report["controls"][0]["moved"][0]["box"]
    assert after[0] - before[0] == 0.125


def test_a_second_latent_cannot_be_moved(editor: Editor, ball: Inversion) -> None:
    made = dataclasses.replace(ball, method="edict")
    with pytest.raises(OptionError, match="edict walks a second latent"):
        edit_inversion(
            editor, made, EditWords(move={"ball": (0.25, 0)}).apply(SAID), EditControl(edit="move"),
            None, photo=None, progress=quiet,
        )  # fmt: skip
    with pytest.raises(OptionError, match=r"edict .* second latent"):
        editor.edit(
            PHOTOS / "red_ball.png",
            source=SAID,
            move={"ball": (0.25, 0.0)},
            method="edict",
            steps=2,
        )
