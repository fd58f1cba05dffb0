"""pix2pix-zero guidance against two plain passes, finite differences and its own laws."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edit import BlendWords, ControlStack, FixedMask, NothingActed, edits
from edit.guidance import AMOUNTS, MapGuidance
from inversion import ClassifierFree, Denoiser, Replay, TextCond, sample
from inversion.registry import SettingError
from inversion.schedule import both_ends, mix
from p2p_real.backbones import load_backbone
from p2p_real.bench import plainly, subjects
from p2p_real.bench.guidance import OURS, PLAIN, GuidanceWays
from tests.small import small_sd, small_sdxl
from tests.walks import Record, Walker, off

CAT, DOG = "a fluffy cat sitting on a mat", "a fluffy dog sitting on a mat"
STEPS = 3
AMOUNT, SHORT = 0.5, 0.002


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guidance")


@pytest.fixture(scope="module")
def walker(folder: Path) -> Walker:
    made = load_backbone(str(small_sd(folder / "sd")), device="cpu", dtype="float32")
    return Walker(made, (CAT, DOG))


@pytest.fixture(scope="module")
def exact(folder: Path) -> Walker:
    """In float64, so that rounding, which such networks amplify, hides nothing."""
    backbone = load_backbone(str(small_sd(folder / "double", seed=3)), device="cpu")
    backbone.unet.double()
    return Walker(backbone, (CAT, DOG), (8, 8))


@pytest.fixture(scope="module")
def record(walker: Walker) -> Record:
    return walker.invert("direct", steps=STEPS, guidance=2.0)


def guided(walker: Walker, record: Record, **settings: Any) -> tuple[Tensor, MapGuidance]:
    settings = {"guidance_amount": AMOUNT, **settings}
    (control,) = walker.controls((CAT, DOG), STEPS, edit="pix2pix-zero", **settings)
    return walker.walk(record, (CAT, DOG), [control]), control


# One pass is two ------------------------------------------------------------------------------


def two_passes(walker: Walker, record: Record, amount: float) -> tuple[Tensor, list[float]]:
    """The source's maps first, all kept; then the edit alone, led back to them."""
    unet, maps, seen = walker.backbone.unet, [], []

    def look(p: Tensor, cross: bool, place: str) -> Tensor:
        if cross:
            seen.append(p)
        return p

    source, target = walker.backbone.encode_text([CAT, DOG]).embeds.double().split(1)
    empty = walker.backbone.empty_text().embeds.double()
    with plainly.explicit_attention(unet, look), torch.no_grad():
        for step in record.schedule.down():
            seen.clear()
            unet(record.trajectory[step.level][None], step.t, encoder_hidden_states=source)
            maps.append(list(seen))
    x, losses = record.trajectory[-1][None], []
    for step in record.schedule.down():
        moved = x.clone().requires_grad_()
        with plainly.explicit_attention(unet, look):
            seen.clear()
            unet(moved, step.t, encoder_hidden_states=target)
        pairs = zip(seen, maps[step.index], strict=True)
        loss = torch.stack([((p - q) ** 2).sum() / (2 * len(p)) for p, q in pairs]).sum()
        (gradient,) = torch.autograd.grad(loss, moved)
        losses.append(float(loss.detach()))
        with torch.no_grad():
            x = x - amount * gradient
            c = unet(x, step.t, encoder_hidden_states=target).sample
            u = unet(x, step.t, encoder_hidden_states=empty).sample
            out = u + record.guidance * (c - u)
            x = mix(both_ends(out, x, step.noisy, "epsilon"), step.clean)
    return x, losses


def test_one_pass_gives_what_two_give(exact: Walker) -> None:
    walker, made = exact, exact.invert("direct", steps=STEPS, guidance=2.0)
    record = dataclasses.replace(made, trajectory=made.trajectory.double())
    ours, control = guided(walker, record, guidance_amount=SHORT)
    theirs, losses = two_passes(walker, record, SHORT)
    assert control.shortened == 0
    assert control.losses == pytest.approx(losses, rel=1e-6)
    assert off(ours[1:], theirs) < 1e-6
    assert off(ours[1:], walker.walk(record, (CAT, DOG))[1:]) > 1e-5  # and it acts


def test_gradients_are_those_of_finite_differences(exact: Walker) -> None:
    walker, schedule = exact, exact.backbone.schedule(1)
    start = walker.latents(4)[0].double()
    generator = torch.Generator().manual_seed(1)
    apart, way = torch.randn(2, *start.shape, generator=generator, dtype=torch.float64)

    class Apart(Replay):
        """The target starts elsewhere."""

        def start(self, branches: int) -> Tensor:
            return torch.stack([start, start + 0.1 * apart + self.by * way])

    def loss(by: float, seen: list[Tensor]) -> float:
        (control,) = walker.controls((CAT, DOG), 1, edit="pix2pix-zero", guidance_amount=0)
        control.watch = seen.append
        denoiser = walker.denoiser((CAT, DOG), ClassifierFree(1.0))
        replay = Apart(start.expand(2, *start.shape))
        replay.by = by
        sample(denoiser, replay, schedule, [ControlStack([control])])
        return float(control.losses[0])

    seen: list[Tensor] = []
    loss(0.0, seen)
    h = 1e-5
    slope = (loss(h, []) - loss(-h, [])) / (2 * h)
    assert float((seen[0][0] * way).sum()) == pytest.approx(slope, rel=1e-6)
    assert abs(slope) > 1e-6


# Laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.1, 100.0])
def test_the_same_text_is_the_reconstruction(walker: Walker, amount: float) -> None:
    record = walker.invert("direct", steps=STEPS, guidance=2.0, share=1.0)
    (control,) = walker.controls((CAT, CAT), STEPS, edit="pix2pix-zero", guidance_amount=amount)
    x = walker.walk(record, (CAT, CAT), [control])
    assert off(x[1:], record.trajectory[:1]) < 1e-5
    assert max(control.losses) < 1e-7


def test_no_amount_is_the_edit_without_guidance(walker: Walker, record: Record) -> None:
    """Also beside a local blend, whose sums no look of the guidance may enter."""
    blend = BlendWords((("cat", "dog"),), start=0.0, threshold=(0.5, 0.5))
    alone = walker.controls((CAT, DOG), STEPS, edit="plain", blend=blend)
    both = walker.controls((CAT, DOG), STEPS, edit="pix2pix-zero", blend=blend, guidance_amount=0.0)
    without, beside = (walker.walk(record, (CAT, DOG), c) for c in (alone, both))
    assert torch.equal(without, beside)
    assert both[0].losses[0] > 0


def test_the_source_stays_and_nothing_is_left_behind(walker: Walker, record: Record) -> None:
    unet = walker.backbone.unet
    processors = dict(unet.attn_processors)
    first, _ = guided(walker, record)
    unet.requires_grad_(True)
    try:
        second, control = guided(walker, record)
        assert all(p.requires_grad and p.grad is None for p in unet.parameters())
    finally:
        unet.requires_grad_(False)
    assert torch.equal(first, second)
    assert torch.equal(first[0], record.trajectory[0])
    assert dict(unet.attn_processors) == processors
    assert control._denoiser.offsets == {}


def test_a_window_is_walked_through_and_left(walker: Walker, record: Record) -> None:
    late, control = guided(walker, record, start=0.67)
    assert len(control.losses) == 1
    assert control.report()["guidance_amount"] == AMOUNT
    assert off(late, walker.walk(record, (CAT, DOG))) > 0
    _, control = guided(walker, record, every=2)
    assert len(control.losses) == 2
    with pytest.raises(SettingError, match="start is not before stop"):
        edits.create("pix2pix-zero", start=0.5, stop=0.5)
    with pytest.raises(SettingError, match=r"guidance_amount=-0\.5"):
        edits.create("pix2pix-zero", guidance_amount=-0.5)


def test_the_preset_follows_what_is_predicted(folder: Path) -> None:
    made = small_sd(folder / "v", "v_prediction", zero_snr=True, seed=5)
    walker = Walker(load_backbone(str(made), device="cpu", dtype="float32"), (CAT, DOG))
    record = walker.invert("ddim", steps=2, guidance=2.0)
    (control,) = walker.controls((CAT, DOG), 2, edit="pix2pix-zero")
    assert torch.isfinite(walker.walk(record, (CAT, DOG), [control])).all()
    assert control.report()["guidance_amount"] == AMOUNTS["v_prediction"]


def test_on_sdxl(folder: Path) -> None:
    backbone = load_backbone(str(small_sdxl(folder / "xl")), device="cpu", dtype="float32")
    walker = Walker(backbone, (CAT, DOG))
    record = walker.invert("direct", steps=2, guidance=2.0)
    controls = walker.controls((CAT, DOG), 2, edit="pix2pix-zero", guidance_amount=5.0)
    x = walker.walk(record, (CAT, DOG), controls)
    assert torch.equal(x[0], record.trajectory[0])
    assert off(x, walker.walk(record, (CAT, DOG))) > 0


# Company --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ddim", "negative-prompt", "edict", "belm", "edit-friendly", "eta", "pix2pix-zero"]
)
def test_beside_every_kind_of_inversion(walker: Walker, name: str) -> None:
    record = walker.invert(name, steps=2, guidance=2.0)
    plain = walker.walk(record, (CAT, DOG))
    controls = walker.controls((CAT, DOG), 2, edit="pix2pix-zero", guidance_amount=5.0)
    x = walker.walk(record, (CAT, DOG), controls)
    assert torch.equal(x[0], plain[0])
    assert off(x[1], plain[1]) > 0


@pytest.mark.parametrize("name", ["pnp", "masactrl"])
def test_beside_features_of_the_source(walker: Walker, record: Record, name: str) -> None:
    context = walker.context((CAT, DOG), STEPS)
    held = list(edits.create(name).controls(context))
    lead = edits.create("pix2pix-zero", guidance_amount=AMOUNT).controls(context)
    alone = walker.walk(record, (CAT, DOG), held)
    led = walker.walk(record, (CAT, DOG), [*held, *lead])
    assert torch.equal(led[0], alone[0])
    assert off(led[1], alone[1]) > 0


def test_beside_p2p_a_mask_and_several_targets(walker: Walker, record: Record) -> None:
    prompts = (CAT, DOG, "a big fluffy cat sitting on a red mat")
    context = walker.context(prompts, STEPS)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    p2p = list(edits.create("p2p", cross_replace=0.4, self_replace=0.4).controls(context))
    lead = edits.create("pix2pix-zero", guidance_amount=AMOUNT).controls(context)
    held = walker.walk(record, prompts, [*p2p, FixedMask(mask)])
    led = walker.walk(record, prompts, [*p2p, *lead, FixedMask(mask)])
    outside = (mask == 0).expand(2, 4, 16, 16)
    assert torch.equal(led[1:][outside], led[:1].expand(2, -1, -1, -1)[outside])
    assert all(off(led[b], held[b]) > 0 for b in (1, 2))
    one = walker.walk(
        record,
        prompts[:2],
        [
            *edits.create("p2p", cross_replace=0.4, self_replace=0.4).controls(
                walker.context(prompts[:2], STEPS)
            ),
            *edits.create("pix2pix-zero", guidance_amount=AMOUNT).controls(
                walker.context(prompts[:2], STEPS)
            ),
            FixedMask(mask),
        ],
    )
    assert off(led[:2], one) < 1e-5


def test_words_are_held_to_what_they_continue(walker: Walker) -> None:
    longer = "a big fluffy cat sitting on a mat"
    (control,) = edits.create("pix2pix-zero").controls(walker.context((CAT, longer), STEPS))
    assert control.matrix is not None
    assert control.taken is not None
    assert control.taken[0, 2] == 0  # "big" has no map to be held to
    assert control.matrix[0, 2, 3] == 1  # "fluffy" is one place further on
    for settings, target in (({}, DOG), ({"compat": True}, longer)):
        context = walker.context((CAT, target), STEPS)
        (control,) = edits.create("pix2pix-zero", **settings).controls(context)
        assert control.matrix is None


# Guards ---------------------------------------------------------------------------------------


def test_a_move_too_long_is_cut(walker: Walker, record: Record) -> None:
    x, control = guided(walker, record, guidance_amount=1e6)
    assert control.shortened
    assert control.amount < 1e6
    assert torch.isfinite(x).all()
    found = [after <= before for _, before, after in control.checks]
    assert found[-1] or control.skipped
    wild, _ = guided(walker, record, guidance_amount=1e6, compat=True)
    assert off(wild[1], x[1]) > 0.1


def test_gradients_that_are_no_numbers_move_nothing(walker: Walker, record: Record) -> None:
    def spoil(module: Any, args: Any, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda g: g * float("nan"))

    handle = walker.backbone.unet.conv_in.register_forward_hook(spoil)
    try:
        x, control = guided(walker, record)
    finally:
        handle.remove()
    assert control.skipped == STEPS
    assert torch.equal(x, walker.walk(record, (CAT, DOG)))


def test_a_window_without_steps_is_an_error(walker: Walker, record: Record) -> None:
    control = MapGuidance(1.0, (0, 0))
    stack = ControlStack([control])
    denoiser = walker.denoiser((CAT, DOG), ClassifierFree(2.0))
    sample(denoiser, record.replay(), record.schedule, [stack])
    with pytest.raises(NothingActed, match="raise its stop"):
        stack.report()


def test_both_halves_move_as_published(walker: Walker, record: Record) -> None:
    seen: list[Tensor] = []
    context = walker.context((CAT, DOG), STEPS)
    (control,) = edits.create("pix2pix-zero", guidance_amount=1.0, compat=True).controls(context)
    control.watch = seen.append
    walker.walk(record, (CAT, DOG), [control])
    assert [len(g) for g in seen] == [2] * STEPS
    # at first the unconditional half is the source's own, so nothing leads it back
    assert float(seen[0][0].abs().max()) < 1e-6 * float(seen[0][1].abs().max())


def test_the_bench_times_ways_that_agree() -> None:
    ways = GuidanceWays(subjects.tabletop("cpu"), 2)
    published = ways.published(explicit=True)
    assert off(ways.compat(), published) < 1e-5
    assert off(ways.published(explicit=False), published) < 1e-5
    plain, led = (ways.ways()[name]() for name in (PLAIN, OURS))
    assert 1e-4 < off(led, plain) < 0.5


def test_offsets_are_added_where_the_network_is_asked(walker: Walker) -> None:
    denoiser = walker.denoiser((CAT, DOG), ClassifierFree(2.0))
    step = next(iter(walker.backbone.schedule(2).down()))
    x = walker.latents().expand(2, -1, -1, -1)
    shift = 0.1 * torch.ones_like(x[0])
    layout = denoiser.full_layout()
    plain = denoiser.predict(x, step, layout)
    denoiser.offsets["cond", 1] = shift
    moved = denoiser.predict(x, step, layout)
    assert [bool((a != b).any()) for a, b in zip(plain, moved, strict=True)] == [
        key == ("cond", 1) for key in layout.rows
    ]
    row = TextCond.cat([denoiser.cond.rows([1])])
    alone = Denoiser(denoiser.model, row, denoiser.uncond, ClassifierFree(1.0))
    assert off(alone.predict(x[1:] + shift, step, alone.full_layout())[0], moved[-1]) < 1e-5
    assert dataclasses.replace(denoiser).offsets is denoiser.offsets
