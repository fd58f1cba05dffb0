"""Edit-friendly, EDICT, BELM and Eta against the papers' equations, written out plainly here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from edit import ControlStack, EditContext, published
from edit.words import Tokens
from inversion import (
    ClassifierFree,
    Denoiser,
    Intervention,
    Recording,
    Schedule,
    TextCond,
    inverters,
    sample,
)
from inversion.methods.belm import weights
from inversion.methods.edict import linear
from p2p_real.backbones import load_backbone
from tests.small import small_sd, small_sdxl
from tests.walks import Record, Walker, off

EXACT = ("edit-friendly", "edict", "belm", "eta")
SIZE = (2, 3, 5)
SOURCE, TARGET, EMPTY = 0.3, -0.8, 0.1


class Toy:
    """A smooth network in closed form: float32 in and out, as a backbone's."""

    def predict(self, x: torch.Tensor, t: int, cond: TextCond) -> torch.Tensor:
        c = cond.expand(len(x)).embeds.mean((1, 2)).view(-1, 1, 1, 1).double()
        x = x.float().double()
        out = 0.8 * torch.sin(x + c) + 0.2 * x.roll(1, -1) * math.cos(t / 300) + 0.3 * c
        return out.float()


def text(*values: float) -> TextCond:
    return TextCond(torch.tensor(values).view(-1, 1, 1))


def ask(x: torch.Tensor, t: int, prompt: float, scale: float) -> torch.Tensor:
    """The guided noise of one latent [C, h, w], float64."""
    toy = Toy()
    cond, empty = (toy.predict(x[None], t, text(v))[0] for v in (prompt, EMPTY))
    return (empty + scale * (cond - empty)).double()


def table() -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def levels(steps: int) -> tuple[list[int], list[float]]:
    """Timesteps ascending, and the products of levels 0 (clean) to ``steps``."""
    times = [1 + 1000 // steps * i for i in range(steps)]
    times = [min(t, 999) for t in times]
    return times, [float(table()[0]), *(float(table()[t]) for t in times)]


def schedule_of(steps: int, prediction: str = "epsilon", final: float | None = None) -> Schedule:
    times, a = levels(steps)
    return Schedule.make(times[::-1], table(), a[0] if final is None else final, prediction)


def photo(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(seed))


def denoiser(*prompts: float, scale: Any = 7.5, prediction: str = "epsilon") -> Denoiser:
    return Denoiser(Toy(), text(*prompts), text(EMPTY), ClassifierFree(scale), prediction)


def invert(method: Any, schedule: Schedule, scale: float = 7.5, **more: Any) -> Recording:
    there = denoiser(SOURCE, scale=scale, prediction=schedule.prediction)
    generator = torch.Generator().manual_seed(1)
    made: Recording = method.invert(photo(), there, schedule, generator=generator, **more)
    return made


class Watch(Intervention):
    """The latents after every step, in the precision of the walk."""

    def __init__(self) -> None:
        self.all: list[torch.Tensor] = []

    def after(self, x: torch.Tensor, step: Any) -> torch.Tensor:
        self.all.append(x)
        return x


def back(method: Any, record: Recording, schedule: Schedule, *prompts: float, scale: float = 7.5):
    """Latents after the last step, in the precision of the walk, and the rows it took."""
    there = denoiser(*prompts, scale=scale, prediction=schedule.prediction)
    there.guide = method.guide(there.guide)
    watch = Watch()
    x = sample(there, method.replay(*record.photo(0)), schedule, [watch])
    assert x.dtype == torch.float32
    return watch.all[-1], there.rows_seen


# Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("name", EXACT)
def test_round_trip(name: str, steps: int, prediction: str) -> None:
    """Walked alone at guidance 7.5, so that nothing but the method's own steps leads back."""
    method, schedule = inverters.create(name), schedule_of(steps, prediction)
    assert method.exact
    record = invert(method, schedule)
    x, _ = back(method, record, schedule, SOURCE)
    allowed = 1e-9 if x.dtype == torch.float64 else 1e-5
    assert float((x - photo()).abs().max()) < allowed
    assert (x.dtype == torch.float64) == (name in ("edict", "belm"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("edict", {"leapfrog": False}),
        ("edict", {"mixing": 1.0}),
        ("edict", {"source_guidance": 1.0}),
        ("edict", {"skip": 0.2}),
        ("belm", {"ratio": 1e6}),
        ("belm", {"ratio": 1.0}),
        ("belm", {"source_guidance": 1.0}),
        ("edit-friendly", {"eta": 0.0, "skip": 0.0}),
        ("edit-friendly", {"eta": 0.5, "source_guidance": 1.0}),
        ("edit-friendly", {"skip": 1.0}),
        ("eta", {"candidates": 1}),
    ],
)
@pytest.mark.parametrize("final", [None, 1.0])
def test_round_trip_under_other_settings(
    name: str, settings: dict[str, Any], final: float | None
) -> None:
    method, schedule = inverters.create(name, **settings), schedule_of(9, final=final)
    record = invert(method, schedule, 3.0)
    x, _ = back(method, record, schedule, SOURCE, scale=3.0)
    allowed = 1e-9 if x.dtype == torch.float64 else 1e-5
    assert float((x - photo()).abs().max()) < allowed


@pytest.mark.parametrize("name", EXACT)
def test_source_is_its_record_beside_a_target(name: str) -> None:
    """At any guidance, without the source's unconditional row, and moving the target by words."""
    method, schedule = inverters.create(name), schedule_of(6)
    record = invert(method, schedule)
    for scale in (7.5, 2.0):
        x, rows = back(method, record, schedule, SOURCE, TARGET, scale=scale)
        assert float((x[0] - photo()[0]).abs().max()) < 1e-6
        assert float((x[1] - x[0]).abs().max()) > 1e-2
        walked = method.replay(*record.photo(0)).level()
        assert rows == walked * 2 * (2 if name == "edict" else 1)


@pytest.mark.parametrize("name", ["edict", "belm"])
def test_same_words_give_the_source(name: str) -> None:
    method, schedule = inverters.create(name), schedule_of(6)
    x, _ = back(method, invert(method, schedule), schedule, SOURCE, SOURCE)
    assert float((x[1] - x[0]).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["edit-friendly", "eta"])
def test_full_share_gives_same_words_the_source(name: str) -> None:
    schedule = schedule_of(6)
    for share, same in ((1.0, True), (0.0, False)):
        method = inverters.create(name, share=share)
        x, _ = back(method, invert(method, schedule), schedule, SOURCE, SOURCE)
        assert (float((x[1] - x[0]).abs().max()) < 1e-5) == same


# The papers' equations ------------------------------------------------------------------------


@pytest.mark.parametrize(("eta", "compat"), [(1.0, False), (0.6, False), (0.6, True)])
def test_edit_friendly_is_the_papers(eta: float, compat: bool) -> None:
    steps, w, w_target = 8, 3.5, 9.0
    times, a = levels(steps)
    generator, x0 = torch.Generator().manual_seed(1), photo()[0].double()
    xs = [x0]
    for k in range(1, steps + 1):  # equation 6: independent of each other
        noise = torch.randn(SIZE, generator=generator).double()
        xs.append(a[k] ** 0.5 * x0 + (1 - a[k]) ** 0.5 * noise)

    def mean(x: torch.Tensor, k: int, prompt: float, scale: float) -> tuple[torch.Tensor, float]:
        eps = ask(x, times[k - 1], prompt, scale)
        clean = (x - (1 - a[k]) ** 0.5 * eps) / a[k] ** 0.5
        var = (1 - a[k - 1]) / (1 - a[k]) * (1 - a[k] / a[k - 1])
        share = eta * var if compat else eta**2 * var
        return a[k - 1] ** 0.5 * clean + (1 - a[k - 1] - share) ** 0.5 * eps, eta * var**0.5

    zs = {}
    for k in range(steps, 0, -1):  # equation 5
        mu, sigma = mean(xs[k], k, SOURCE, w)
        zs[k] = (xs[k - 1] - mu) / sigma
    if compat:
        zs[1] = torch.zeros_like(x0)
    start = steps - round(0.25 * steps)
    rows = [xs[start], xs[start]]
    for k in range(start, 0, -1):
        for b, (prompt, scale) in enumerate(((SOURCE, w), (TARGET, w_target))):
            mu, sigma = mean(rows[b], k, prompt, scale)
            rows[b] = mu + sigma * zs[k]

    method = inverters.create("edit-friendly", eta=eta, compat=compat, skip=0.25)
    schedule = schedule_of(steps)
    record = invert(method, schedule)
    assert off(record.trajectory[:, 0].double(), torch.stack(xs)) < 1e-5
    assert off(record.tape["noise"][:, 0].double(), torch.stack([zs[k] for k in zs])) < 1e-4
    x, _ = back(method, record, schedule, SOURCE, TARGET, scale=w_target)
    assert off(x.double(), torch.stack(rows)) < 1e-4


def test_without_its_last_noise_the_photo_is_off_by_that_noise() -> None:
    schedule = schedule_of(6)
    kept, dropped = (inverters.create("edit-friendly", keep_last=k) for k in (True, False))
    last = invert(kept, schedule).tape["noise"][-1, 0]
    step = next(iter(schedule.up()))
    x, _ = back(dropped, invert(dropped, schedule), schedule, SOURCE)
    assert off(photo()[0] - x[0], kept.scale(step) * last) < 1e-3


@pytest.mark.parametrize("steps", [4, 5])
def test_edict_is_the_papers(steps: int) -> None:
    """Down from the recorded pair, with the updates as the paper writes them."""
    p, w = 0.93, 7.5
    times, a = levels(steps)
    method, schedule = inverters.create("edict"), schedule_of(steps)
    record = invert(method, schedule, w)
    x, y = record.tape["pair"][0, 0]
    for k in range(steps, 0, -1):
        scale_x = (a[k - 1] / a[k]) ** 0.5
        scale_eps = (1 - a[k - 1]) ** 0.5 - (a[k - 1] * (1 - a[k]) / a[k]) ** 0.5
        if k % 2:  # leapfrog: they take turns
            y = scale_x * y + scale_eps * ask(x, times[k - 1], SOURCE, w)
            x = scale_x * x + scale_eps * ask(y, times[k - 1], SOURCE, w)
        else:
            x = scale_x * x + scale_eps * ask(y, times[k - 1], SOURCE, w)
            y = scale_x * y + scale_eps * ask(x, times[k - 1], SOURCE, w)
        x = p * x + (1 - p) * y
        y = p * y + (1 - p) * x
        assert off(x.float(), record.trajectory[k - 1, 0]) < 1e-6
    assert float((torch.stack([x, y]) - photo()).abs().max()) < 1e-9


def test_a_step_that_forgets_its_start_is_refused_in_one_line() -> None:
    method, schedule = inverters.create("edict"), schedule_of(3, "sample", final=1.0)
    with pytest.raises(ValueError, match=r"no exact inversion of step 3 of 3: .*use --method"):
        invert(method, schedule)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_step_is_linear(prediction: str) -> None:
    """Turning by an angle, in the network's own coordinates, for v."""
    step = next(schedule_of(5, prediction).down())
    a, b = linear(step, prediction)
    turn = math.acos(step.clean.alpha) - math.acos(step.noisy.alpha)
    if prediction == "v_prediction":
        assert (a, b) == pytest.approx((math.cos(turn), math.sin(turn)))
    else:
        assert a == pytest.approx(step.clean.alpha / step.noisy.alpha)


def test_belm_is_the_papers() -> None:
    steps, w = 8, 7.5
    times, a = levels(steps)
    method, schedule = inverters.create("belm"), schedule_of(steps)
    record = invert(method, schedule, w)
    xs = [*record.tape["latents"][:, 0], photo()[0].double()][::-1]
    alpha = [v**0.5 for v in a]
    sigma = [(1 - v) ** 0.5 / v**0.5 for v in a]
    for i in range(1, steps):
        h, h_next = sigma[i] - sigma[i - 1], sigma[i + 1] - sigma[i]
        eps = ask(xs[i], times[i - 1], SOURCE, w)
        two_step = (
            h**2 / h_next**2 * alpha[i - 1] / alpha[i + 1] * xs[i + 1]
            + (h_next**2 - h**2) / h_next**2 * alpha[i - 1] / alpha[i] * xs[i]
            - h * (h + h_next) / h_next * alpha[i - 1] * eps
        )
        ddim = alpha[i - 1] * (xs[i] / alpha[i] - sigma[i] * eps + sigma[i - 1] * eps)
        residual = record.tape["residual"][steps - i, 0]
        if h_next <= method.ratio * h:
            assert not residual.any()
            assert off(two_step, xs[i - 1]) < 1e-9
        else:
            assert off(ddim + residual, xs[i - 1]) < 1e-9
    assert record.tape["residual"][0].any()
    assert record.tape["residual"][1:-1].abs().max() == 0


def test_belm_is_exact_on_paths_of_second_order() -> None:
    """What the optimal weights are optimal for: x / alpha a parabola in sigma / alpha."""
    levels = schedule_of(6).levels
    for below, here, above in zip(levels[:-2], levels[1:-1], levels[2:], strict=True):

        def path(at: Any) -> tuple[float, float]:
            s = at.sigma / at.alpha
            return at.alpha * (0.7 - 1.3 * s + 0.4 * s * s), -1.3 + 0.8 * s

        a, b, c = weights(above, here, below)
        assert a * path(above)[0] + b * path(here)[0] + c * path(here)[1] == pytest.approx(
            path(below)[0], rel=1e-9
        )


def test_eta_is_the_papers() -> None:
    steps, w, draws = 6, 5.0, 10
    times, a = levels(steps)
    schedule = schedule_of(steps)
    method = inverters.create("eta", eta_start=0.4, candidates=draws)
    record = invert(method, schedule, w)
    xs = [photo()[0].double()]
    for k in range(1, steps + 1):  # plain DDIM up, by the source prompt alone
        eps = ask(xs[-1], times[k - 1], SOURCE, 1.0)
        clean = (xs[-1] - (1 - a[k - 1]) ** 0.5 * eps) / a[k - 1] ** 0.5
        xs.append(a[k] ** 0.5 * clean + (1 - a[k]) ** 0.5 * eps)
    assert off(record.trajectory[:, 0].double(), torch.stack(xs)) < 1e-5

    def mean(x: torch.Tensor, k: int, prompt: float) -> tuple[torch.Tensor, float]:
        eps = ask(x, times[k - 1], prompt, w)
        var = (1 - a[k - 1]) / (1 - a[k]) * (1 - a[k] / a[k - 1])
        eta = 0.4 * (k - 1) / steps
        clean = (x - (1 - a[k]) ** 0.5 * eps) / a[k] ** 0.5
        rest = (1 - a[k - 1] - eta**2 * var) ** 0.5
        return a[k - 1] ** 0.5 * clean + rest * eps, eta * var**0.5

    generator, target = torch.Generator().manual_seed(1), xs[-1]
    for k in range(steps, 0, -1):
        drawn = [torch.randn(SIZE, generator=generator).double() for _ in range(draws)]
        mu, sigma = mean(xs[k], k, SOURCE)
        if sigma > 0:
            best = (xs[k - 1] - mu) / sigma
            drawn.sort(key=lambda n: float((n - best).norm()))
        assert off(record.tape["noise"][steps - k, 0].double(), drawn[0]) < 1e-6
        mu, sigma = mean(target, k, TARGET)
        target = mu + sigma * drawn[0]
    x, _ = back(method, record, schedule, SOURCE, TARGET, scale=w)
    assert off(x[1].double(), target) < 1e-4


# Networks -------------------------------------------------------------------------------------

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat")


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Walker]:
    root = tmp_path_factory.mktemp("exact")
    folders = {
        "v": small_sd(root / "v", "v_prediction"),
        "zero-snr": small_sd(root / "z", "v_prediction", zero_snr=True),
        "sdxl": small_sdxl(root / "xl"),
    }
    return {
        k: Walker(load_backbone(str(f), device="cpu", dtype="float32"), PROMPTS, (9, 17))
        for k, f in folders.items()
    }


@pytest.mark.parametrize("kind", ["v", "zero-snr", "sdxl"])
@pytest.mark.parametrize("name", EXACT)
def test_networks(name: str, kind: str, walkers: dict[str, Walker]) -> None:
    """v-prediction, zero terminal SNR and SDXL at an odd size: alone, and under a word swap."""
    w = walkers[kind]
    for steps in (1, 2, 7):
        record: Record = w.invert(name, steps=steps, guidance=7.5)
        assert off(w.walk(record, PROMPTS[:1])[0], w.latents()[0]) < 1e-5
    x = w.walk(record, PROMPTS, w.controls(PROMPTS, 7, self_replace=0.8))
    assert off(x[0], w.latents()[0]) < 1e-5
    assert off(x[1], x[0]) > 1e-3
    assert off(x[1], w.walk(record, PROMPTS)[1]) > 1e-4


def test_an_edit_acts_in_both_calls_of_an_edict_step(walkers: dict[str, Walker]) -> None:
    w = walkers["v"]
    record = w.invert("edict", steps=2)
    stack = ControlStack(w.controls(PROMPTS, 2, cross_replace=1.0, self_replace=0.0))
    sample(w.denoiser(PROMPTS, ClassifierFree(3.0)), record.replay(), record.schedule, [stack])
    (row,) = stack.report()
    assert row["steps_injected"] == [0, 1]
    layers = sum(row["layers_hooked"].values())
    assert row["calls"] == 2 * 2 * layers


# Windows --------------------------------------------------------------------------------------


def test_published_windows_are_counted_from_the_first_step(tmp_path: Path) -> None:
    tokens = Tokens("a cat", (1, 2), ((0, 1), (2, 5)), ("a", "cat"), 77)
    plain = published.cross_window(10, (tokens,), 0.6)
    late = published.cross_window(10, (tokens,), 0.6, 4)
    assert torch.equal(late[4:], plain)
    assert not late[:4].any()
    assert published.self_window(10, (0.0, 0.2), 4) == (4, 6)
    assert EditContext(tokens, (tokens,), 10, (8, 8)).first_step == 0
