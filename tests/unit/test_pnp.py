"""Plug-and-play: which blocks and layers it means, and what it puts into them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from edit import ControlStack, NothingActed, edits, sites_of
from edit.features import Places, blocks_of
from edit.methods.pnp import FeatureInject, QueryKeyInject
from inversion import ClassifierFree, sample
from inversion.registry import SettingError
from p2p_real.backbones import load_backbone
from tests.small import small_sd
from tests.unit.test_attention import SD, SDXL
from tests.walks import Walker, off

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat")
TABLETOP = {
    "block_out_channels": (64, 128, 192),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 128,
    "attention_head_dim": 2,
    "norm_num_groups": 16,
}


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("pnp") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS)


class Net:
    """A denoiser as far as a control looks at it before a walk."""

    def __init__(self, unet: Any) -> None:
        self.model = self
        self.unet = unet


def watched(shape: dict[str, Any], control: Any) -> tuple[list[str], list[str]]:
    """Names of the blocks and layers that a control watches in a network of a shape."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**shape)
    control.begin(Net(unet))
    blocks = [b.name for b in blocks_of(unet) if control.watches_block(b)]
    layers = [
        s.name.split(".transformer")[0] for s in sites_of(unet).values() if control.watches(s)
    ]
    return blocks, list(dict.fromkeys(layers))


def transformers(level: int, *numbers: int) -> list[str]:
    return [f"up_blocks.{level}.attentions.{n}" for n in numbers]


# Where it stands ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "block", "layers"),
    [
        (
            SD,
            "up_blocks.1.resnets.1",
            [*transformers(1, 1, 2), *transformers(2, 0, 1, 2), *transformers(3, 0, 1, 2)],
        ),
        (
            SDXL,
            "up_blocks.0.resnets.1",
            [*transformers(0, 1, 2), *transformers(1, 0, 1, 2)],
        ),
        (TABLETOP, "up_blocks.1.resnets.1", [*transformers(1, 1), *transformers(2, 0, 1)]),
    ],
    ids=["sd", "sdxl", "tabletop"],
)
def test_the_published_places_in_any_network(
    shape: dict[str, Any], block: str, layers: list[str]
) -> None:
    assert watched(shape, FeatureInject((0, 1), "own")) == ([block], [])
    assert watched(shape, QueryKeyInject((0, 1), "own")) == ([], layers)


def test_blocks_come_in_order_with_their_scales() -> None:
    with torch.device("meta"):
        blocks = blocks_of(UNet2DConditionModel(**SD))
    assert [b.index for b in blocks] == list(range(22))
    scales = [(b.place, b.scale) for b in blocks]
    assert scales[:8] == [("down", s) for s in (1, 1, 2, 2, 4, 4, 8, 8)]
    assert scales[8:10] == [("mid", 8)] * 2
    assert scales[10:] == [("up", s) for s in (8, 4, 2, 1) for _ in range(3)]
    assert [b.number for b in blocks][10:13] == [0, 1, 2]


def test_places_by_name() -> None:
    places = Places.read("up/4.1 + down/2+mid", "pnp: features")
    assert places.parts == (("up", 4, 1), ("down", 2, -1), ("mid", 0, -1))
    with torch.device("meta"):
        blocks = list(blocks_of(UNet2DConditionModel(**SD)))
    named = [b.name for b in blocks if places.has(b)]
    assert named == [
        "down_blocks.1.resnets.0", "down_blocks.1.resnets.1", "mid_block.resnets.0",
        "mid_block.resnets.1", "up_blocks.1.resnets.1",
    ]  # fmt: skip
    everything = Places.read("all", "pnp: features")
    assert all(everything.has(b) for b in blocks)
    for wrong in ("", "left", "up/", "up/4.", "up4", "up/4,down/2", "auto"):
        with pytest.raises(SettingError, match="pnp: features="):
            Places.read(wrong, "pnp: features")


def test_settings_that_cannot_be() -> None:
    for settings, text in (
        ({"feature_start": 0.9}, "feature_start is later than feature_stop"),
        ({"attention_start": 0.6}, "attention_start is later"),
        ({"layers": "deep"}, "layers='deep'"),
        ({"half": "both"}, "is not one of own, cond"),
    ):
        with pytest.raises(SettingError, match=text):
            edits.create("pnp", **settings)


def test_windows(walker: Walker) -> None:
    def windows(steps: int, **settings: Any) -> list[tuple[str, tuple[int, int]]]:
        made = edits.create("pnp", **settings).controls(walker.context(PROMPTS, steps))
        return [(c.label, c.window) for c in made]  # type: ignore[attr-defined]

    assert windows(50) == [("features", (0, 40)), ("pnp self-attention", (0, 25))]
    assert windows(10, feature_stop=0.0) == [("pnp self-attention", (0, 5))]
    assert windows(10, feature_share=0.0) == [("pnp self-attention", (0, 5))]
    assert windows(10, attention_start=0.2, attention_stop=0.2) == [("features", (0, 8))]
    assert windows(4, feature_stop=0.1) == [("features", (0, 1)), ("pnp self-attention", (0, 2))]
    assert windows(4, feature_stop=0.1, compat=True) == [("pnp self-attention", (0, 2))]
    with pytest.raises(NothingActed, match="both windows are empty"):
        windows(10, feature_stop=0.0, attention_stop=0.0)


# What it does ---------------------------------------------------------------------------------


class See:
    """Keeps the outputs of a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.all: list[Tensor] = []
        # runs before hooks that are added later, so it sees what came out of the module itself
        self.handle = module.register_forward_hook(lambda m, a, out: self.all.append(out.clone()))


@pytest.mark.parametrize(("half", "share"), [("own", 1.0), ("cond", 1.0), ("own", 0.25)])
def test_the_next_layers_get_the_sources_features(walker: Walker, half: str, share: float) -> None:
    w, given = walker, []
    control = FeatureInject((1, 3), half, None, share)
    target = next(c for b, c in blocks_of(w.backbone.unet).items() if b.scale == 2 and b.number
                  and b.place == "up")  # fmt: skip
    see = See(target)
    stack = ControlStack([control])
    denoiser = w.denoiser(PROMPTS, ClassifierFree(5.0))
    record = w.invert("ddim", steps=4)
    see.all.clear()

    def after(module: Any, args: Any, out: Tensor) -> None:
        given.append(out.clone())

    try:
        with stack.attach(denoiser):
            handle = target.register_forward_hook(after)
            try:
                x = record.replay().start(2)
                for step in record.schedule.down(4):
                    denoiser(x, step)
            finally:
                handle.remove()
        rows = stack.report()
    finally:
        see.handle.remove()
    assert rows[0]["layers_hooked"] == {"features up 1/2": 1}
    assert rows[0]["steps_injected"] == [1, 2]
    for index, (own, got) in enumerate(zip(see.all, given, strict=True)):
        wanted = own.clone()  # rows: uncond source, uncond target, cond source, cond target
        if index in (1, 2):
            wanted[1] = torch.lerp(own[1], own[0 if half == "own" else 2], share)
            wanted[3] = torch.lerp(own[3], own[2], share)
            assert off(own[3], own[2]) > 1e-2
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_an_empty_window_is_plain_and_an_error(walker: Walker) -> None:
    w = walker
    record = w.invert("ddim", steps=3)
    for control in (FeatureInject((0, 0), "own"), QueryKeyInject((2, 2), "cond")):
        stack = ControlStack([control])
        denoiser = w.denoiser(PROMPTS, ClassifierFree(record.guidance))
        x = sample(denoiser, record.replay(), record.schedule, [stack])
        assert torch.equal(x, w.walk(record, PROMPTS))
        with pytest.raises(NothingActed, match=f"no layer was .* .{control.remedy}."):
            stack.report()


def test_a_network_without_such_a_block_is_an_error(walker: Walker) -> None:
    shape = dict(SD, up_block_types=("UpBlock2D",) * 4)
    with pytest.raises(NothingActed, match="no attention in its decoder"):
        watched(shape, FeatureInject((0, 1), "own"))
    record = walker.invert("ddim", steps=1)
    nowhere = FeatureInject((0, 1), "own", Places((("up", 64, -1),)))
    with pytest.raises(NothingActed, match="has none of the layers"):
        walker.walk(record, PROMPTS, [nowhere])


def test_rows_of_the_source(walker: Walker) -> None:
    """Own halves cost the source's unconditional row while a window is open, no longer."""
    w = walker
    record = w.invert("direct", steps=4)
    seen = {}
    for half in ("own", "cond"):
        counts: list[int] = []
        controls = w.controls(PROMPTS, 4, edit="pnp", half=half, feature_stop=0.5)
        runs = [
            w.walk(record, PROMPTS, controls, counts=counts, all_rows=all_rows)
            for all_rows in (False, True)
        ]
        assert off(*runs) < 1e-5
        seen[half] = counts
    assert seen == {"own": [4 + 4 + 2 + 2, 16], "cond": [3 + 3 + 2 + 2, 16]}
    # the halves are equal there, so one row serves both
    counts = []
    record = w.invert("negative-prompt", steps=4)
    runs = [
        w.walk(record, PROMPTS, w.controls(PROMPTS, 4, edit="pnp"), counts=counts, all_rows=a)
        for a in (False, True)
    ]
    assert off(*runs) < 1e-5
    assert counts == [12, 16]
