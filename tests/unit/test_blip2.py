"""BLIP-2 through its real class, with a decoder and with an encoder-decoder behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
    PreTrainedTokenizerFast,
)

from captioning import Captioner, CaptionerError, captioners, load_captioner
from captioning.checkpoints import kind_of
from p2p_real.captions import captioner_for

SENTENCE = "a the cat dog ball cup red blue green on and with photo of sits big small"
WORDS = SENTENCE.split()
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
QUERIES = 4
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT: dict[str, Any] = {
    **SMALL,
    "model_type": "opt",
    "ffn_dim": 64,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 40,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
T5: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "decoder_start_token_id": 1,
}


def save(path: Path, text: dict[str, Any]) -> Path:
    """A BLIP-2 with random weights, saved as any checkpoint is."""
    vocabulary = {word: n for n, word in enumerate([*SPECIALS, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = "</s> $A" if text["model_type"] == "opt" else "$A </s>"
    words.post_processor = processors.TemplateProcessing(frame, special_tokens=[("</s>", 2)])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIALS, strict=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, additional_special_tokens=["<image>"], **names
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config={**SMALL, "intermediate_size": 64, "image_size": 32, "patch_size": 8},
        qformer_config={
            **SMALL,
            "intermediate_size": 64,
            "encoder_hidden_size": 32,
            "vocab_size": 30,
        },
        text_config={**text, "vocab_size": len(vocabulary)},
        num_query_tokens=QUERIES,
        image_token_index=4,
    )
    model = Blip2ForConditionalGeneration(config)
    for parameter in model.parameters():  # loud weights: random captions that differ
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(path)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("opt"), OPT)


@pytest.fixture(scope="module")
def blip2(folder: Path) -> Captioner:
    return load_captioner("blip2", folder, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (64, 40), (20, 90), (50, 50)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_one_caption_a_picture_and_a_batch_equals_single(
    blip2: Captioner, folder: Path, images: list[Image.Image]
) -> None:
    assert isinstance(blip2, Captioner)
    assert blip2.name == f"blip2 ({folder.name})"
    together = blip2.caption(images)
    assert len(together) == len(images)
    assert len(set(together)) > 1  # the pictures matter
    assert all(set(re.findall(r"\w+", text)) <= {*WORDS, "an"} for text in together)
    assert together == [blip2.caption([image])[0] for image in images]
    assert blip2.caption([]) == []
    assert len(blip2.caption([Image.new(mode, (40, 30)) for mode in ("L", "RGBA", "1")])) == 3


def test_it_says_what_the_class_says(folder: Path, images: list[Image.Image]) -> None:
    """The same ids as the library's own generate, which puts the start token itself."""
    from captioning.blip2 import Blip2Captioner

    ours = Blip2Captioner(folder, device="cpu")
    pixels = ours._processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        out = ours._model.generate(pixel_values=pixels, num_beams=3, max_new_tokens=6)
    said = ours._tokenizer.batch_decode(out, skip_special_tokens=True)
    how = {"num_beams": 3, "do_sample": False, "max_new_tokens": 6}
    with torch.inference_mode():
        got = ours._say(pixels, ours._prompt(""), "", how)
    assert [text.split() for text in got] == [text.split() for text in said]


@pytest.mark.parametrize("sample", [False, True])
def test_a_prefix_begins_every_caption(
    blip2: Captioner, images: list[Image.Image], sample: bool
) -> None:
    captions = blip2.caption(images, " a  photo of", sample=sample, max_new_tokens=5)
    assert all(text.startswith("a photo") for text in captions)
    assert captions != blip2.caption(images, "the cat", sample=sample, max_new_tokens=5)
    alone = [blip2.caption([i], "a photo of", sample=sample, max_new_tokens=5)[0] for i in images]
    assert captions == alone


def test_sampling_is_seeded_and_leaves_the_random_state_alone(
    blip2: Captioner, images: list[Image.Image]
) -> None:
    before = torch.random.get_rng_state()
    first = blip2.caption(images, sample=True, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert blip2.caption(images, sample=True, seed=1) == first
    assert blip2.caption(images, sample=True, seed=2) != first


def test_wrong_questions(blip2: Captioner, images: list[Image.Image]) -> None:
    with pytest.raises(CaptionerError, match="list"):
        blip2.caption(images[0])  # type: ignore[arg-type]
    with pytest.raises(CaptionerError, match="at least 1"):
        blip2.caption(images, num_beams=0)
    with pytest.raises(CaptionerError, match="prefix is too long"):
        blip2.caption(images, "cat " * 60)
    assert len(blip2.caption(images[:1], "cat dog " * 12, max_new_tokens=500)) == 1


def test_an_encoder_decoder_behind_it(tmp_path: Path, images: list[Image.Image]) -> None:
    t5 = load_captioner("blip2", save(tmp_path / "t5", T5), device="cpu")
    together = t5.caption(images, "a photo of", max_new_tokens=5)
    assert len(set(together)) > 1
    assert all(text.startswith("a photo") for text in together)
    assert together == [t5.caption([i], "a photo of", max_new_tokens=5)[0] for i in images]


def test_a_folder_of_another_kind_or_without_its_files(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with pytest.raises(CaptionerError, match="holds a 'blip-2' model, not 'blip'"):
        load_captioner("blip", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "image_token_index": None}))
    with pytest.raises(CaptionerError, match="image_token_index"):
        load_captioner("blip2", copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CaptionerError, match=r"lacks model\.safetensors.*pickles are not read"):
        load_captioner("blip2", copy)


def test_what_a_checkpoint_is_for(folder: Path, tmp_path: Path) -> None:
    assert {"blip", "blip2", "lavis"} <= set(captioners())
    assert captioner_for(str(folder), "sd1.5", "cpu").name == f"blip2 ({folder.name})"
    assert kind_of("Salesforce/blip2-opt-2.7b") == kind_of("someone/my-BLIP-2") == "blip2"
    assert kind_of("Salesforce/blip-image-captioning-large") == "blip"
    assert kind_of("a/b/c") == kind_of("not a name/at all") == "blip"
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CaptionerError, match="holds a 'clip' model"):
        captioner_for(str(tmp_path), "sd1.5")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CaptionerError, match="JSON"):
        kind_of(str(tmp_path))
    bare = tmp_path / "bare"
    bare.mkdir()
    assert kind_of(str(bare)) == "blip"
    (bare / "bert-base-uncased").mkdir()
    assert kind_of(str(bare)) == "lavis"


def test_a_cached_hub_id_is_told_by_its_config(tmp_path: Path) -> None:
    """The hub's own layout on disk; its constants are read once, so in a process of its own."""
    snapshot = tmp_path / "models--someone--captions" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "blip-2"}')
    refs = tmp_path / "models--someone--captions" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    code = "from captioning.checkpoints import kind_of; print(kind_of('someone/captions'))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert told.stdout == "blip2\n", told.stderr
