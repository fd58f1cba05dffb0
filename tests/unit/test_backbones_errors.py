"""What cannot be loaded is said in one clear line, before or instead of a traceback."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from p2p_real.backbones import (
    ALIASES,
    ModelError,
    find_model,
    hub,
    load_backbone,
    loading,
    placement,
)
from p2p_real.backbones.folder import choose_variant, variants
from p2p_real.backbones.hub import wanted_files
from p2p_real.backbones.names import LICENCES, MOVED, licence_of
from tests.small import small_sd, small_sdxl

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd(tmp_path_factory.mktemp("errors") / "model")


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(model: str | Path, **settings: Any) -> str:
    with pytest.raises(ModelError) as error:
        load_backbone(model, **({"device": "cpu"} | settings))
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys; from p2p_real.backbones import ALIASES, ModelError, find_model, load_backbone;"
        "find_model('tabletop'); heavy = {'torch', 'diffusers', 'transformers'};"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tabletop_is_a_folder_like_any_other() -> None:
    backbone = load_backbone(device="cpu")
    assert (backbone.name, backbone.family, backbone.licence) == ("tabletop", "sd", "apache-2.0")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("sd15", "unknown model 'sd15'; did you mean 'sd1.5'?"),
        ("tabeltop", "did you mean 'tabletop'?"),
        ("zzz", "unknown model 'zzz'"),
        ("/no/such/folder", "no file or folder '/no/such/folder'"),
        ("./models/x", "no file or folder './models/x'"),
        ("models/x.safetensors", "no file or folder 'models/x.safetensors'"),
        ("x.ckpt", "no file or folder 'x.ckpt'"),
        ("", "no model was named"),
    ],
)
def test_unknown_names(model: str, message: str) -> None:
    said = refused(model)
    assert message in said
    assert "sd1.5" in said


def test_aliases_and_moved_ids(caplog: pytest.LogCaptureFixture) -> None:
    for name, hub_id in ALIASES.items():
        assert find_model(name) == ("hub", hub_id, None)
        assert hub_id in LICENCES
    assert "unofficial mirror" in caplog.text  # sd2.1
    for old, new in MOVED.items():
        caplog.clear()
        assert find_model(old).name == new
        assert new not in MOVED
        assert f"{old} was withdrawn from the hub; using {new}" in caplog.text
    assert find_model("someone/model-v1.5").kind == "hub"


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "has no model_index.json" in refused(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    assert "one.safetensors" in refused(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["FluxPipeline", "StableDiffusion3Pipeline"])
def test_other_families(folder: Path, kind: str) -> None:
    rewrite(folder / "model_index.json", lambda d: d.update(_class_name=kind))
    assert f"is a {kind}, which is not supported" in refused(folder)
    assert "SDXL are" in refused(folder)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    for name, message in {"m.ckpt": "is a pickle", "m.txt": "is no model"}.items():
        (tmp_path / name).write_bytes(b"x")
        assert message in refused(tmp_path / name)


def test_pickles_are_not_read(folder: Path) -> None:
    weights = folder / f"{UNET}.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert "unet has pickle weights only" in refused(folder)
    weights.with_suffix(".bin").unlink()
    assert "unet has no weights: diffusion_pytorch_model.safetensors" in refused(folder)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler", "unet"])
def test_a_missing_component(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert f"has no {part}: the download is incomplete" in refused(folder)


def test_a_component_without_its_small_files(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    assert "has no config.json" in refused(folder)


def test_a_missing_vocabulary(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    assert "has no vocabulary" in refused(folder)


def test_another_text_encoder(folder: Path) -> None:
    change = {"text_encoder": ["transformers", "T5EncoderModel"]}
    rewrite(folder / "model_index.json", lambda d: d.update(change))
    assert "is a T5EncoderModel, which is not supported" in refused(folder)


def test_corrupt_weights(folder: Path) -> None:
    weights = folder / f"{UNET}.safetensors"
    content = weights.read_bytes()
    for broken in (content[: len(content) // 2], b"<html>not found</html>", b""):
        weights.write_bytes(broken)
        said = refused(folder)
        assert str(weights) in said
        assert "is corrupt or incomplete" in said
        single = folder.parent / "one.safetensors"
        single.write_bytes(broken)
        assert "is corrupt or incomplete" in refused(single)


def test_weights_that_do_not_fit(folder: Path) -> None:
    weights = load_file(folder / f"{UNET}.safetensors")
    del weights["conv_out.bias"]
    save_file(weights, folder / f"{UNET}.safetensors")
    assert "lacks 1 weights, the first is 'conv_out.bias'" in refused(folder)
    weights["conv_out.bias"] = torch.zeros(7)
    save_file(weights, folder / f"{UNET}.safetensors")
    assert "unet cannot be read" in refused(folder)


def test_schedulers_and_networks_of_other_kinds(folder: Path, tmp_path: Path) -> None:
    config = folder / "scheduler" / "scheduler_config.json"
    rewrite(config, lambda d: d.update(prediction_type="flow_prediction"))
    assert "predicts 'flow_prediction'" in refused(folder)
    rewrite(config, lambda d: d.update(_class_name="FlowMatchEulerDiscreteScheduler"))
    assert "FlowMatchEulerDiscreteScheduler, which is not supported" in refused(folder)
    inpainting = small_sd(tmp_path / "inpainting", in_channels=9)
    assert "reads 9 channels where latents have 4" in refused(inpainting)


@pytest.mark.parametrize(
    "scheduler", ["PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_any_scheduler_becomes_ddim(folder: Path, scheduler: str) -> None:
    before = load_backbone(folder, device="cpu").schedule(10)
    config = folder / "scheduler" / "scheduler_config.json"
    rewrite(config, lambda d: d.update(_class_name=scheduler))
    assert load_backbone(folder, device="cpu").schedule(10) == before


def test_the_refiner_is_named(tmp_path: Path) -> None:
    folder = small_sdxl(tmp_path / "model")
    nothing = {"text_encoder": [None, None], "tokenizer": [None, None]}
    rewrite(folder / "model_index.json", lambda d: d.update(nothing))
    assert "no base model" in refused(folder)


def test_variants(folder: Path) -> None:
    assert "has no variant 'fp16'; there: (plain)" in refused(folder, variant="fp16")
    expected = load_backbone(folder, device="cpu").weights_hash
    for file in folder.rglob("*.safetensors"):
        save_file(
            {k: v.half() for k, v in load_file(file).items()},
            file.with_name(f"{file.stem}.fp16.safetensors"),
            metadata={"format": "pt"},
        )
        file.unlink()
    for settings in ({}, {"variant": "fp16"}, {"dtype": "float16"}):
        backbone = load_backbone(folder, device="cpu", **settings)  # type: ignore[arg-type]
        assert backbone.weights_hash == expected
        assert backbone.dtype == (torch.float16 if "dtype" in settings else torch.float32)
        assert {e.dtype for e in backbone.text_encoders} == {backbone.dtype}
    assert "no variant 'ema'; there: fp16" in refused(folder, variant="ema")


def test_choice_of_variant() -> None:
    both = [f"{UNET}.safetensors", f"{UNET}.fp16.safetensors", f"{UNET}.non_ema.safetensors"]
    assert variants(both, "unet") == {"", "fp16", "non_ema"}
    assert choose_variant(both, "unet", torch.float32) is None
    assert choose_variant(both, "unet", torch.float16) == "fp16"
    assert choose_variant(both, "unet", torch.float16, "non_ema") == "non_ema"
    shards = [f"{UNET}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    shards.append(f"{UNET}.safetensors.index.json")
    assert variants(shards, "unet") == {""}
    assert variants([f"{UNET}.safetensors.index.fp16.json"], "unet") == {"fp16"}


def test_device_and_dtype() -> None:
    said = refused("tabletop", device="gpu")
    assert "unknown device 'gpu'" in said
    if not torch.cuda.is_available():
        assert "device 'cuda' is not available here" in refused("tabletop", device="cuda")
    assert "unknown dtype 'int8'" in refused("tabletop", dtype="int8")
    assert placement.pick_dtype("auto", torch.device("cuda")) == torch.float16
    assert placement.pick_dtype("auto", torch.device("mps")) == torch.float32
    assert placement.pick_dtype("bf16", torch.device("cpu")) == torch.bfloat16


def test_the_licence_is_read_and_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="p2p_real"):
        assert load_backbone(folder, device="cpu").licence is None
    assert caplog.text.count("licence of the weights: not stated") == 1
    card = folder / "README.md"
    card.write_text("---\ntags: [a]\nlicense: openrail++\n---\nlicense: mit\n")
    assert load_backbone(folder, device="cpu").licence == "openrail++"
    card.write_text("---\nlicense: other\nlicense_name: my-licence\nlicense_link: x\n---\n")
    assert licence_of(folder, "x") == "my-licence"
    card.write_text("no front matter")
    assert licence_of(folder, ALIASES["sdxl"]) == "openrail++"


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no route")

    monkeypatch.setattr(hub.HfApi, "model_info", offline)
    monkeypatch.setattr(hub, "snapshot_download", offline)
    said = refused("someone/something")
    assert "someone/something is not on this machine and the hub cannot be reached" in said
    assert "tabletop" in said


def test_a_fetched_model_is_a_folder(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    names = [f.relative_to(source).as_posix() for f in source.rglob("*") if f.is_file()]
    asked: list[str] = []

    def fetched(_: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(source)

    listed = [*names, f"{UNET}.bin", "v1-4.ckpt", "safety_checker/model.safetensors"]
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in listed])
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(hub, "snapshot_download", fetched)
    backbone = load_backbone("someone/something", device="cpu")
    assert backbone.name == "someone/something"
    assert sorted(asked) == sorted(names)


def test_what_is_fetched() -> None:
    names = ["model_index.json", "README.md", "vae/config.json", "scheduler/scheduler_config.json"]
    names += ["tokenizer/vocab.json", "tokenizer/merges.txt", "text_encoder/config.json"]
    weights = ["vae/diffusion_pytorch_model", "text_encoder/model", UNET]
    both = [f"{w}{v}.safetensors" for w in weights for v in ("", ".fp16")]
    wanted = wanted_files([*names, *both], "x/y", torch.float16)
    assert set(wanted) == {*names, *(f"{w}.fp16.safetensors" for w in weights)}
    with pytest.raises(ModelError, match="x/y: text_encoder has no weights"):
        wanted_files(names, "x/y", torch.float32)
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        wanted_files(["model.safetensors"], "x/y", torch.float32)


def test_a_lora_needs_peft(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda _: None)
    assert "pip install peft" in refused(folder, lora="x.safetensors")


def test_a_lora_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda _: True)
    assert "no LoRA './x.safetensors'" in refused("tabletop", lora="./x.safetensors")
    (tmp_path / "x.bin").write_bytes(b"x")
    assert "is not a .safetensors file" in refused("tabletop", lora=tmp_path / "x.bin")


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
def test_a_lora_is_fused_and_leaves_plain_modules(folder: Path, tmp_path: Path) -> None:
    plain = load_backbone(folder, device="cpu")
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = dict(plain.unet.named_parameters())[f"{key}.weight"]
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(2, weight.shape[1], generator=generator)
    up = torch.randn(weight.shape[0], 2, generator=generator)
    lora = tmp_path / "lora.safetensors"
    save_file({f"unet.{key}.lora_A.weight": down, f"unet.{key}.lora_B.weight": up}, lora)
    fused = load_backbone(folder, device="cpu", lora=lora)
    names = [n for n, _ in fused.unet.named_parameters()]
    assert names == [n for n, _ in plain.unet.named_parameters()]
    got = dict(fused.unet.named_parameters())[f"{key}.weight"]
    torch.testing.assert_close(got, weight + up @ down, rtol=1e-4, atol=1e-5)
    assert not got.requires_grad
    assert fused.weights_hash != plain.weights_hash
    save_file({"unet.nothing.lora_A.weight": down}, lora)
    assert "cannot be used with 'model'" in refused(folder, lora=lora)
    save_file({"other.nothing.lora_A.weight": down, "other.nothing.lora_B.weight": up}, lora)
    assert "changed no weight" in refused(folder, lora=lora)
    save_file(
        {f"unet.{key}.lora_A.weight": down, f"unet.{key}.lora_B.weight": torch.zeros_like(up)}, lora
    )
    assert "changed no weight" in refused(folder, lora=lora)


def test_a_hub_id_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise hub.RepositoryNotFoundError.__new__(hub.RepositoryNotFoundError)

    monkeypatch.setattr(hub.HfApi, "model_info", absent)
    said = refused("stabilityai/stable-diffusion-xl-base")
    assert "has no model 'stabilityai/stable-diffusion-xl-base'" in said
    assert "did you mean stabilityai/stable-diffusion-xl-base-1.0?" in said
