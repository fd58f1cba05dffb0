"""Null-text inversion: photos together, checkpointed, in half precision, gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inversion import Cancelled, ClassifierFree, inverters
from inversion.adam import RowAdam
from inversion.checkpointing import checkpointed
from inversion.inverter import Cost
from inversion.memo import _rows
from inversion.methods.null_text import pulled
from inversion.resuming import PartFile, work_of
from p2p_real.backbones import load_backbone
from tests.small import small_sd, small_sdxl
from tests.walks import Walker, off

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat", "a cat", "a dog on the mat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd(tmp_path_factory.mktemp("null-text") / "model")


@pytest.fixture(scope="module")
def walker(folder: Path) -> Walker:
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS, (9, 17))


def invert(
    walker: Walker,
    photos: int = 1,
    *,
    steps: int = 3,
    first: int = 0,
    scale: float = 7.5,
    **more: Any,
) -> tuple[Any, Any]:
    """Recording and denoiser of some photos; ``progress`` and ``keep`` go to ``invert``."""
    way = {k: more.pop(k) for k in ("progress", "keep") if k in more}
    method = inverters.create(more.pop("name", "null-text"), **more)
    rows = range(first, first + photos)
    denoiser = walker.denoiser([PROMPTS[b] for b in rows], ClassifierFree(scale))
    x0 = torch.cat([walker.latents(b) for b in rows])
    return method.invert(x0, denoiser, walker.backbone.schedule(steps), **way), denoiser


# Photos together ------------------------------------------------------------------------------


def early(walker: Walker, scale: float) -> float:
    """A stop that some photos reach sooner than others."""
    losses = invert(walker, 4, inner_steps=4, early_stop=0.0, scale=scale)[0].tape["losses"]
    return float(losses[0, :, 1].median())


@pytest.mark.parametrize("compat", [False, True])
def test_each_photo_stops_on_its_own(walker: Walker, compat: bool) -> None:
    settings = {"inner_steps": 4, "early_stop": early(walker, 2.0), "compat": compat, "scale": 2.0}
    together, asked = invert(walker, 4, **settings)
    ran = (together.tape["losses"] >= 0).sum(-1)
    assert len(ran.unique()) > 1  # else the law below says nothing of leaving
    forward = 0
    for b in range(4):
        alone, counts = invert(walker, first=b, **settings)
        forward += counts.rows_seen
        assert torch.equal((alone.tape["losses"] >= 0).sum(-1)[:, 0], ran[:, b])
        both = together.tape["uncond"][:, b]
        apart = (both - alone.tape["uncond"][:, 0]).abs().flatten() / both.abs().max()
        assert apart.quantile(0.99) < 1e-4
        assert apart.max() < 1e-3
    assert asked.rows_seen == forward


def test_rows_through_which_a_gradient_went_are_counted(walker: Walker) -> None:
    made, asked = invert(walker, 3, inner_steps=2, early_stop=0.0)
    assert (made.tape["losses"] >= 0).all()
    assert asked.rows_backward == 3 * 3 * 2
    assert asked.rows_seen == 3 * (3 + 3 + 3 * 2 + 3)
    assert Cost(3 * (3 + 2), 3 * 2) == inverters.create("null-text", inner_steps=2).cost(3)


@pytest.mark.parametrize("together", [1, 3])
def test_photos_in_several_rounds(walker: Walker, together: int) -> None:
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "null-text inversion":
            told.append((done, total))
            assert len(note.split()) >= 2

    apart, _ = invert(walker, 4, inner_steps=1, scale=2.0, together=together, progress=progress)
    whole, _ = invert(walker, 4, inner_steps=1, scale=2.0)
    rounds = -(-4 // together)
    assert told == [(i + 1, 3 * rounds) for i in range(3 * rounds)]
    assert off(apart.tape["losses"], whole.tape["losses"]) < 1e-4


def test_a_window_leaves_the_empty_text_outside(walker: Walker) -> None:
    made, _ = invert(walker, 2, steps=4, inner_steps=2, early_stop=0.0, start=0.25, stop=0.75)
    empty = walker.backbone.empty_text(walker.pixels).embeds[0]
    same = [all(torch.equal(t, empty) for t in step) for step in made.tape["uncond"]]
    assert same == [True, False, False, True]
    assert inverters.create("null-text", start=0.25, stop=0.75).cost(4) == Cost(12 + 20, 20)


def test_adam_is_adam_for_rows_that_stay() -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(3, 5, generator=draw)
    slopes = [torch.randn(3, 5, generator=draw) for _ in range(6)]
    x, ours = start.clone(), RowAdam(start, 0.03)
    for j, slope in enumerate(slopes):
        rows = [0, 1, 2] if j < 3 else [2, 0]
        ours.step(x, slope[rows], rows)
    for b, steps in ((0, 6), (1, 3), (2, 6)):
        leaf = start[b].clone()
        theirs = torch.optim.Adam([leaf], lr=0.03)
        for slope in slopes[:steps]:
            leaf.grad = slope[b].clone()
            theirs.step()
        assert off(x[b], leaf) < 1e-6


def test_rows_of_a_remembered_output() -> None:
    a = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(_rows(a, 4, [2, 0]), a[[2, 0]])
    assert torch.equal(_rows(a, 2, [1]), a[2:])  # two a row, such as heads
    assert torch.equal(_rows(a[:1], 4, [3]), a[:1])  # one for all
    assert _rows((a, None), 4, [1])[1] is None
    for unclear in (a[:3], {"a": a}):
        with pytest.raises(LookupError):
            _rows(unclear, 2, [0])


def test_sdxl_remembers_what_belongs_to_each_photo(tmp_path: Path) -> None:
    """Its time ids go through the network several a photo."""
    backbone = load_backbone(str(small_sdxl(tmp_path / "xl")), device="cpu", dtype="float32")
    w = Walker(backbone, PROMPTS, (8, 8))
    settings = {"inner_steps": 3, "early_stop": early(w, 1.5), "scale": 1.5}
    kept, _ = invert(w, 4, **settings)
    assert len((kept.tape["losses"] >= 0).sum(-1).unique()) > 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inversion.memo.Memo.start", lambda self: None)
        fresh, _ = invert(w, 4, **settings)
    assert off(kept.tape["uncond"], fresh.tape["uncond"]) < 1e-4
    assert off(kept.tape["losses"], fresh.tape["losses"]) < 1e-4


# The gradient ---------------------------------------------------------------------------------


def test_a_gradient_is_put_back_to_its_size() -> None:
    leaf = torch.randn(2, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    slope = torch.tensor([[1e-6, 3e-7, 0.0], [0.0, 0.0, 0.0]])
    found = pulled(leaf * 2, leaf, slope)
    assert torch.equal(found, 2 * slope)


def test_checkpointing_changes_no_number_and_is_put_back(walker: Walker) -> None:
    unet = walker.backbone.unet
    before = [(m, dict(m.__dict__)) for m in unet.modules()]
    settings = {"inner_steps": 2, "early_stop": 0.0, "scale": 2.0}
    plain, _ = invert(walker, 2, **settings)
    saved, _ = invert(walker, 2, checkpointing=True, **settings)
    assert off(saved.tape["uncond"], plain.tape["uncond"]) < 1e-6
    assert all(m.__dict__ == was for m, was in before)
    x = walker.latents()
    text = walker.backbone.empty_text(walker.pixels).embeds.requires_grad_(True)

    def held(on: bool) -> int:
        """Values that the graph of one row keeps."""
        sizes: list[int] = []

        def pack(t: Tensor) -> Tensor:
            sizes.append(t.numel())
            return t

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
        with checkpointed(walker.backbone, on), hooks:
            unet(x, 1, encoder_hidden_states=text)
        return sum(sizes)

    assert held(True) < held(False)


def test_a_network_without_blocks_says_so() -> None:
    with (
        pytest.raises(ValueError, match="checkpointing: Linear cannot"),
        checkpointed(torch.nn.Linear(1, 1)),
    ):
        pass


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folder: Path, dtype: str) -> None:
    """The text, Adam and the loss stay in float32, and the loss falls."""
    w = Walker(load_backbone(str(folder), device="cpu", dtype=dtype), PROMPTS, (8, 8))
    made, _ = invert(w, 2, steps=4, inner_steps=6, early_stop=0.0)
    texts, losses = made.tape["uncond"], made.tape["losses"]
    assert texts.dtype == losses.dtype == torch.float32
    assert torch.isfinite(texts).all()
    assert not torch.equal(texts, texts.to(w.backbone.dtype).float())
    assert (losses[:, :, 1:].amin(-1) < losses[:, :, 0]).float().mean() > 0.7


def test_float16_keeps_gradients_that_are_next_to_nothing(folder: Path) -> None:
    found = {}
    for dtype in ("float32", "float16"):
        w = Walker(load_backbone(str(folder), device="cpu", dtype=dtype), PROMPTS, (8, 8))
        x = w.latents()
        leaf = w.backbone.empty_text(w.pixels).embeds.clone().requires_grad_(True)
        out = w.backbone.unet(
            x.to(w.backbone.dtype), 500, encoder_hidden_states=leaf.to(w.backbone.dtype)
        ).sample.float()
        slope = torch.sign(x) * 1e-8
        found[dtype] = pulled(out, leaf, slope)
    apart = (found["float16"] - found["float32"]).norm() / found["float32"].norm()
    assert apart < 0.1


# Stopped and gone on with ---------------------------------------------------------------------


def stopping(after: int) -> Any:
    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "null-text inversion" and done == after:
            raise Cancelled

    return progress


@pytest.mark.parametrize("name", ["null-text", "proximal-null-text"])
def test_a_stopped_run_goes_on_to_the_same_bits(walker: Walker, tmp_path: Path, name: str) -> None:
    settings = {"name": name, "inner_steps": 2, "early_stop": 0.0, "together": 2}
    whole, asked = invert(walker, 3, **settings)
    for after in (1, 3, 5):
        file = tmp_path / f"{after}.part"
        with pytest.raises(Cancelled):
            invert(walker, 3, **settings, keep=PartFile(file, 0.0), progress=stopping(after))
        told: list[int] = []

        def progress(stage: str, done: int, total: int, note: str = "") -> None:
            assert stage == "null-text inversion"  # the path up is not walked again
            told.append(done)  # noqa: B023

        keep = PartFile(file, 0.0)
        again, counts = invert(walker, 3, **settings, keep=keep, progress=progress)
        assert told == list(range(after + 1, 7))
        assert torch.equal(again.trajectory, whole.trajectory)
        assert all(torch.equal(again.tape[k], whole.tape[k]) for k in whole.tape)
        assert counts.rows_seen == asked.rows_seen
        assert counts.rows_backward == asked.rows_backward
        assert keep.seconds > 0
        keep.remove()
        assert not list(tmp_path.iterdir())


def test_only_the_same_work_is_gone_on_with(
    walker: Walker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "it.part"
    invert(walker, inner_steps=1, keep=PartFile(file, 0.0))
    left = file.read_bytes()
    for other in (
        {"inner_steps": 2},
        {"first": 1},
        {"steps": 2},
        {"scale": 3.0},
    ):
        file.write_bytes(left)
        settings = {"inner_steps": 1, **other}
        made, counts = invert(walker, **settings, keep=PartFile(file, 1e9))
        anew, plain = invert(walker, **settings)
        assert counts.rows_seen == plain.rows_seen
        assert torch.equal(made.tape["uncond"], anew.tape["uncond"])
    assert not caplog.records
    file.write_bytes(left[: len(left) // 2])
    made, _ = invert(walker, inner_steps=1, keep=PartFile(file, 1e9))
    assert "starts anew" in caplog.text
    nowhere = PartFile(file / "below" / "x.part", 0.0)
    made, _ = invert(walker, inner_steps=1, keep=nowhere)
    assert "cannot be written" in caplog.text
    assert torch.equal(made.tape["uncond"], invert(walker, inner_steps=1)[0].tape["uncond"])


def test_what_a_part_file_says_of_itself(tmp_path: Path) -> None:
    keep = PartFile(tmp_path / "new" / "x.part", 1e9)
    assert keep.load("work") is None
    assert not keep.due()
    keep.save("work", {"x": torch.ones(2)}, {"steps": 3})
    found = keep.load("work")
    assert found is not None
    assert found[1] == {"steps": 3}
    assert torch.equal(found[0]["x"], torch.ones(2))
    assert keep.load("other work") is None
    save_file({"x": torch.ones(2)}, keep.path, metadata={"facts": json.dumps({})})
    assert keep.load("work") is None
    assert work_of([torch.zeros(2)], a=1) != work_of([torch.zeros(2)], a=2)
    assert work_of([torch.zeros(2)]) != work_of([torch.zeros(2, 1)])
    assert work_of([torch.zeros(2)]) != work_of([torch.tensor([0.0, 1e-45])])
