"""What every method must keep to, by existing: both registries, walked through by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edit import EditMethod, edits
from inversion import (
    ClassifierFree,
    Inversion,
    Inverter,
    SettingError,
    UnknownMethod,
    inverters,
    sample,
)
from p2p_real.backbones import load_backbone
from tests.small import small_sd
from tests.walks import Record, Walker, off

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat")
STEPS = 3
METHODS, EDITS = list(inverters), list(edits)
FAST: dict[str, Any] = {"inner_steps": 2}  # settings that only cost time, where a method has them


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    """A backbone at an odd, oblong latent size: map sides are rounded up at every scale."""
    folder = small_sd(tmp_path_factory.mktemp("contract") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS, (9, 17))


def settings_of(cls: Any) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {k: v for k, v in FAST.items() if k in names}


@pytest.fixture(scope="module")
def records(walker: Walker) -> dict[str, Record]:
    return {
        name: walker.invert(name, steps=STEPS, **settings_of(inverters[name])) for name in METHODS
    }


def test_the_registries_are_not_empty() -> None:
    assert {"ddim", "null-text", "negative-prompt", "direct"} <= set(METHODS)
    assert {"p2p", "plain"} <= set(EDITS)


# Inversion methods ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_shapes(name: str, walker: Walker, records: dict[str, Record]) -> None:
    record = records[name]
    assert record.trajectory.shape == (STEPS + 1, 4, 9, 17)
    assert record.trajectory.dtype == torch.float32
    assert torch.equal(record.trajectory[0], walker.latents()[0])
    assert torch.isfinite(record.trajectory).all()
    assert not record.trajectory.requires_grad
    for key, value in record.tape.items():
        assert len(value) == STEPS, key
        assert not value.requires_grad
    for count in (1, 2):
        x = walker.walk(record, PROMPTS[:count])
        assert x.shape == (count, 4, 9, 17)
        assert x.dtype == torch.float32


@pytest.mark.parametrize("name", METHODS)
def test_says_what_it_is(name: str) -> None:
    method = inverters.create(name)
    assert isinstance(method, Inverter)
    assert method.name == name
    assert method.paper
    assert (type(method).__doc__ or "").strip()
    assert method.forwards(50)


@pytest.mark.parametrize(("registry", "name"), [(r, n) for r in (inverters, edits) for n in r])
def test_settings(registry: Any, name: str) -> None:
    """Every setting has help, a sound default, survives JSON, and refuses what it cannot be."""
    cls = registry[name]
    method = registry.create(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.anything = 1
    values = json.loads(json.dumps(registry.settings(method)))
    assert registry.settings(registry.create(name, **values)) == registry.settings(method) or any(
        isinstance(v, list) for v in values.values()
    )
    with pytest.raises(SettingError, match="has no setting 'colour'"):
        registry.create(name, colour=1)
    for f in dataclasses.fields(cls):
        meta = f.metadata
        assert meta.get("help"), f"{name}.{f.name} has no help"
        wrong: list[Any] = []
        if meta.get("choices"):
            assert f.default in meta["choices"]
            wrong.append("no such choice")
        if meta.get("low") is not None:
            assert f.default >= meta["low"]
            wrong.append(meta["low"] - 1)
        if meta.get("high") is not None:
            assert f.default <= meta["high"]
            wrong.append(meta["high"] + 1)
        if isinstance(f.default, float):
            wrong += [float("nan"), float("inf")]
        for value in wrong:
            with pytest.raises(SettingError) as refused:
                registry.create(name, **{f.name: value})
            assert f.name in str(refused.value)
            assert name in str(refused.value)
        if isinstance(f.default, bool | int | float):
            read = registry.create(name, **{f.name.replace("_", "-"): str(f.default)})
            assert getattr(read, f.name) == f.default
            with pytest.raises(SettingError):
                registry.create(name, **{f.name: "a word"})


@pytest.mark.parametrize(("registry", "kind"), [(inverters, "inversion"), (edits, "edit")])
def test_unknown_names_are_met_with_the_nearest(registry: Any, kind: str) -> None:
    for name in registry:
        with pytest.raises(UnknownMethod) as refused:
            registry.create(name + "x")
        assert f"did you mean {name!r}?" in str(refused.value)
        assert f"no {kind} method" in str(refused.value)


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_replays_bit_for_bit(
    name: str, walker: Walker, records: dict[str, Record], tmp_path: Path
) -> None:
    record = records[name]
    made = Inversion(
        trajectory=record.trajectory,
        tape=record.tape,
        schedule=record.schedule,
        method=name,
        settings=inverters.settings(record.method),
        prompt=PROMPTS[0],
        guidance_scale=record.guidance,
        photo={"name": "none"},
        extra={"seed": 0},
    )
    loaded = Inversion.load(made.save(tmp_path / "it.inv.safetensors"))
    assert loaded.schedule == record.schedule
    assert loaded.header() == made.header()
    assert type(loaded.inverter) is type(record.method)
    again = Record(
        loaded.inverter, loaded.trajectory, loaded.tape, loaded.schedule, loaded.guidance_scale
    )
    assert torch.equal(walker.walk(again, PROMPTS), walker.walk(record, PROMPTS))


@pytest.mark.parametrize("name", METHODS)
def test_two_runs_are_one(name: str, walker: Walker, records: dict[str, Record]) -> None:
    """Bit-equal, with the world's random state and the network's flags as they were."""
    unet = walker.backbone.unet
    weights = list(unet.parameters())
    weights[0].requires_grad_(True)  # as a user's own pipeline has it
    flags = [p.requires_grad for p in weights]
    before = [(k, id(v)) for k, v in unet.attn_processors.items()]
    hash_before = [float(p.detach().double().sum()) for p in weights]
    state = torch.get_rng_state()
    try:
        again = walker.invert(name, steps=STEPS, **settings_of(inverters[name]))
        walker.walk(again, PROMPTS)
        assert [p.requires_grad for p in weights] == flags
    finally:
        weights[0].requires_grad_(False)
    assert all(p.grad is None for p in weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert [(k, id(v)) for k, v in unet.attn_processors.items()] == before
    assert [float(p.detach().double().sum()) for p in weights] == hash_before
    assert all("forward" not in m.__dict__ for m in unet.modules())
    record = records[name]
    assert torch.equal(again.trajectory, record.trajectory)
    assert again.tape.keys() == record.tape.keys()
    assert all(torch.equal(again.tape[k], record.tape[k]) for k in record.tape)


@pytest.mark.parametrize("name", [n for n in METHODS if inverters[n].exact])
def test_exact_methods_bring_the_photo_back(
    name: str, walker: Walker, records: dict[str, Record]
) -> None:
    for count in (1, 2):
        x = walker.walk(records[name], PROMPTS[:count])
        assert off(x[0], walker.latents()[0]) < 1e-5
    for steps in (1, 7):
        record = walker.invert(name, steps=steps, guidance=7.5, seed=4)
        assert off(walker.walk(record, PROMPTS)[0], walker.latents(4)[0]) < 1e-5


def test_inexact_methods_do_not(walker: Walker, records: dict[str, Record]) -> None:
    """What the law above would not notice if it could not fail."""
    assert off(walker.walk(records["ddim"], PROMPTS[:1])[0], walker.latents()[0]) > 1e-2


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_its_single_runs(name: str, walker: Walker) -> None:
    # at low guidance and one inner step, where rounding stays rounding
    settings = {k: min(v, 1) for k, v in settings_of(inverters[name]).items()}
    method = inverters.create(name, **settings)
    schedule = walker.backbone.schedule(2)
    x0 = torch.cat([walker.latents(1), walker.latents(2)])

    def invert(rows: slice) -> Any:
        denoiser = walker.denoiser(PROMPTS[rows], ClassifierFree(2.0))
        generator = torch.Generator().manual_seed(0)
        made = method.invert(x0[rows], denoiser, schedule, generator=generator)
        return made, denoiser.rows_seen

    together, _ = invert(slice(0, 2))
    for b in range(2):
        made, asked = invert(slice(b, b + 1))
        alone, tape = made.photo(0)
        # a method that asks the network many times a step rounds as many times
        allowed = 1e-5 * max(1.0, asked / len(schedule))
        both, both_tape = together.photo(b)
        assert off(both, alone) < allowed
        for key, value in tape.items():
            apart = (both_tape[key] - value).abs().flatten() / value.abs().max()
            # Adam divides by the gradient: where that is next to nothing, rounding is not
            bulk = apart.quantile(0.99) if method.needs_grad else apart.max()
            assert bulk < allowed, key
            assert apart.max() < 1e-3, key
        x = [
            sample(
                walker.denoiser(PROMPTS[b : b + 1], method.guide(ClassifierFree(2.0))),
                method.replay(path, kept),
                schedule,
            )
            for path, kept in ((both, both_tape), (alone, tape))
        ]
        assert off(*x) < allowed


@pytest.mark.parametrize("name", METHODS)
def test_progress_counts_up_and_can_stop(name: str, walker: Walker) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        told.append((stage, done, total))

    method = inverters.create(name, **settings_of(inverters[name]))
    denoiser = walker.denoiser(PROMPTS[:1], ClassifierFree(2.0))
    schedule = walker.backbone.schedule(2)
    method.invert(walker.latents(), denoiser, schedule, progress=progress)
    for stage in {s for s, _, _ in told}:
        rows = [(done, total) for s, done, total in told if s == stage]
        assert [d for d, _ in rows] == list(range(1, rows[0][1] + 1))
    assert denoiser.rows_seen > 0

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        raise Stop

    with pytest.raises(Stop):
        method.invert(walker.latents(), denoiser, schedule, progress=stop)
    assert all("forward" not in m.__dict__ for m in walker.backbone.unet.modules())


def test_null_text_improves_on_no_fitting(walker: Walker) -> None:
    """Fitting at guidance 7.5 comes nearer to the photo than the plain unconditional text."""
    errors = []
    for inner in (0, 8):
        record = walker.invert("null-text", steps=4, inner_steps=inner)
        errors.append(off(walker.walk(record, PROMPTS[:1])[0], walker.latents()[0]))
    assert errors[1] < errors[0]
    losses = record.tape["losses"]
    assert (losses[:, 1:4] <= losses[:, :1]).float().mean() > 0.5


def test_null_text_without_guidance_fits_nothing(walker: Walker) -> None:
    record = walker.invert(
        "null-text", steps=2, guidance=1.0, inner_steps=2, early_stop=0.0, compat=True
    )
    start = walker.backbone.empty_text(walker.pixels).embeds[0]
    assert all(torch.equal(row, start) for row in record.tape["uncond"])


def test_null_text_does_not_depend_on_what_it_remembers(walker: Walker) -> None:
    """The prefix that is computed once gives the numbers of computing it every time."""
    from inversion.methods import null_text

    kept = walker.invert("null-text", steps=2, inner_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inversion.memo.Memo.start", lambda self: None)
        fresh = walker.invert("null-text", steps=2, inner_steps=2)
    assert null_text.memo is not None
    assert off(kept.tape["uncond"], fresh.tape["uncond"]) < 1e-6


# Edit methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EDITS)
def test_edit_methods(name: str, walker: Walker, records: dict[str, Record]) -> None:
    """Source row unchanged, two runs equal, removed without trace, acts at an odd size."""
    if name == "move":
        pytest.skip("it needs an object, not words: tests/unit/test_move.py")
    method = edits.create(name)
    assert isinstance(method, EditMethod)
    assert method.paper
    record = records["ddim"]
    unet = walker.backbone.unet
    before = {k: id(v) for k, v in unet.attn_processors.items()}
    state = torch.get_rng_state()
    needed = {"attend-excite": {"words": ("dog",)}}.get(name, {})
    runs = [
        walker.walk(record, PROMPTS, walker.controls(PROMPTS, STEPS, edit=name, **needed))
        for _ in range(2)
    ]
    assert torch.equal(*runs)
    assert torch.equal(torch.get_rng_state(), state)
    assert {k: id(v) for k, v in unet.attn_processors.items()} == before
    alone = walker.walk(record, PROMPTS[:1])
    assert off(runs[0][:1], alone) < 1e-4
    assert off(runs[0][1], runs[0][0]) > 1e-3
    if name != "plain":
        assert off(runs[0][1], walker.walk(record, PROMPTS)[1]) > 1e-3
    assert method.at_strength(1.0) == method
