"""Rows, halves and guidance: which answer belongs to whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inversion import ClassifierFree, Denoiser, Layout, Schedule, TextCond
from inversion.denoiser import COND, UNCOND


class Telling:
    """A closed-form network: its answer names the row's latent, its text and the time."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        self.calls.append(tuple(x.shape))
        return x + 10 * cond.embeds.mean((1, 2)).view(-1, 1, 1, 1) + t


STEP = next(Schedule.make([5], [0.5] * 8, 0.9).down())


def text(*values: float) -> TextCond:
    return TextCond(torch.tensor(values).view(-1, 1, 1).expand(-1, 2, 3))


def latents(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 3)


def made(scale: float | tuple[float, ...] = 7.5, branches: int = 2) -> Denoiser:
    cond = text(*(float(b) for b in range(1, branches + 1)))
    return Denoiser(Telling(), cond, text(0.0), ClassifierFree(scale))


def test_rows_are_half_by_half() -> None:
    full = Layout.full(3)
    assert full.rows == tuple((h, b) for h in (UNCOND, COND) for b in range(3))
    assert len(full) == 6
    assert full.index(COND, 1) == 4
    assert full.targets(COND) == [(4, 1), (5, 2)]
    assert full.targets(UNCOND) == [(1, 1), (2, 2)]
    pruned = Layout(((UNCOND, 1), (COND, 1)))
    assert pruned.index(COND, 0) is None
    assert pruned.index(COND, 1) == 1
    assert pruned.targets(COND) == [(1, 1)]


def test_predict_hands_each_row_its_latent_and_text() -> None:
    denoiser = made()
    rows = ((COND, 1), (UNCOND, 0), (COND, 0))
    out = denoiser.predict(latents(0.1, 0.2), STEP, Layout(rows))
    expected = [0.2 + 20 + 5, 0.1 + 0 + 5, 0.1 + 10 + 5]
    torch.testing.assert_close(out[:, 0, 0, 0], torch.tensor(expected))
    assert denoiser.layout.rows == rows
    assert denoiser.step == STEP
    assert denoiser.size == (2, 3)
    assert denoiser.rows_seen == 3


@pytest.mark.parametrize("scale", [0.0, 2.0, 7.5, -1.0])
def test_classifier_free_guidance(scale: float) -> None:
    denoiser = made(scale)
    est = denoiser(latents(0.1, 0.2), STEP)
    uncond, cond = torch.tensor([5.1, 5.2]), torch.tensor([15.1, 25.2])
    torch.testing.assert_close(est.eps[:, 0, 0, 0], uncond + scale * (cond - uncond))
    assert denoiser.rows_seen == 4


def test_guidance_one_asks_the_prompt_alone() -> None:
    denoiser = made(1.0)
    assert not denoiser.guide.needs_uncond()
    est = denoiser(latents(0.1, 0.2), STEP)
    torch.testing.assert_close(est.eps[:, 0, 0, 0], torch.tensor([15.1, 25.2]))
    assert denoiser.rows_seen == 2


def test_guidance_by_branch() -> None:
    denoiser = made((1.0, 3.0))
    assert denoiser.guide.needs_uncond()
    est = denoiser(latents(0.1, 0.2), STEP)
    expected = torch.tensor([15.1, 5.2 + 3 * 20])
    torch.testing.assert_close(est.eps[:, 0, 0, 0], expected)
    assert not ClassifierFree((1.0, 1.0)).needs_uncond()


def test_rows_left_out() -> None:
    """No unconditional row: unguided. No row at all: zeros for the replay to fill in."""
    denoiser = made()
    est = denoiser(latents(0.1, 0.2), STEP, layout=Layout(((UNCOND, 1), (COND, 0), (COND, 1))))
    expected = torch.tensor([15.1, 5.2 + 7.5 * 20])
    torch.testing.assert_close(est.eps[:, 0, 0, 0], expected)
    est = denoiser(latents(0.1, 0.2), STEP, layout=Layout(((UNCOND, 1), (COND, 1))))
    torch.testing.assert_close(est.eps[:, 0, 0, 0], torch.tensor([0.0, 5.2 + 7.5 * 20]))
    assert denoiser.rows_seen == 5


def test_text_of_one_call() -> None:
    denoiser = made(2.0)
    est = denoiser(latents(0.0, 0.0), STEP, uncond=text(4.0))
    torch.testing.assert_close(est.eps[:, 0, 0, 0], torch.tensor([-15.0, 5.0]))
    est = denoiser(latents(0.0, 0.0), STEP, uncond=text(1.0, 2.0))  # a row a branch
    torch.testing.assert_close(est.eps[:, 0, 0, 0], torch.tensor([15.0, 25.0]))
    assert denoiser.uncond.embeds.sum() == 0


def test_another_guide_has_its_own_count() -> None:
    denoiser = made()
    denoiser(latents(0.0, 0.0), STEP)
    other = denoiser.with_guide(ClassifierFree(1.0))
    assert (other.rows_seen, denoiser.rows_seen) == (0, 4)
    assert other.model is denoiser.model
    assert denoiser.guide == ClassifierFree(7.5)


def test_conditioning_rows() -> None:
    full = TextCond(torch.randn(2, 4, 3), torch.randn(2, 5), torch.randn(2, 6))
    assert len(full) == 2
    picked = full.rows([1, 1, 0])
    assert len(picked) == 3
    assert torch.equal(picked.pooled, full.pooled[[1, 1, 0]])  # type: ignore[index]
    both = TextCond.cat([full, picked])
    assert (len(both), both.time_ids.shape) == (5, (5, 6))  # type: ignore[union-attr]
    assert full.expand(2) is full
    one = full.rows([0])
    assert torch.equal(one.expand(3).embeds, full.embeds[[0, 0, 0]])
    with pytest.raises(RuntimeError):
        full.expand(3)


def test_between_two_texts() -> None:
    a = TextCond(torch.zeros(1, 2, 3), torch.zeros(1, 4), torch.ones(1, 6))
    b = TextCond(torch.ones(1, 2, 3), torch.ones(1, 4), torch.ones(1, 6))
    assert torch.equal(a.lerp(b, 0).embeds, a.embeds)
    assert torch.equal(a.lerp(b, 1).pooled, b.pooled)  # type: ignore[arg-type]
    assert (a.lerp(b, 0.25).embeds == 0.25).all()
    assert a.lerp(TextCond(torch.ones(1, 2, 3)), 0.5).pooled is None
