"""The training command: killed, resumed, and run from end to end at a tiny size."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from p2p_real.tabletop.evaluate import load_pipeline, say
from p2p_real.tabletop.models import make_unet
from p2p_real.tabletop.reader import load_reader
from p2p_real.tabletop.train.__main__ import STAGES, run
from p2p_real.tabletop.train.curves import save_curve, save_sheet
from p2p_real.tabletop.train.loop import state_file
from p2p_real.tabletop.train.muon import make_optimizers, orthogonalised
from p2p_real.tabletop.train.renderer import render_chunks
from p2p_real.tabletop.train.settings import Settings, pick_device, pick_precision
from p2p_real.tabletop.train.start import load_part
from p2p_real.tabletop.train.state import (
    optimizer_tensors,
    read_facts,
    read_tensors,
    restore_optimizer,
    write_tensors,
)
from p2p_real.tabletop.train.unet import TRACE, traces

STEPS = 10


def _settings(out: Path) -> Settings:
    return Settings(
        out=out,
        steps=STEPS,
        scenes=16,
        chunk=8,
        held_out=4,
        batch=8,
        size="tiny",
        save_every=0.0,
    )


def _command(settings: Settings, until: str) -> list[str]:
    given = {
        "--out": settings.out,
        "--until": until,
        "--steps": settings.steps,
        "--scenes": settings.scenes,
        "--chunk": settings.chunk,
        "--held-out": settings.held_out,
        "--batch": settings.batch,
        "--size": settings.size,
        "--save-every": settings.save_every,
        "--precision": "float32",
        "--device": "cpu",
        "--workers": settings.workers,
    }
    words = [str(word) for pair in given.items() for word in pair]
    return [sys.executable, "-m", "p2p_real.tabletop.train", *words]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    killed, whole = _settings(tmp_path / "killed"), _settings(tmp_path / "whole")
    file = state_file(killed.out, "vae")
    for settings in (killed, whole):
        render_chunks(settings.out / "data", rank=0, workers=1, count=8, last=2)
    with (tmp_path / "talk.txt").open("w") as talk:
        process = subprocess.Popen(_command(killed, "vae"), stdout=talk, stderr=talk)
        end = time.monotonic() + 100
        while read_facts(file).get("step", 0) < 2:
            assert process.poll() is None, (tmp_path / "talk.txt").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.kill()
        process.wait()
    stopped = read_facts(file)
    assert 2 <= stopped["step"] < STEPS
    assert not stopped["done"]

    (file.parent / "vae.safetensors.1.tmp").touch()
    stages = STAGES[: STAGES.index("vae") + 1]
    run(killed, stages)
    assert not list(file.parent.glob("*.tmp"))
    run(whole, stages)
    tensors, facts = read_tensors(file)
    expected, full = read_tensors(state_file(whole.out, "vae"))
    assert facts["step"] == full["step"] == STEPS
    assert facts["done"]
    assert facts["log"][0]["step"] == STEPS
    assert facts["seconds"] > stopped["seconds"]
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)

    before = file.stat().st_mtime_ns
    run(killed, stages)  # what is done is not done again
    assert file.stat().st_mtime_ns == before


def test_all_stages_make_a_folder_the_ordinary_classes_load(tmp_path: Path) -> None:
    settings = replace(_settings(tmp_path), steps=2)
    run(settings)
    packed = tmp_path / "tabletop"
    pipe = load_pipeline(packed / "checkpoint")
    picture = pipe("a red ball", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (128, 128, 3)
    pictures = torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    assert len(say(packed / "captioner", pictures)) == 1
    assert load_reader(packed / "reader.safetensors").indices(pictures).shape == (1, 5)
    for name in ("vae", "unet", "decoder", "captioner", "reader"):
        assert Image.open(tmp_path / "curves" / f"{name}.png").width > 0
    for name in ("vae", "unet", "decoder", "captioner"):
        assert Image.open(tmp_path / "samples" / f"{name}.png").width > 128
    assert not list(tmp_path.rglob("*.tmp*"))
    with pytest.raises(ValueError, match="was begun with"):
        run(replace(settings, chunk=4))
    _check_training_on(replace(settings, out=tmp_path / "on", start_from=packed / "checkpoint"))


def _check_training_on(settings: Settings) -> None:
    """Trains a checkpoint on: the encoder and the scale stay, the rest hardly moves."""
    run(replace(settings, lr_scale=1e-9))
    before, after = settings.start_from, settings.out / "tabletop" / "checkpoint"
    assert before is not None
    (after.parent.parent / "state" / "unet.safetensors").unlink()
    files = {path.relative_to(before) for path in before.rglob("*") if path.is_file()}
    assert files == {path.relative_to(after) for path in after.rglob("*") if path.is_file()}
    for name in ("unet", "text_encoder", "vae"):
        (path,) = (after / name).glob("*.safetensors")
        old = load_file(before / name / path.name)
        for key, tensor in load_file(path).items():
            torch.testing.assert_close(tensor, old[key], rtol=1e-2, atol=1e-3, msg=f"{name} {key}")
    run(settings)  # without the stage's state it is trained anew, from the same weights
    assert not (settings.out / "state" / "vae.safetensors").exists()
    tensors, _ = read_tensors(state_file(settings.out, "unet"))
    moved = [
        (tensors[f"module/unet/{key}"] - old).abs().max() > 0
        for key, old in load_file(before / "unet" / "diffusion_pytorch_model.safetensors").items()
    ]
    assert any(moved)
    scale = AutoencoderKL.load_config(before / "vae")["scaling_factor"]
    assert AutoencoderKL.load_config(after / "vae")["scaling_factor"] == scale
    with pytest.raises(ValueError, match="another size"):
        load_part(before, "unet", make_unet())


def test_state_is_whole_and_holds_optimisers(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.LayerNorm(16))
    optimizers = make_optimizers([net], 1e-2, (0.9, 0.99))
    net(torch.randn(4, 16)).pow(2).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    for optimizer in optimizers:
        state = optimizer_tensors(optimizer)
        assert state
        write_tensors(tmp_path / "a.safetensors", state, {"step": 1})
        read, facts = read_tensors(tmp_path / "a.safetensors")
        assert facts == {"step": 1}
        restore_optimizer(optimizer, read)
        for name, tensor in optimizer_tensors(optimizer).items():
            assert torch.equal(tensor, state[name])
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_traces_are_of_another_scene_and_faint() -> None:
    rng = torch.Generator().manual_seed(0)
    x0 = torch.randn(200, 4, 16, 16, generator=rng)
    found, other = traces(x0, rng), x0.roll(1, 0) - x0
    share = (found * other).sum((1, 2, 3)) / other.square().sum((1, 2, 3))
    torch.testing.assert_close(found, share[:, None, None, None] * other)
    assert share.min() >= 0
    assert 0.9 * TRACE < share.max() <= TRACE
    assert 70 < (share == 0).sum() < 130


def test_orthogonalised_brings_singular_values_near_one() -> None:
    g = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(g))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_curves_and_sheets_are_drawn(tmp_path: Path) -> None:
    log = [{"step": k, "loss": 1 / (k + 1), "psnr": float("nan")} for k in range(3)]
    save_curve(tmp_path / "curve.png", log)
    save_sheet(tmp_path / "sheet.png", torch.zeros(3, 8, 8, 3, dtype=torch.uint8), columns=2)
    assert Image.open(tmp_path / "sheet.png").size == (20, 20)
    assert Image.open(tmp_path / "curve.png").width > 100


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no size 'huge'"):
        Settings(tmp_path, size="huge")
    with pytest.raises(ValueError, match="cannot be shared"):
        Settings(tmp_path, batch=1, workers=2)
    with pytest.raises(ValueError, match="is no checkpoint folder"):
        Settings(tmp_path, start_from=tmp_path)
    with pytest.raises(ValueError, match="above 0"):
        Settings(tmp_path, lr_scale=0.0)
    assert pick_device("cpu") == "cpu"
    assert pick_precision("auto", "cpu") in ("float32", "bfloat16")
