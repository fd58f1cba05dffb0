"""What tabletop ships: the checkpoint, the captioner, the reader, the photos."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import p2p_real.tabletop as tabletop
from p2p_real.tabletop.evaluate import (
    CHUNK,
    CHUNKS,
    captioner_figures,
    generate,
    held_out,
    load_pipeline,
    pair_figures,
    reading_figures,
    say,
    unseen_pairs,
    vae_figures,
)
from p2p_real.tabletop.reader import HEADS, load_reader
from p2p_real.tabletop.render import render
from p2p_real.tabletop.scene import caption
from p2p_real.tabletop.train.renderer import chunk_records
from p2p_real.tabletop.vocabulary import make_bert_tokenizer, make_clip_tokenizer, world_words


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(tabletop.CHECKPOINT)


def test_names_alone_import_no_torch() -> None:
    code = "import sys, p2p_real.tabletop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_shipped_is_small_and_readable() -> None:
    folders = (tabletop.CHECKPOINT, tabletop.CAPTIONER, tabletop.PHOTOS)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in [*files, tabletop.READER]) < 40e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    assert len(list(tabletop.PHOTOS.glob("*.png"))) >= 5


def test_a_world_word_is_one_token(pipe) -> None:
    for tokenizer in (pipe.tokenizer, make_clip_tokenizer(500)):
        for word in world_words():
            assert len(tokenizer.tokenize(word)) == 1, word
        ids = tokenizer("A gauche dog's bowl, 2 é!").input_ids
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert "dog" in text
        assert "é" in text
        assert tokenizer.model_max_length == 77


def test_the_captioners_words_are_whole_and_its_marks_are_not_said() -> None:
    tokenizer = make_bert_tokenizer()
    for word in world_words():
        assert tokenizer.tokenize(word) == [word]
    ids = tokenizer("[DEC] a red ball").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a red ball"


def test_the_checkpoint_draws_what_a_caption_says(pipe) -> None:
    assert next(iter(pipe.unet.parameters())).dtype == torch.float32
    records = held_out(8, seed=21, two=0.0)
    drawn = generate(pipe, [caption(record) for record in records], guidance=4.0, steps=12)
    assert drawn.shape == (8, 128, 128, 3)
    figures = reading_figures(load_reader(), drawn, records)
    assert min(figures["color"], figures["ground"], figures["light"]) >= 0.75


def test_the_autoencoder_holds_held_out_pictures(pipe) -> None:
    figures, _ = vae_figures(pipe, render(held_out(8, seed=22, two=0.25)))
    assert figures["mean"] > 33


def test_the_text_encoder_is_stored_under_stable_diffusions_names() -> None:
    from safetensors import safe_open

    with safe_open(tabletop.CHECKPOINT / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118


def test_the_reader_reads_rendered_scenes() -> None:
    records = held_out(40, seed=23, two=0.0)
    reader, pictures = load_reader(), render(records)
    figures = reading_figures(reader, pictures, records)
    assert min(figures[name] for name in HEADS) > 0.9
    assert reader.read(pictures[:1])[0].keys() == HEADS.keys()


def test_the_captioner_captions_the_shipped_photos() -> None:
    paths = sorted(tabletop.PHOTOS.glob("*.png"))
    photos = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in paths])
    wanted = [caption(json.loads(path.with_suffix(".json").read_text())) for path in paths]
    assert say(tabletop.CAPTIONER, photos) == wanted


def test_pairs_of_objects_that_training_never_showed() -> None:
    pairs = unseen_pairs(12)
    training = {
        caption(r, ("ground", "light")) for k in range(CHUNKS) for r in chunk_records(k, CHUNK)
    }
    for record in pairs:
        left, right = caption(record, ("ground", "light")).split(" and ")
        assert training.isdisjoint({f"{left} and {right}", f"{right} and {left}"})
    figures = pair_figures(tabletop.CAPTIONER, render(pairs), pairs)
    assert 0.8 <= figures["all"] <= figures["both objects"]
    wrong = pair_figures(tabletop.CAPTIONER, render(pairs[1:] + pairs[:1]), pairs)
    assert wrong["both objects"] < 0.2


def test_the_captioner_captions_held_out_scenes() -> None:
    records = held_out(24, seed=24, two=0.25)
    assert captioner_figures(tabletop.CAPTIONER, render(records), records)["exact"] >= 0.85
