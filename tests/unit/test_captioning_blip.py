"""BLIP through its real class: a small random one, and the embedded one where it is shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning import Captioner, CaptionerError, UnknownCaptioner, captioners, load_captioner

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "p2p_real" / "tabletop" / "captioner"
SENTENCE = "a the cat dog ball cup red blue green on and with photo of sits big small"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP with random weights, saved as any checkpoint is."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    vocabulary = {word: n for n, word in enumerate([*specials, *WORDS])}
    path = tmp_path_factory.mktemp("blip")
    vocab_file = path / "vocab.txt"
    vocab_file.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    try:
        tokenizer = BertTokenizer(vocab=vocabulary, additional_special_tokens=["[DEC]", "[ENC]"])
    except TypeError:  # transformers 4
        tokenizer = BertTokenizer(str(vocab_file), additional_special_tokens=["[DEC]", "[ENC]"])
    tokenizer.save_pretrained(path)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text = {
        **size,
        "num_attention_heads": 2,
        "encoder_hidden_size": 32,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 24,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {**size, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16)
    )
    for parameter in model.parameters():  # loud weights: random captions that differ
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(path)
    mean = [0.48145466, 0.4578275, 0.40821073]
    recipe = {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": mean,
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(recipe))
    return path


@pytest.fixture(scope="module")
def blip(folder: Path) -> Captioner:
    return load_captioner("blip", folder, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (64, 40), (20, 90), (32, 32), (50, 50)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_it_is_a_captioner_and_says_its_name(blip: Captioner, folder: Path) -> None:
    assert isinstance(blip, Captioner)
    assert blip.name == f"blip ({folder.name})"


def test_one_caption_a_picture_and_a_batch_equals_single(
    blip: Captioner, images: list[Image.Image]
) -> None:
    together = blip.caption(images)
    assert len(together) == len(images)
    assert len(set(together)) > 1  # the pictures matter
    assert all(set(re.findall(r"\w+", text)) <= set(WORDS) for text in together)
    assert together == [blip.caption([image])[0] for image in images]
    assert together == blip.caption(images)
    assert blip.caption([]) == []


@pytest.mark.parametrize("sample", [False, True])
def test_a_prefix_begins_every_caption(
    blip: Captioner, images: list[Image.Image], sample: bool
) -> None:
    captions = blip.caption(images, " a  photo of", sample=sample, max_new_tokens=5)
    assert all(text.startswith("a photo") for text in captions)
    assert captions == [
        blip.caption([i], "a photo of", sample=sample, max_new_tokens=5)[0] for i in images
    ]


def test_beams_search_further_than_greed(blip: Captioner, images: list[Image.Image]) -> None:
    greedy, searched = blip.caption(images, num_beams=1), blip.caption(images, num_beams=5)
    assert greedy != searched


def test_sampling_is_seeded_and_leaves_the_random_state_alone(
    blip: Captioner, images: list[Image.Image]
) -> None:
    import torch

    before = torch.random.get_rng_state()
    first = blip.caption(images, sample=True, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert blip.caption(images, sample=True, seed=1) == first
    assert blip.caption(images, sample=True, seed=2) != first
    alone = [blip.caption([image], sample=True, seed=1)[0] for image in images]
    assert alone == first


def test_any_mode_of_picture(blip: Captioner) -> None:
    modes = [Image.new(mode, (40, 30)) for mode in ("L", "RGBA", "P", "1", "CMYK")]
    assert len(blip.caption(modes)) == 5


def test_wrong_questions(blip: Captioner, images: list[Image.Image]) -> None:
    with pytest.raises(CaptionerError, match="list"):
        blip.caption(images[0])  # type: ignore[arg-type]
    for wrong in ({"num_beams": 0}, {"max_new_tokens": 0}):
        with pytest.raises(CaptionerError, match="at least 1"):
            blip.caption(images, **wrong)  # type: ignore[arg-type]
    with pytest.raises(CaptionerError, match="prefix is too long"):
        blip.caption(images, "cat " * 40)
    assert len(blip.caption(images[:1], "cat " * 15, max_new_tokens=500)) == 1  # cut to the room


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors or model.safetensors.index.json"),
        ("preprocessor_config.json", "preprocessor_config.json or processor_config.json"),
    ],
)
def test_a_folder_that_lacks_files(folder: Path, tmp_path: Path, missing: str, said: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / missing).unlink()
    with pytest.raises(CaptionerError) as error:
        load_captioner("blip", copy)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_with_damaged_or_foreign_files(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaptionerError, match="complete") as error:
        load_captioner("blip", copy)
    assert "\n" not in str(error.value)

    from safetensors.torch import load, save_file

    tensors = load(whole)
    kept = {k: v for k, v in tensors.items() if "crossattention" not in k}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(CaptionerError, match=r"incomplete.*crossattention"):
        load_captioner("blip", copy)

    (copy / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CaptionerError, match="'clip'"):
        load_captioner("blip", copy)
    (copy / "config.json").write_text("{half")
    with pytest.raises(CaptionerError, match="JSON"):
        load_captioner("blip", copy)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="no captioner folder"):
        load_captioner("blip", tmp_path / "nothing")
    with pytest.raises(CaptionerError, match="no captioner folder"):
        load_captioner("blip", "just-a-name")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CaptionerError, match="is a file"):
        load_captioner("blip", tmp_path / "file")


def test_unknown_names_list_what_there_is() -> None:
    assert "blip" in captioners()
    with pytest.raises(UnknownCaptioner, match=r"'blop'.*there are: .*blip.*did you mean 'blip'"):
        load_captioner("blop")
    with pytest.raises(ValueError, match="there are: "):
        load_captioner("something else")


def test_importing_the_room_is_cheap_and_knows_nobody() -> None:
    code = (
        "import sys, captioning, captioning.rewrite\n"
        "heavy = {'torch', 'transformers', 'numpy', 'p2p_real', 'edit', 'inversion'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="the embedded captioner is not shipped here")
def test_the_embedded_captioner_speaks_of_the_photo() -> None:
    blip = load_captioner(checkpoint=EMBEDDED, device="cpu")
    photos = sorted((EMBEDDED.parent / "photos").glob("*.png"))
    assert photos
    images = [Image.open(path) for path in photos]
    captions = blip.caption(images)
    right = 0
    for path, text in zip(photos, captions, strict=True):
        assert text == text.strip()
        assert len(text.split()) >= 3
        right += path.stem.split("_")[0] in text.split()
    assert right >= len(photos) * 0.6, dict(zip([p.stem for p in photos], captions, strict=True))
    assert captions[0] == blip.caption(images[:1])[0]


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    line = "someone/something is not on this machine and the hub cannot be reached"
    with pytest.raises(CaptionerError, match=line):
        load_captioner("blip", "someone/something")
