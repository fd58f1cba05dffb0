"""The algebra of the path against diffusers' own schedulers, and against closed forms."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from inversion import (
    ClassifierFree,
    Denoiser,
    Level,
    Replay,
    Schedule,
    TextCond,
    both_ends,
    ddim_invert,
    mix,
    sample,
)

STEPS = (1, 2, 7, 50, 250, 1000)
KINDS = ("epsilon", "v_prediction", "sample")
CASES = list(
    itertools.product(("leading", "trailing", "linspace"), (0, 1), (False, True), (False, True))
)
NAMES = [
    f"{spacing}-offset{offset}-{'one' if one else 'first'}{'-zero_snr' if zero else ''}"
    for spacing, offset, one, zero in CASES
]


def scheduler(spacing: str, offset: int, one: bool, zero: bool, kind: str = "epsilon") -> Any:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=one,
        steps_offset=offset,
        prediction_type=kind,
        timestep_spacing=spacing,
        rescale_betas_zero_snr=zero,
    )


def made(ddim: Any, steps: int, *, compat: bool = False) -> Schedule:
    ddim.set_timesteps(steps)
    kind = ddim.config.prediction_type
    tables = ddim.timesteps, ddim.alphas_cumprod, ddim.final_alpha_cumprod
    return Schedule.make(*tables, kind, compat=compat)


def draws(count: int, seed: int = 0) -> Tensor:
    """Latents [count, 1, 2, 3, 3]."""
    return torch.randn(count, 1, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, theirs: Tensor, scale: float = 1.0) -> None:
    assert torch.isfinite(theirs).all()
    worst = float((ours - theirs).abs().max())
    assert worst <= 1e-5 * max(scale, float(theirs.abs().max())), worst


def out_of_table(ddim: Any, steps: int) -> bool:
    """diffusers' own list of timesteps leaves the table: it raises IndexError."""
    ddim.set_timesteps(steps)
    return int(ddim.timesteps.max()) >= len(ddim.alphas_cumprod)


def undefined(kind: str, at: Level) -> bool:
    """The estimate divides by zero: noise of pure noise, or of a clean picture."""
    return (kind == "epsilon" and at.alpha == 0) or (kind == "sample" and at.sigma == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_down_equals_ddim_scheduler(case: Any, kind: str) -> None:
    ddim, skipped = scheduler(*case, kind), []
    for count in STEPS:
        if out_of_table(ddim, count):
            skipped.append(f"{count} steps: diffusers reads past its table")
            with pytest.raises(IndexError):
                ddim.step(draws(1)[0], int(ddim.timesteps[0]), draws(1)[0])
            continue
        plan = made(ddim, count, compat=True)
        outs, x0 = draws(count), draws(count, 1)
        x = theirs = x0[0]
        alone = set(range(count)) if count <= 50 else set(range(0, count, 97)) | {count - 1}
        for step, out in zip(plan.down(), outs, strict=True):
            if undefined(kind, step.noisy):
                broken = ddim.step(out, step.t, x0[0]).prev_sample
                assert not torch.isfinite(broken).all()
                skipped.append(f"{count} steps: {kind} is undefined at timestep {step.t}")
                x = theirs = draws(1, 2)[0]
                continue
            if step.index in alone:
                single = mix(both_ends(out, x0[step.index], step.noisy, kind), step.clean)
                close(single, ddim.step(out, step.t, x0[step.index]).prev_sample)
            x = mix(both_ends(out, x, step.noisy, kind), step.clean)
            theirs = ddim.step(out, step.t, theirs).prev_sample
        # errors grow with the largest number on the way, not with the last
        close(x, theirs, scale=10.0)
    zero, offset = case[3], case[1]
    expected = int(case[0] == "leading" and offset == 1)
    if zero and kind == "epsilon":
        lists = [made(ddim, n).timesteps for n in STEPS]
        expected += sum(steps[0] == 999 for steps in lists) - expected * (lists[-1][0] == 999)
    assert len(skipped) == expected, skipped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_up_equals_ddim_inverse_scheduler(case: Any, kind: str) -> None:
    ddim = scheduler(*case, kind)
    inverse = DDIMInverseScheduler.from_config(ddim.config)
    if case[0] == "linspace":
        with pytest.raises(ValueError, match="linspace is not supported"):
            inverse.set_timesteps(7)
        pytest.skip("DDIMInverseScheduler has no linspace spacing")
    for count in STEPS:
        inverse.set_timesteps(count)
        if out_of_table(ddim, count):
            with pytest.raises(IndexError):
                inverse.step(draws(1)[0], int(inverse.timesteps[-1]), draws(1)[0])
            continue
        plan = made(ddim, count, compat=True)
        assert inverse.timesteps.tolist() == list(reversed(plan.timesteps))
        outs, x0 = draws(count), draws(count, 1)
        x = theirs = x0[0]
        for step, out in zip(plan.up(), outs, strict=True):
            if undefined(kind, step.clean):
                broken = inverse.step(out, step.t, x0[0]).prev_sample
                assert not torch.isfinite(broken).all()
                x = theirs = draws(1, 2)[0]
                continue
            if count <= 50 or step.index % 97 == 0:
                single = mix(both_ends(out, x0[step.index], step.clean, kind), step.noisy)
                close(single, inverse.step(out, step.t, x0[step.index]).prev_sample)
            x = mix(both_ends(out, x, step.clean, kind), step.noisy)
            theirs = inverse.step(out, step.t, theirs).prev_sample
        close(x, theirs, scale=10.0)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_listed_levels_are_diffusers_where_those_are_right(case: Any) -> None:
    ddim, right = scheduler(*case), 0
    for count in (*range(1, 60), 61, 99, 100, 103, 125, 200, 250, 333, 499, 500, 999, 1000):
        listed, stepped = made(ddim, count), made(ddim, count, compat=True)
        ratio = 1000 // count
        neighbours = itertools.pairwise(listed.timesteps)
        sound = all(a - ratio == b for a, b in neighbours) and listed.timesteps[-1] < ratio
        if sound:
            assert listed.ends == stepped.ends
            right += 1
        elif case[0] != "leading":
            assert listed.ends != stepped.ends or case[0] == "linspace"
        assert listed.starts == stepped.starts
        assert len(listed) == count
    # leading always was right (but for the very end, where the stride is one), the others rarely
    assert right >= {"leading": 67, "trailing": 15, "linspace": 1}[case[0]]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_up_mirrors_down(case: Any) -> None:
    ddim = scheduler(*case)
    for count in (1, 2, 3, 4, 7, 20, 28, 30, 50, 61, 250, 997, 999, 1000):
        plan = made(ddim, count)
        down, up = list(plan.down()), list(plan.up())
        assert up == down[::-1]
        assert [s.level for s in down] == list(range(count, 0, -1))
        for a, b in itertools.pairwise(down):
            assert a.clean == b.noisy
            assert a.t > b.t
        assert plan.levels == (down[-1].clean, *(s.noisy for s in up))
        assert len(plan.levels) == count + 1
        for step in down:
            assert plan.levels[step.level] == step.noisy
            assert plan.levels[step.level - 1] == step.clean


def test_down_from_a_level_is_the_end_of_the_walk() -> None:
    plan = made(scheduler("leading", 1, False, False), 10)
    assert list(plan.down(4)) == list(plan.down())[-4:]
    assert list(plan.down(0)) == []


def test_trailing_spacing_of_every_count() -> None:
    """Rounding gives diffusers' list of 62 counts one more timestep, -1, which is no timestep."""
    ddim = scheduler("trailing", 1, False, True)
    for count in range(1, 1001):
        plan = made(ddim, count)
        assert len(plan) == count
        assert plan.timesteps[-1] >= 0
        assert plan.timesteps[0] == 999


def test_published_table() -> None:
    """The values every text on Stable Diffusion's schedule starts from (algorithms.md 0.2, 0.4)."""
    ddim = scheduler("leading", 1, False, False)
    table = ddim.alphas_cumprod
    golden = {0: 0.999150, 1: 0.998296, 20: 0.981314, 21: 0.980381, 981: 0.005775, 999: 0.004660}
    for t, value in golden.items():
        assert float(table[t]) == pytest.approx(value, abs=1e-6)
    plan = made(ddim, 50)
    assert plan.timesteps[:3] == (981, 961, 941)
    assert plan.timesteps[-1] == 1
    steps = list(plan.down())
    golden_steps = ((0, 1.1228517, -0.1232521), (24, 1.0484564, -0.0574421))
    golden_steps += ((48, 1.0090955, -0.1000638), (49, 1.0004276, -0.0121418))
    for index, a, b in golden_steps:
        step = steps[index]
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        with_x = mix(both_ends(zero, one, step.noisy, "epsilon"), step.clean)
        with_eps = mix(both_ends(one, zero, step.noisy, "epsilon"), step.clean)
        assert float(with_x) == pytest.approx(a, abs=2e-6)
        assert float(with_eps) == pytest.approx(b, abs=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_estimate_is_the_pair_that_made_the_latents(kind: str) -> None:
    x0, eps = draws(2).double()
    for alpha in (0.99, 0.5, 0.006):
        at = Level.of(alpha)
        x = mix(both_ends(x0, at.alpha * x0 + at.sigma * eps, at, "sample"), at)
        out = {"epsilon": eps, "sample": x0, "v_prediction": at.alpha * eps - at.sigma * x0}[kind]
        found = both_ends(out, x, at, kind)
        torch.testing.assert_close(found.x0, x0, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-12)


def test_v_prediction_at_pure_noise_divides_by_nothing() -> None:
    x, v = draws(2)
    found = both_ends(v, x, Level.of(0.0), "v_prediction")
    assert torch.equal(found.x0, -v)
    assert torch.equal(found.eps, x)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_constant_noise_is_inverted_exactly(case: Any) -> None:
    if case[3]:
        pytest.skip("epsilon says nothing at zero signal")
    x0, eps = draws(2).double()
    for count in (1, 4, 50, 333):
        plan = made(scheduler(*case), count)
        x = x0
        for step in plan.up():
            x = mix(both_ends(eps, x, step.clean, "epsilon"), step.noisy)
        straight = mix(both_ends(eps, x0, plan.levels[0], "epsilon"), plan.levels[-1])
        torch.testing.assert_close(x, straight, rtol=0, atol=1e-12)  # steps compose
        for step in plan.down():
            x = mix(both_ends(eps, x, step.noisy, "epsilon"), step.clean)
        torch.testing.assert_close(x, x0, rtol=0, atol=1e-12)


class Gaussian:
    """The exact noise estimate of data that is normal with a standard deviation of ``spread``."""

    def __init__(self, table: Tensor, spread: float, constant: float | None = None) -> None:
        self.table, self.spread, self.constant = table, spread, constant

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        if self.constant is not None:
            return torch.full_like(x, self.constant)
        a = float(self.table[t])
        return x * (1 - a) ** 0.5 / (a * self.spread**2 + 1 - a)


def round_trip(model: Any, plan: Schedule, x0: Tensor) -> float:
    denoiser = Denoiser(
        model, TextCond(torch.zeros(1, 1, 1)), TextCond(torch.zeros(1, 1, 1)), ClassifierFree(1.0)
    )
    path = ddim_invert(x0, denoiser, plan)
    back = sample(denoiser, Replay(path[:, 0]), plan)
    return float((back - x0).norm() / x0.norm())


def test_the_loops_invert_constant_noise() -> None:
    plan = made(scheduler("leading", 1, False, False), 50)
    assert round_trip(Gaussian(torch.zeros(0), 0, constant=0.3), plan, draws(1)[0]) < 1e-5


def test_error_halves_when_steps_double() -> None:
    ddim = scheduler("leading", 1, False, False)
    counts = (10, 20, 40, 80, 160)
    model = Gaussian(ddim.alphas_cumprod, spread=0.5)
    errors = [round_trip(model, made(ddim, n), draws(1)[0]) for n in counts]
    for coarse, fine in itertools.pairwise(errors):
        assert 0.4 < fine / coarse < 0.62, errors
    assert errors[0] > 0.05  # there is an error to halve


@pytest.mark.parametrize(
    ("steps", "kind", "message"),
    [
        ([], "epsilon", "at least one timestep"),
        ([5, 5], "epsilon", "must descend"),
        ([3, 7], "epsilon", "must descend"),
        ([5, -2], "epsilon", "must descend"),
        ([5], "flow", "unknown prediction 'flow'"),
    ],
)
def test_wrong_schedules_are_refused(steps: list[int], kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.make(steps, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], 1.0, kind)


def test_unknown_prediction_is_refused_by_the_estimate() -> None:
    x = draws(1)[0]
    with pytest.raises(ValueError, match="unknown prediction"):
        both_ends(x, x, Level.of(0.5), "score")
