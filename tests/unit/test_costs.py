"""What an inversion is said to cost before it is run, held to what it counts and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inversion import ClassifierFree, inverters
from inversion.inverter import Cost
from p2p_real import doctor
from p2p_real.backbones import load_backbone
from p2p_real.choosing import inversions
from p2p_real.costs import Rates, Row, estimate, plan, told
from p2p_real.measure import resident, resident_peak, tensor_peak
from tests.small import small_sd
from tests.walks import Walker

STEPS = 3


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("costs") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), ("a cat",), (8, 8))


@pytest.mark.parametrize("name", list(inverters))
def test_no_method_takes_more_rows_than_it_says(name: str, walker: Walker) -> None:
    settings: dict[str, Any] = {}
    if hasattr(inverters[name], "inner_steps"):
        settings = {"inner_steps": 2, "early_stop": 0.0}
    method = inverters.create(name, **settings)
    cost = method.cost(STEPS)
    denoiser = walker.denoiser(("a cat",), ClassifierFree(7.5))
    generator = torch.Generator().manual_seed(0)
    method.invert(walker.latents(), denoiser, walker.backbone.schedule(STEPS), generator=generator)
    assert (cost.least or 1) <= denoiser.rows_seen <= cost.forward
    assert denoiser.rows_backward <= cost.backward
    assert (cost.backward > 0) == method.needs_grad
    assert method.forwards(STEPS) == str(cost)


def test_costs_in_words() -> None:
    assert str(Cost(50)) == "50"
    assert str(Cost(500, least=50)) == "50 to 500"
    assert str(Cost(650, 500)) == "150 + up to 500 forward and backward"
    assert all(inversions[name]().forwards(50) for name in inversions)


def test_an_estimate_is_rows_times_rates() -> None:
    rates = Rates(Row(1.0, 10), Row(3.0, 50), Row(4.0, 20), base=100)
    plain = estimate(rates, Cost(150))
    assert plain == {"seconds_at_most": 150, "seconds_likely": 150, "peak_memory_bytes": 110}
    cost = Cost(650, 500, likely=0.5)
    fitted = estimate(rates, cost)
    assert fitted == {"seconds_at_most": 1650, "seconds_likely": 900, "peak_memory_bytes": 150}
    saved = estimate(rates, cost, checkpointing=True)
    assert saved == {"seconds_at_most": 2150, "seconds_likely": 1150, "peak_memory_bytes": 120}
    with pytest.raises(ValueError, match="gradient=True"):
        estimate(Rates(Row(1.0, 10)), cost)
    line = told(fitted, {"seconds": 812.3, "peak_memory_bytes": 3 * 2**20})
    assert line == "predicted 900.0 s, at most 1650.0 s, 0 MiB; took 812.3 s, 3 MiB"
    assert "at most" not in told(plain, {"seconds": 1, "peak_memory_bytes": 1})


def test_a_plan_measures_a_row_and_leaves_no_trace(walker: Walker) -> None:
    unet = walker.backbone.unet
    before = [(m, dict(m.__dict__)) for m in unet.modules()]
    method = inverters.create("null-text", inner_steps=4)
    found = plan(walker.backbone, method, STEPS, walker.pixels)
    assert all(m.__dict__ == was for m, was in before)
    assert all(p.grad is None for p in unet.parameters())
    assert 0 < found["seconds_likely"] <= found["seconds_at_most"]
    assert found["unet_rows"] == method.forwards(STEPS)
    assert found["peak_memory_bytes"] >= found["checkpointed"]["peak_memory_bytes"] > 0
    plain = plan(walker.backbone, inverters.create("ddim"), STEPS, walker.pixels)
    assert "checkpointed" not in plain
    assert plain["seconds_likely"] == plain["seconds_at_most"]


def test_tensor_peak_counts_what_is_held_at_once() -> None:
    device = torch.device("cpu")

    def work() -> None:
        for _ in range(3):
            torch.zeros(2**20)
        kept = [torch.zeros(2**20) for _ in range(2)]
        del kept

    assert 8 * 2**20 <= tensor_peak(work, device) < 9 * 2**20
    assert resident() > 2**20 < resident_peak()


def test_doctor_says_both_times_and_both_peaks(walker: Walker, tmp_path: Path) -> None:
    folder = small_sd(tmp_path / "model")
    found = doctor.predict(folder, "null-text", 2, device="cpu")
    assert found["inversion_seconds_likely"] <= found["inversion_seconds_at_most"]
    assert found["with_checkpointing"]["peak_memory_bytes"] > 0
    said = doctor.describe({**doctor.survey(), "plan": found})
    assert "with checkpointing=true: about" in said
    assert found["unet_rows"] in said
    assert "checkpointing" not in doctor.describe(
        {**doctor.survey(), "plan": doctor.predict(folder, "direct", 2, device="cpu")}
    )
