"""The whole main job on small checkpoints of every family: SD, v-prediction, SDXL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inversion import Inversion
from p2p_real.editor import Editor
from tests.small import small_sd, small_sdxl

FAMILIES = ("epsilon", "v_prediction", "sdxl")


@pytest.fixture(scope="module", params=FAMILIES)
def editor(request, tmp_path_factory) -> Editor:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "sdxl":
        small_sdxl(folder)
    else:
        small_sd(folder, prediction=request.param, zero_snr=request.param == "v_prediction")
    return Editor.load(folder, device="cpu", cache=False)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    ramp = np.linspace(0, 255, 131 * 75 * 3).reshape(75, 131, 3)
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("method", ["ddim", "direct", "negative-prompt", "null-text"])
def test_main_job(editor: Editor, photo: np.ndarray, method: str, tmp_path: Path) -> None:
    made = editor.invert(photo, "a cat on a mat", method=method, steps=3, guidance_scale=3.0)
    made.save(tmp_path / "x.inv.safetensors")
    again = Inversion.load(tmp_path / "x.inv.safetensors")
    assert torch.equal(made.trajectory, again.trajectory)
    results = [
        editor.edit(one, swap={"cat": "dog"}, local={"cat": "dog"}, local_threshold=0.9)
        for one in (made, again)
    ]
    assert torch.equal(results[0].latents, results[1].latents)
    result = results[0]
    assert result.image.size == (131, 75) == result.reconstruction.size
    assert result.report["max_latent_change"]["reconstruction"] > 1e-3
    assert {row["control"] for row in result.report["controls"]} == {
        "cross-attention",
        "self-attention",
        "local blend",
    }
    if method == "direct":
        assert torch.equal(result.latents[0], made.trajectory[0])


def test_generate_and_every_kind_of_words(editor: Editor) -> None:
    plain = editor.generate("a cat on a mat", steps=3, seed=5, size=(72, 136))
    assert plain.image.size == (72, 136)
    kinds = [
        {"swap": {"cat": "dog"}},
        {"add": "in the snow"},
        {"remove": "mat"},
        {"weight": {"cat": 3.0}},
        {"style": "a watercolor painting"},
        {"target": "a dog and a bird on a big sofa"},
    ]
    for words in kinds:
        edited = editor.generate("a cat on a mat", steps=3, seed=5, size=(72, 136), **words)
        # the source row is the plain picture, whatever is done beside it
        assert torch.allclose(edited.latents[0], plain.latents[0], atol=1e-4), words
        assert (edited.latents[1] - edited.latents[0]).abs().max() > 1e-3, words


def test_steps_from_one_to_many(editor: Editor, photo: np.ndarray) -> None:
    for steps in (1, 2, 7):
        result = editor.edit(
            photo, "a dog on a mat", source="a cat on a mat", steps=steps, cross_replace=1.0
        )
        assert torch.isfinite(result.latents).all()
        assert result.report["steps"] == steps
