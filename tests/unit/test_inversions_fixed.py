"""Methods that solve each step up: against slow float64 transcriptions on closed-form networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inversion import ClassifierFree, Denoiser, Level, Schedule, Step, TextCond, inverters, sample
from inversion.fixed_point import Anderson, Solver
from inversion.methods.pix2pix_zero import shifted_levels
from inversion.regularizers import draw_with, liken, whiten
from p2p_real.backbones import load_backbone
from tests.small import small_scheduler, small_sd, small_sdxl
from tests.walks import Walker, off

SHAPE = (2, 4, 9, 10)
TEXT = TextCond(torch.tensor([0.3, -0.2]).view(2, 1, 1))
EMPTY = TextCond(torch.zeros(1, 1, 1))
SOLVING = ("fixed-point", "renoise", "spdinv", "dual-conditional", "pix2pix-zero", "guided-ddim")


class Toy:
    """A network with a closed form: ``gain * x + bend * sin(x) + text``, a little of the time."""

    def __init__(self, gain: float = 0.3, bend: float = 0.2) -> None:
        self.gain, self.bend = gain, bend

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        text = cond.embeds.to(x.dtype)[..., None]
        return self.gain * x + self.bend * torch.sin(2 * x) + text + 1e-4 * t


def toy(kind: str = "epsilon", *, guidance: float = 1.0, **shape: float) -> Denoiser:
    return Denoiser(Toy(**shape), TEXT, EMPTY, ClassifierFree(guidance), kind)


def schedule(steps: int, kind: str = "epsilon") -> Schedule:
    ddim = small_scheduler(kind)
    ddim.set_timesteps(steps)
    return Schedule.make(ddim.timesteps, ddim.alphas_cumprod, ddim.final_alpha_cumprod, kind)


def latents(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def ab(step: Step) -> tuple[float, float]:
    """A and B of the paper: ``x_below = A x + B eps``."""
    a, b = step.noisy, step.clean
    return b.alpha / a.alpha, b.sigma - b.alpha * a.sigma / a.alpha


def a_step(ratio: float) -> Step:
    """A step whose -B / A is ``ratio``."""
    clean = Level(1.0, 0.0)
    return Step(0, 1, 1, 500, Level((1 - ratio**2) ** 0.5, ratio), clean)


# The core ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_iterates_of_a_linear_network_are_partial_neumann_sums(most: int) -> None:
    """F(x) = x_below / A + L x with L = -B gain / A: after n, the sum of L^k x_below / A ..."""
    step, below, gain = a_step(0.6), latents(), 0.8
    denoiser = Denoiser(Toy(gain, 0.0), EMPTY.expand(2), EMPTY, ClassifierFree(1.0))
    a, b = ab(step)
    ratio, free = -b / a * gain, (below - b * 1e-4 * step.t) / a
    want = sum((ratio**k * free for k in range(most)), ratio**most * below)
    solved = Solver(0.0, most, 0)(below, step, denoiser)
    assert torch.allclose(solved.x, want, rtol=1e-12, atol=1e-12)
    assert solved.evaluations.tolist() == [most, most]


def test_residuals_fall_on_a_contraction_and_acceleration_is_faster() -> None:
    step, below = a_step(0.7), latents()
    found = {
        m: [Solver(0.0, n, m)(below, step, toy()).residual for n in range(1, 9)]
        for m in (0, 1, 2, 3)
    }
    for one, other in zip(found[0], found[0][1:], strict=False):
        assert (other < one).all()
    for memory in (1, 2, 3):
        assert (found[memory][-1] < 0.2 * found[0][-1]).all()
    asked = [Solver(1e-10, 100, m)(below, step, toy()).evaluations for m in (0, 1, 3)]
    assert (asked[1] < asked[0]).all()
    assert (asked[2] < asked[0]).all()


def test_anderson_is_the_least_mixed_residual() -> None:
    """Against the constrained least squares of the definition, solved on the whole."""
    xs, fs = [latents(i) for i in range(3)], [latents(10 + i) for i in range(3)]
    anderson = Anderson(2)
    for x, fx in zip(xs, fs, strict=True):
        ours = anderson.next(x, fx)
    for b in range(2):
        r = torch.stack([(f - x)[b].flatten() for x, f in zip(xs, fs, strict=True)], 1)
        gram = torch.ones(4, 4, dtype=torch.float64)
        gram[:3, :3], gram[3, 3] = r.T @ r, 0
        right = torch.tensor([0, 0, 0, 1], dtype=torch.float64)
        w = torch.linalg.solve(gram, right)[:3]  # weights with sum 1 (Lagrange)
        want = sum(w[i] * fs[i][b] for i in range(3))
        assert torch.allclose(ours[b], want, rtol=1e-8, atol=1e-8)


def test_a_diverging_iteration_gives_its_best_iterate() -> None:
    step, below = a_step(0.9), latents()
    denoiser = toy(gain=2.0, bend=0.0)
    a, b = ab(step)

    def f(x: Tensor) -> Tensor:
        return (below - b * denoiser.model.predict(x, step.t, TEXT)) / a

    iterates = [f(below)]
    for _ in range(5):
        iterates.append(f(iterates[-1]))
    for most in (2, 3, 6):
        solved = Solver(1e-6, most, 0)(below, step, denoiser)
        residuals = torch.stack(
            [(f(x) - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1) for x in iterates]
        )[: most - 1]
        for row in range(2):
            best = int(residuals[:, row].argmin())
            if best < most - 2:
                assert torch.allclose(solved.x[row], iterates[best][row], rtol=1e-10)
            assert torch.allclose(solved.residual[row], residuals[best, row], rtol=1e-8)
    explosive = Solver(1e-6, 50, 1)(below, step, toy(gain=1e200, bend=0.0))
    assert torch.isfinite(explosive.residual).all()


def test_each_latent_stops_alone() -> None:
    step, below = a_step(0.5), torch.cat([1e-3 * latents()[:1], latents()[1:]])
    both = Solver(1e-8, 50, 1)(below, step, toy())
    for b in range(2):
        one = Denoiser(Toy(), TEXT.rows([b]), EMPTY, ClassifierFree(1.0))
        alone = Solver(1e-8, 50, 1)(below[b : b + 1], step, one)
        assert torch.allclose(both.x[b], alone.x[0], rtol=0, atol=1e-14)
        assert both.evaluations[b] == alone.evaluations[0]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_solved_step_lands_where_it_came_from(kind: str, guidance: float) -> None:
    denoiser = toy(kind, guidance=guidance, gain=0.1, bend=0.05)
    step = list(schedule(50, kind).up())[20]
    below = latents()
    solved = Solver(1e-13, 200, 2)(below, step, denoiser)
    est = denoiser(solved.x, step)
    again = step.clean.alpha * est.x0 + step.clean.sigma * est.eps
    assert torch.allclose(again, below, rtol=0, atol=1e-10)


# The methods against transcriptions -------------------------------------------------------------


def eps_at(x: Tensor, t: int) -> Tensor:
    return Toy().predict(x, t, TEXT)


def slow_fixed_point(x0: Tensor, s: Schedule, most: int, tolerance: float) -> Tensor:
    path = [x0]
    for step in s.up():
        a, b = ab(step)
        x = path[-1]
        for _ in range(most):
            fx = (path[-1] - b * eps_at(x, step.t)) / a
            if (fx - x).norm() < tolerance * x.norm():
                break
            x = fx
        path.append(fx)
    return torch.stack(path)


def slow_renoise(x0: Tensor, s: Schedule, k: int, last: int, enhance: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    path, noise = [x0], torch.randn(SHAPE[1:], generator=generator).double()
    for step in s.up():
        a, b = ab(step)
        like = eps_at(step.noisy.alpha * x0 + step.noisy.sigma * noise, step.t)

        def better(e: Tensor, like: Tensor = like) -> Tensor:
            return liken(e, like, draw_with(generator)) if enhance else e

        first, end = (0, min(5, k + 1)) if step.t < 250 else (k + 1 - last, k + 1)
        x, kept = path[-1], []
        for i in range(end):
            e = eps_at(x, step.t)
            kept += [e] if i >= first else []
            e = better(e) if first <= i < end - 1 else e
            x = (path[-1] - b * e) / a
        path.append((path[-1] - b * better(torch.stack(kept).mean(0))) / a)
    return torch.stack(path)


def slow_pix2pix(x0: Tensor, s: Schedule) -> Tensor:
    generator, path = torch.Generator().manual_seed(0), [x0]
    for step in s.up():
        a, b = ab(step)
        e = whiten(eps_at(path[-1], step.t), draw_with(generator))
        path.append((path[-1] - b * e) / a)
    return torch.stack(path)


def slow_search(x0: Tensor, s: Schedule, pull: float, rounds: int, lr: float) -> Tensor:
    """SPDInv (pull 0) and dual-conditional inversion; Adam written out."""
    path = [x0]
    for step in s.up():
        a, b = ab(step)
        x = (path[-1] - b * eps_at(path[-1], step.t)) / a
        m = v = torch.zeros_like(x)
        tried = []
        for j in range(rounds + 1):
            x = x.detach().requires_grad_(True)
            e = eps_at(x, step.t)
            away = (x0 - e).detach()
            e = e + pull * away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            loss = (x - (path[-1] - b * e) / a).square().mean((1, 2, 3))
            tried.append((loss.detach(), x.detach()))
            g = torch.autograd.grad(loss.sum(), x)[0]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            n = j + 1
            x = x - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.999**n)).sqrt() + 1e-8)
        best = torch.stack([loss for loss, _ in tried]).argmin(0)
        path.append(torch.stack([tried[int(best[i])][1][i] for i in range(len(x0))]))
    return torch.stack(path)


def made(name: str, s: Schedule, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    method = inverters.create(name, **settings)
    record = method.invert(latents().float(), toy(guidance=3.0), s)
    return record.trajectory.double(), record.tape


def test_fixed_point_is_the_papers() -> None:
    for most in (1, 3, 12):
        settings = {"iterations": most, "acceleration": 0, "tolerance": 0.0}
        path, tape = made("fixed-point", schedule(7), **settings)
        want = slow_fixed_point(latents().float().double(), schedule(7), most, 0.0)
        assert off(path, want) < 1e-5 or most == 12  # rounding may be the least residual there
    assert off(path, want) < 1e-4
    assert tape["residuals"].shape == tape["evaluations"].shape == (7, 2)
    assert (tape["residuals"] < 1e-5).all()


@pytest.mark.parametrize(("k", "last", "enhance"), [(0, 1, False), (4, 2, False), (9, 2, True)])
def test_renoise_is_the_papers(k: int, last: int, enhance: bool) -> None:
    path, tape = made("renoise", schedule(7), renoise_steps=k, average=last, enhance=enhance)
    x0 = latents().float().double()
    assert off(path, slow_renoise(x0, schedule(7), k, last, enhance)) < 2e-5
    assert tape["residuals"].shape == (7, 2)


def test_pix2pix_zero_is_the_papers() -> None:
    path, _ = made("pix2pix-zero", schedule(7))
    assert off(path, slow_pix2pix(latents().float().double(), schedule(7))) < 2e-5
    plain, _ = made("pix2pix-zero", schedule(7), rounds=0)
    assert off(plain, made("ddim", schedule(7))[0]) < 1e-6


@pytest.mark.parametrize(("name", "rate"), [("spdinv", 0.0), ("dual-conditional", 1.0)])
def test_the_searches_are_the_papers(name: str, rate: float) -> None:
    settings = {"inner_steps": 6, "early_stop": 0.0, "lr": 3e-3}
    path, tape = made(name, schedule(5), **settings)
    pull = rate * (latents()[0].numel() / (4 * 64 * 64)) ** 0.5
    want = slow_search(latents().float().double(), schedule(5), pull, 6, 3e-3)
    assert off(path, want) < 1e-4  # Adam turns the sign of a vanishing gradient into a step
    ddim = made(name, schedule(5), **settings | {"inner_steps": 0})[1]["losses"]
    assert (tape["losses"] <= ddim * 1.001).float().mean() > 0.8
    assert torch.isfinite(made(name, schedule(5), **settings, compat=True)[0]).all()


def test_guided_ddim_is_ddim_at_the_edits_guidance() -> None:
    path, _ = made("guided-ddim", schedule(7))
    assert torch.equal(path, made("ddim", schedule(7), inversion_guidance=3.0)[0])


def test_published_levels_of_pix2pix_zero() -> None:
    s = schedule(10)
    steps = shifted_levels(s)
    assert sorted(steps) == list(range(3, 11))
    for asked, carried in steps.values():
        assert carried.clean == Level.of(s.table[asked.t - 1])
        assert carried.noisy == Level.of(s.table[asked.t + 99])
    with pytest.raises(ValueError, match="3 steps or more"):
        shifted_levels(schedule(2))
    path, _ = made("pix2pix-zero", s, compat=True)
    assert torch.equal(path[0], path[2])
    assert not torch.equal(path[2], path[3])


# On networks ------------------------------------------------------------------------------------

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat")


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Walker]:
    folder = tmp_path_factory.mktemp("fixed")
    folders = {
        "epsilon": small_sd(folder / "e"),
        "v": small_sd(folder / "v", "v_prediction"),
        "zero": small_sd(folder / "z", "v_prediction", zero_snr=True),
        "sdxl": small_sdxl(folder / "x"),
    }
    return {
        k: Walker(load_backbone(str(f), device="cpu", dtype="float32"), PROMPTS, (9, 17))
        for k, f in folders.items()
    }


FEW: dict[str, dict[str, Any]] = {
    "spdinv": {"inner_steps": 2},
    "dual-conditional": {"inner_steps": 2},
    "proximal-null-text": {"inner_steps": 1},
    "fixed-point": {"iterations": 3},
    "renoise": {"renoise_steps": 2, "enhance": True},
}


@pytest.mark.parametrize("name", [*SOLVING, "proximal-null-text"])
@pytest.mark.parametrize("kind", ["v", "zero", "sdxl"])
def test_every_prediction_and_family(name: str, kind: str, walkers: dict[str, Walker]) -> None:
    walker = walkers[kind]
    record = walker.invert(name, steps=3, guidance=3.0, **FEW.get(name, {}))
    assert record.trajectory.shape == (4, 4, 9, 17)
    assert torch.isfinite(walker.walk(record, PROMPTS)).all()


@pytest.mark.parametrize("name", [*SOLVING, "proximal-null-text"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_number_of_steps(name: str, steps: int, walkers: dict[str, Walker]) -> None:
    record = walkers["epsilon"].invert(name, steps=steps, guidance=3.0, **FEW.get(name, {}))
    assert record.trajectory.shape == (steps + 1, 4, 9, 17)
    assert all(len(v) == steps for v in record.tape.values())


@pytest.mark.parametrize("kind", ["epsilon", "v", "zero"])
def test_solving_brings_the_photo_nearer_than_ddim(kind: str, walkers: dict[str, Walker]) -> None:
    walker = walkers[kind]
    errors = {}
    for name in ("negative-prompt", "fixed-point"):
        record = walker.invert(name, steps=20, guidance=3.0)
        errors[name] = off(walker.walk(record, PROMPTS)[0], walker.latents()[0])
    assert errors["fixed-point"] < 0.5 * errors["negative-prompt"]


def test_guidance_of_the_way_up(walkers: dict[str, Walker]) -> None:
    """At 0 the edit's own guidance leads, at its double cost; the way back is then plain."""
    walker = walkers["epsilon"]
    same = [
        walker.invert("fixed-point", steps=3, guidance=1.5, iterations=2, inversion_guidance=g)
        for g in (0.0, 1.5)
    ]
    assert torch.equal(same[0].trajectory, same[1].trajectory)
    assert not same[0].replay().source_unguided
    assert walker.invert("fixed-point", steps=3, iterations=1).replay().source_unguided
    assert inverters.create("fixed-point", inversion_guidance=0.0).forwards(50) == "100 to 1000"


def test_null_text_keeps_the_empty_text_outside_its_window(walkers: dict[str, Walker]) -> None:
    walker = walkers["epsilon"]
    settings = {"inner_steps": 2, "early_stop": 0.0, "start": 0.25, "stop": 0.75}
    record = walker.invert("null-text", steps=4, **settings)
    empty = walker.backbone.empty_text(walker.pixels).embeds[0]
    fitted = [not torch.equal(row, empty) for row in record.tape["uncond"]]
    assert fitted == [False, True, True, False]
    assert (record.tape["losses"] >= 0).any(1).tolist() == fitted


@pytest.mark.parametrize("kind", ["l0", "l1"])
def test_proximal_guidance_leaves_the_source_alone(kind: str) -> None:
    method = inverters.create("proximal-null-text", proximal=kind, quantile=0.5)
    guide, plain = method.guide(ClassifierFree(4.0)), ClassifierFree(4.0)
    step = next(schedule(5).down())
    u, c = latents(1), latents(2)
    mixed = guide(u, c, step)
    assert torch.equal(mixed[0], plain(u, c, step)[0])
    assert torch.equal(guide(u[:1], c[:1], step), plain(u[:1], c[:1], step))
    d = (c - u)[1]
    q = d.abs().flatten().quantile(0.5)
    kept = torch.where(d.abs() > q, d if kind == "l0" else d - d.sign() * q, 0)
    assert torch.allclose(mixed[1], u[1] + 4 * kept)
    published = inverters.create("proximal-null-text", compat=True).guide(ClassifierFree(4.0))
    assert not torch.equal(published(u, c, step)[0], mixed[0])


def test_a_guided_path_is_walked_back_at_its_guidance() -> None:
    """Both ways guided: the toy's photo comes back although guidance is 3."""
    s, x0 = schedule(20), latents().float()
    method = inverters.create("fixed-point", inversion_guidance=0.0, iterations=50)
    denoiser = toy(guidance=3.0, gain=0.1, bend=0.05)
    path, tape = method.invert(x0, denoiser, s).photo(0)
    one = Denoiser(denoiser.model, TEXT.rows([0]), EMPTY, method.guide(ClassifierFree(3.0)))
    assert off(sample(one, method.replay(path, tape), s)[0], x0[0]) < 1e-4
