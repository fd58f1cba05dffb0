"""MasaCtrl: which layers it means, and whose keys and values they read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edit import NothingActed, edits, sites_of
from edit.control import Call
from edit.methods.masactrl import MutualSelfAttention
from edit.words import WordNotFound
from inversion import Layout
from inversion.registry import SettingError
from p2p_real.backbones import load_backbone
from tests.small import small_sd
from tests.unit.test_attention import SD, SDXL
from tests.unit.test_pnp import TABLETOP, transformers, watched
from tests.walks import Walker, off

PROMPTS = ("a fluffy cat on a mat", "a fluffy cat running on a mat")


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("masactrl") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS)


@pytest.mark.parametrize(
    ("shape", "layers", "first"),
    [
        (SD, [*transformers(2, 0, 1, 2), *transformers(3, 0, 1, 2)], 10),
        (SDXL, transformers(1, 0, 1, 2), 64),
        (TABLETOP, transformers(2, 0, 1), 5),
    ],
    ids=["sd", "sdxl", "tabletop"],
)
def test_the_published_layers_in_any_network(
    shape: dict[str, Any], layers: list[str], first: int
) -> None:
    """By place it is what the authors count: layer 10 of Stable Diffusion, 64 of SDXL."""
    assert watched(shape, MutualSelfAttention((0, 1))) == ([], layers)
    assert watched(shape, MutualSelfAttention((0, 1), first_layer=first)) == ([], layers)


def test_one_level_is_all_of_the_decoder() -> None:
    shape = dict(TABLETOP, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
    assert watched(shape, MutualSelfAttention((0, 1))) == ([], transformers(1, 0, 1))


def test_settings(walker: Walker) -> None:
    for settings, text in (
        ({"start": 0.5, "stop": 0.4}, "start is later than stop"),
        ({"layers": "up", "start_layer": 3}, "layers and start_layer say the same"),
        ({"layers": "top"}, "layers='top'"),
    ):
        with pytest.raises(SettingError, match=text):
            edits.create("masactrl", **settings)

    def window(steps: int, **settings: Any) -> tuple[int, int]:
        (control,) = edits.create("masactrl", **settings).controls(walker.context(PROMPTS, steps))
        return control.window  # type: ignore[attr-defined, no-any-return]

    assert window(50) == (4, 50)
    assert window(10, start=0.2, stop=0.7) == (2, 7)
    with pytest.raises(NothingActed, match="the window is empty"):
        window(10, start=0.3, stop=0.3)


def test_each_half_reads_its_own_source(walker: Walker) -> None:
    site = next(s for s in sites_of(walker.backbone.unet).values() if not s.cross)
    control = MutualSelfAttention((0, 4))
    step = next(iter(walker.backbone.schedule(4).down()))

    def index(layout: Layout) -> list[int] | None:
        swap = control.rows(Call(site, step, layout, (1, 1)))
        assert swap.q is None
        assert swap.k == swap.v
        return swap.k

    assert index(Layout.full(3)) == [0, 0, 0, 3, 3, 3]
    assert index(Layout.full(2, ("cond",))) == [0, 0]
    # the source's halves are equal, and its unconditional row was left out
    assert index(Layout((("uncond", 1), ("cond", 0), ("cond", 1)))) == [1, 1, 1]
    with pytest.raises(RuntimeError, match="left out"):
        index(Layout((("uncond", 1), ("cond", 1))))


def test_it_is_attention_over_the_sources_keys_and_values(walker: Walker) -> None:
    """Against a call of the layer itself with the source's hidden states as what is read."""
    w = walker
    attn = w.backbone.unet.up_blocks[2].attentions[0].transformer_blocks[0].attn1
    hidden: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
        hidden.append((args or (kwargs["hidden_states"],))[0].clone())
        outputs.append(out.clone())

    record = w.invert("ddim", steps=2)
    controls = w.controls(PROMPTS, 2, edit="masactrl", start=0.5)
    handle = attn.register_forward_hook(look, with_kwargs=True)
    try:
        w.walk(record, PROMPTS, controls)
    finally:
        handle.remove()
    assert len(hidden) == 2
    with torch.no_grad():
        for index, (h, out) in enumerate(zip(hidden, outputs, strict=True)):
            read = h if index == 0 else h[[0, 0, 2, 2]]
            wanted = attn(h, encoder_hidden_states=read)
            torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
            assert (off(wanted, attn(h)) > 1e-3) == (index == 1)


def test_rows_of_the_source(walker: Walker) -> None:
    w, counts = walker, []
    for name in ("direct", "negative-prompt"):
        record = w.invert(name, steps=4)
        controls = w.controls(PROMPTS, 4, edit="masactrl", start=0.5)
        runs = [
            w.walk(record, PROMPTS, controls, counts=counts, all_rows=all_rows)
            for all_rows in (False, True)
        ]
        assert off(*runs) < 1e-5
    assert counts == [2 + 2 + 4 + 4, 16, 12, 16]


# Guided by a mask ------------------------------------------------------------------------------

GUIDED = {"edit": "masactrl", "start": 0.5, "mask_words": "cat", "mask_threshold": 0.5}


def test_each_side_of_the_mask_looks_at_its_own(walker: Walker) -> None:
    """Against the layer itself, asked about the photo's object alone and about all else alone."""
    w = walker
    attn = w.backbone.unet.up_blocks[2].attentions[0].transformer_blocks[0].attn1
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(module: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
        calls.append(((args or (kwargs["hidden_states"],))[0].clone(), out.clone()))

    record = w.invert("ddim", steps=2)
    controls = w.controls(PROMPTS, 2, **GUIDED)
    areas: list[torch.Tensor] = []
    (guided,) = controls
    sides = guided.sides

    def watch(call: Call) -> Any:
        found = sides(call)
        if found is not None and call.site.name.startswith("up_blocks.2.attentions.0"):
            areas.append(guided._at(call.size))
        return found

    guided.sides = watch
    handle = attn.register_forward_hook(look, with_kwargs=True)
    try:
        w.walk(record, PROMPTS, controls)
    finally:
        handle.remove()
    (area,) = areas  # at the second step only
    assert 0 < area.float().mean() < 1
    hidden, out = calls[1]
    with torch.no_grad():
        for row, branch in ((1, 1), (3, 1)):  # the target's halves
            read = hidden[row - 1]
            inside = attn(hidden[row][None], encoder_hidden_states=read[area[0]][None])[0]
            outside = attn(hidden[row][None], encoder_hidden_states=read[~area[0]][None])[0]
            wanted = torch.where(area[branch][:, None], inside, outside)
            torch.testing.assert_close(out[row], wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out[0], attn(hidden[:1])[0], rtol=1e-4, atol=1e-5)
    (told,) = guided.report()["object"][:1]
    assert 0 < told < 1


@pytest.mark.parametrize("size", [(16, 16), (9, 17)])
def test_guided_by_explicit_maps_is_the_same(size: tuple[int, int], walker: Walker) -> None:
    w = Walker(walker.backbone, PROMPTS, size)
    record = w.invert("ddim", steps=2, guidance=1.5)
    settings = {**GUIDED, "start": 0.0}
    runs = [
        w.walk(record, PROMPTS, w.controls(PROMPTS, 2, **settings), explicit=explicit)
        for explicit in (False, True)
    ]
    assert off(*runs) < 1e-5
    plain = w.walk(record, PROMPTS, w.controls(PROMPTS, 2, edit="masactrl", start=0.0))
    assert off(runs[0][:1], plain[:1]) < 1e-5  # the source is not touched
    assert off(runs[0][1:], plain[1:]) > 1e-3


def test_rows_left_out_change_nothing_of_the_guided_form(walker: Walker) -> None:
    for name in ("direct", "negative-prompt"):
        record = walker.invert(name, steps=4)
        controls = walker.controls(PROMPTS, 4, **GUIDED)
        runs = [walker.walk(record, PROMPTS, controls, all_rows=all_) for all_ in (False, True)]
        assert off(*runs) < 1e-5


def test_words_of_the_mask(walker: Walker) -> None:
    context = walker.context(PROMPTS, 4)
    (control,) = edits.create("masactrl", mask_words="fluffy cat + mat").controls(context)
    assert control.words[0].nonzero().flatten().tolist() == [2, 3, 6]
    assert control.words[1].nonzero().flatten().tolist() == [2, 3, 7]
    with pytest.raises(WordNotFound, match="no word 'horse'"):
        edits.create("masactrl", mask_words="horse").controls(context)
    with pytest.raises(SettingError, match="give words joined by"):
        edits.create("masactrl", mask_words=" + ")
