"""The loop: what it does in which order, which rows it asks for, and how it stops."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from inversion import (
    Cancelled,
    ClassifierFree,
    Denoiser,
    Intervention,
    NumericsError,
    Replay,
    Schedule,
    TextCond,
    ddim_invert,
    mix,
    sample,
)
from inversion.denoiser import COND, UNCOND
from inversion.methods.direct import PinnedSource
from inversion.methods.negative_prompt import Proximal, SourceAsUncond
from inversion.sampling import FromNoise, rows_needed

TABLE = torch.linspace(0.99, 0.1, 20).tolist()
PLAN = Schedule.make([19, 14, 9, 4], TABLE, 0.99)


class Linear:
    """A closed-form network whose noise is a tenth of the latents, told by the text."""

    def __init__(self, poison: int = -1) -> None:
        self.poison, self.asked = poison, []

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        self.asked.append((t, len(x)))
        if t == self.poison:
            return torch.full_like(x, float("nan"))
        return 0.1 * x + cond.embeds.mean((1, 2)).view(-1, 1, 1, 1)


def text(*values: float) -> TextCond:
    return TextCond(torch.tensor(values).view(-1, 1, 1))


def made(branches: int = 2, scale: float = 2.0, **model: Any) -> Denoiser:
    cond = text(*(0.1 * b for b in range(1, branches + 1)))
    return Denoiser(Linear(**model), cond, text(0.0), ClassifierFree(scale))


def path() -> Tensor:
    return torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Diary(Intervention):
    """Writes down when it was called."""

    def __init__(self, name: str, diary: list[str], reads: bool = False) -> None:
        self.name, self.diary, self.reads = name, diary, reads

    @contextmanager
    def attach(self, denoiser: Denoiser) -> Any:
        self.diary.append(f"{self.name} on")
        try:
            yield
        finally:
            self.diary.append(f"{self.name} off")

    def reads_source(self, step: Any) -> bool:
        return self.reads

    def before(self, x: Tensor, step: Any, denoiser: Denoiser) -> Tensor:
        self.diary.append(f"{self.name} before {step.index}")
        return x

    def after(self, x: Tensor, step: Any) -> Tensor:
        self.diary.append(f"{self.name} after {step.index}")
        return x + 1 if self.name == "b" else x


def test_order() -> None:
    diary: list[str] = []
    plan = Schedule.make([9], TABLE, 0.99)
    sample(made(), Replay(path()[:2]), plan, [Diary("a", diary), Diary("b", diary)])
    assert diary == ["a on", "b on", "a before 0", "b before 0", "a after 0", "b after 0",
                     "b off", "a off"]  # fmt: skip


def test_the_walk_is_the_steps_one_by_one() -> None:
    denoiser, record = made(), path()
    x = record[-1].expand(2, -1, -1, -1)
    for step in PLAN.down():
        x = mix(denoiser(x, step), step.clean)
    assert torch.equal(sample(made(), Replay(record), PLAN), x)
    assert torch.equal(sample(made(), FromNoise(record[-1:], 4), PLAN), x)


def test_inputs_are_left_alone() -> None:
    record = path()
    kept = record.clone()
    sample(made(), Replay(record), PLAN, [Diary("b", [])])
    assert torch.equal(record, kept)
    x0 = path()[:2]
    ddim_invert(x0, made(), PLAN)
    assert torch.equal(x0, path()[:2])


def test_the_way_up_asks_where_it_enters_or_where_it_left() -> None:
    for departure, expected in ((False, [4, 9, 14, 19]), (True, [4, 4, 9, 14])):
        denoiser = made(1, 1.0)
        found = ddim_invert(path()[:1], denoiser, PLAN, departure=departure)
        assert [t for t, _ in denoiser.model.asked] == expected  # type: ignore[attr-defined]
        assert found.shape == (5, 1, 1, 2, 2)
        assert torch.equal(found[0], path()[:1])


@pytest.mark.parametrize(
    ("replay", "reads", "left_out"),
    [
        (Replay(path()), False, set()),
        (SourceAsUncond(path()), False, {(UNCOND, 0)}),
        (PinnedSource(path(), 0.0), True, {(UNCOND, 0)}),
        (PinnedSource(path(), 0.0), False, {(UNCOND, 0), (COND, 0)}),
        (PinnedSource(path(), 0.5), False, set()),
    ],
)
def test_rows_nobody_reads(replay: Replay, reads: bool, left_out: set[tuple[str, int]]) -> None:
    step = next(PLAN.down())
    denoiser = made(3)
    needed = rows_needed(step, denoiser, replay, [Diary("a", [], reads)])
    assert set(denoiser.full_layout().rows) - set(needed.rows) == left_out
    assert [r for r in denoiser.full_layout().rows if r in needed.rows] == list(needed.rows)


def test_the_source_alone_is_always_asked() -> None:
    """A lone pinned source has no target that could need it, but a walk needs a row."""
    step = next(PLAN.down())
    assert len(rows_needed(step, made(1), PinnedSource(path(), 0.0), [])) >= 1
    x = sample(made(1), PinnedSource(path(), 0.0), PLAN)
    assert torch.equal(x[0], path()[0])


def test_pinned_source_follows_its_record() -> None:
    record, seen = path(), []

    class Watch(Intervention):
        def after(self, x: Tensor, step: Any) -> Tensor:
            seen.append(x[0].clone())
            return x

    sample(made(), PinnedSource(record, 0.0), PLAN, [Watch()])
    assert torch.equal(torch.stack(seen), record[:-1].flip(0))


@pytest.mark.parametrize("stop", [1, 3])
def test_cancel_takes_everything_out(stop: int) -> None:
    diary: list[str] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if done == stop:
            raise Cancelled

    with pytest.raises(Cancelled):
        sample(made(), Replay(path()), PLAN, [Diary("a", diary)], progress=progress)
    assert diary[-1] == "a off"
    assert f"a after {stop - 1}" in diary
    assert f"a before {stop}" not in diary


def test_progress() -> None:
    told: list[Any] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        told.append((stage, done, total))

    sample(made(), Replay(path()), PLAN, progress=progress, stage="up and down")
    assert told == [("up and down", n, 4) for n in range(1, 5)]


def test_numbers_that_are_not_finite_are_named() -> None:
    with pytest.raises(NumericsError, match=r"sampling step 2 of 4 \(timestep 14\)"):
        sample(made(poison=14), Replay(path()), PLAN)
    with pytest.raises(NumericsError, match=r"inversion step 3 of 4 \(timestep 14\)"):
        ddim_invert(path()[:2], made(poison=14), PLAN)


def test_proximal_rules() -> None:
    """The paper's hard and soft thresholds, and the published ones, at a threshold of one."""
    d = torch.tensor([-3.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, 3.0]).view(1, 1, 1, -1)
    step = next(PLAN.down())
    quantile = float((d.abs().flatten().sort().values <= 1).sum() - 1) / (d.numel() - 1)

    def answer(kind: str, compat: bool) -> list[float]:
        zero = torch.zeros_like(d)
        out = Proximal(1.0, kind, quantile, compat)(zero, d, step)
        return [round(float(v), 5) for v in out.flatten()]

    assert answer("l0", False) == [-3.0, -1.5, 0, 0, 0, 0, 1.5, 2.0, 3.0]
    assert answer("l1", False) == [-2.0, -0.5, 0, 0, 0, 0, 0.5, 1.0, 2.0]
    assert answer("l0", True) == [-2.0, -0.5, 0, 0, 0, 0, 0.5, 1.0, 2.0]
    # 1.5 becomes 0.5, then -0.5, then +0.5; -1.5 becomes -0.5, then +0.5; 2 becomes 0, 3 one
    assert answer("l1", True) == [-1.0, 0.5, 0, 0, 0, 0, 0.5, 0.0, 1.0]


def test_proximal_threshold_is_read_from_the_targets() -> None:
    step = next(PLAN.down())
    cond = torch.cat([torch.zeros(1, 1, 2, 2), torch.arange(4.0).view(1, 1, 2, 2)])
    zero = torch.zeros_like(cond)
    ours = Proximal(1.0, "l0", 0.5)(zero, cond, step)
    assert ours[1].flatten().tolist() == [0, 0, 2, 3]
    published = Proximal(1.0, "l0", 0.5, compat=True)(zero, cond, step)
    assert published[1].flatten().tolist() == [0, 1, 2, 3]  # zeros of the source pull it down
