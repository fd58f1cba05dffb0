"""Every inversion method at every number of steps, and on a large oblong picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from inversion import inverters
from p2p_real.backbones import load_backbone
from tests.small import small_sd
from tests.unit.test_inversions_exact import back, invert, photo, schedule_of
from tests.walks import Walker, off

METHODS = list(inverters)
STEPS = (1, 2, 7, 50, 100, 250)
GUIDANCE = 1.5


def made(name: str, **wanted: Any) -> Any:
    known = {f.name for f in dataclasses.fields(inverters[name])}
    return inverters.create(name, **{k: v for k, v in wanted.items() if k in known})


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_steps(name: str, steps: int) -> None:
    method, schedule = made(name, inner_steps=2), schedule_of(steps)
    record = invert(method, schedule, scale=GUIDANCE)
    assert len(record.trajectory) == steps + 1
    assert torch.isfinite(record.trajectory).all()
    assert all(len(tape) == steps for tape in record.tape.values())
    latents, _ = back(method, record, schedule, 0.3, scale=GUIDANCE)
    assert torch.isfinite(latents).all()
    if method.exact:
        assert off(latents[0].float(), photo()[0]) <= 1e-5


@pytest.mark.parametrize("name", [n for n in METHODS if not inverters[n].exact])
def test_more_steps_bring_the_photo_nearer(name: str) -> None:
    def distance(steps: int) -> float:
        # guidance 1, and nothing random or corrective beside the path itself
        method = made(name, inner_steps=0, rounds=0)
        schedule = schedule_of(steps)
        record = invert(method, schedule, scale=1.0)
        return off(back(method, record, schedule, 0.3, scale=1.0)[0][0].float(), photo()[0])

    assert distance(250) < max(0.5 * distance(7), 1e-5)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    """Attention where maps are an eighth of the latents or smaller, so that 72 x 136 is quick."""
    folder = small_sd(
        Path(tmp_path_factory.mktemp("large")) / "model",
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    backbone = load_backbone(str(folder), device="cpu", dtype="float32")
    return Walker(backbone, ("a cat on a mat", "a dog on a mat"), (72, 136))


@pytest.mark.parametrize("name", METHODS)
def test_a_large_oblong_picture(name: str, large: Walker) -> None:
    settings = {"inner_steps": 1} if "inner_steps" in {
        f.name for f in dataclasses.fields(inverters[name])
    } else {}  # fmt: skip
    record = large.invert(name, steps=2, guidance=GUIDANCE, **settings)
    assert record.trajectory.shape[-2:] == (72, 136)
    x = large.walk(record, large.prompts, large.controls(large.prompts, 2, self_scale=1))
    assert x.shape == (2, 4, 72, 136)
    if inverters[name].exact:
        assert off(x[:1], large.latents()) <= 1e-5
    assert off(x[1:], x[:1]) > 1e-3  # the edit acts
