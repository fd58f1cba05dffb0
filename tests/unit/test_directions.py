"""Edit directions: sentences, arithmetic, files, names, and sentences by a language model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inversion import TextCond
from p2p_real.backbones import load_backbone
from p2p_real.directions import Direction, DirectionError
from p2p_real.directions.applying import settled, summary, target_text
from p2p_real.directions.expression import find, kept_folder, name_of, resolve, terms
from p2p_real.directions.sentences import about, clean, fill, forms, from_file, hash_of, is_plural
from p2p_real.directions.writing import Writer, sentence
from p2p_real.prompts import EditWords, PromptError, Prompts
from tests.small import small_sd, small_sdxl, small_tokenizer

CATS = ("a photo of a cat", "a cat sitting on a mat", "two red fluffy cat in the snow")
DOGS = ("a dog", "a big dog in the grass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("directions")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Any:
    return load_backbone(str(small_sd(folder / "sd")), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def xl(folder: Path) -> Any:
    return load_backbone(str(small_sdxl(folder / "xl")), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cat2dog(backbone: Any) -> Direction:
    return Direction.between(backbone, CATS, DOGS, words=("cat", "dog"), note="by hand")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder and a cache that are nobody's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


# Sentences ------------------------------------------------------------------------------------


def test_there_are_many_forms_and_each_takes_the_word() -> None:
    assert len(forms()) == len(set(forms())) >= 200
    for form in forms():
        assert len(re.findall(r"\{a\}|\{the\}", form)) == 1, form
        assert len(form.split()) <= 14, form
    filled = about("owl")
    assert all("owl" in s and "{" not in s and "a owl" not in s for s in filled)
    assert "a photo of an owl" in filled


@pytest.mark.parametrize(
    ("phrase", "a", "the"),
    [
        ("owl", "an owl", "the owl"),
        ("red ball", "a red ball", "the red ball"),
        ("hour", "an hour", "the hour"),
        ("cats", "cats", "the cats"),
        ("bus", "a bus", "the bus"),
        ("glass", "a glass", "the glass"),
        ("the queen", "the queen", "the queen"),
        ("two  dogs", "two dogs", "the dogs"),
    ],
)
def test_articles(phrase: str, a: str, the: str) -> None:
    assert fill("see {a}", phrase) == f"see {a}"
    assert fill("{the} there", phrase) == f"{the} there"


def test_words_of_other_kinds() -> None:
    assert [is_plural(w) for w in ("dogs", "gas", "iris", "walrus", "", "his")] == [True] + [
        False
    ] * 5
    assert "a photo of a red" not in about("red")
    assert about("blue") == [s.replace("purple", "blue") for s in about("purple")]
    for word in ("", "  ", "!?"):
        with pytest.raises(DirectionError, match="goes from a word to a word"):
            about(word)


def test_sentences_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cats.txt"
    path.write_text("\ufeff1. a cat\n\n- two cats\n  *   three \n 9 lives of a cat\n--\n", "utf-8")
    assert from_file(path) == ["a cat", "two cats", "three", "9 lives of a cat"]
    assert clean("12) one  two") == "one two"
    path.write_text("\n--\n", "utf-8")
    with pytest.raises(DirectionError, match=r"cats\.txt: holds no sentence"):
        from_file(path)
    path.write_bytes(b"\xff\xfe\x00cat")
    with pytest.raises(DirectionError, match="it is no UTF-8 text"):
        from_file(path)
    with pytest.raises(DirectionError, match=r"gone\.txt: cannot be read \(No such file"):
        from_file(tmp_path / "gone.txt")


# Arithmetic -----------------------------------------------------------------------------------


def test_a_direction_is_the_difference_of_means(backbone: Any, cat2dog: Direction) -> None:
    cats, dogs = (backbone.encode_text([s]).embeds for s in CATS), backbone.encode_text(DOGS).embeds
    wanted = dogs.mean(0) - torch.cat(list(cats)).mean(0)
    assert torch.allclose(cat2dog.embeds, wanted, atol=1e-6)
    assert cat2dog.embeds[0].abs().max() < 1e-6  # nothing stands before the start token
    assert cat2dog.pooled is None
    assert cat2dog.sentences["source"] == {"count": 3, "left_out": 0, "sha256": hash_of(CATS)}


def test_both_encoders_and_the_pooled_text(xl: Any) -> None:
    found = Direction.between(xl, CATS, DOGS)
    size = (xl.native_size, xl.native_size)
    one, other = (xl.encode_text(s, size) for s in (CATS, DOGS))
    assert torch.allclose(found.embeds, other.embeds.mean(0) - one.embeds.mean(0), atol=1e-6)
    assert found.pooled is not None
    assert torch.allclose(found.pooled, other.pooled.mean(0) - one.pooled.mean(0), atol=1e-6)
    moved = found.move(one)
    assert torch.equal(moved.embeds, one.embeds + found.embeds)
    assert torch.equal(moved.pooled, one.pooled + found.pooled)
    assert moved.time_ids is one.time_ids


def test_long_sentences_are_left_out_and_counted(backbone: Any, cat2dog: Direction) -> None:
    found = Direction.between(backbone, [*CATS, "cat " * 90], DOGS)
    assert torch.equal(found.embeds, cat2dog.embeds)
    assert found.sentences["source"]["left_out"] == 1
    with pytest.raises(DirectionError, match="write shorter ones"):
        Direction.between(backbone, ["cat " * 90], DOGS)


def test_add_and_scale(backbone: Any, cat2dog: Direction) -> None:
    back = Direction.between(backbone, DOGS, CATS, words=("dog", "cat"))
    nothing = cat2dog.add(back)
    assert nothing.embeds.abs().max() < 1e-6
    assert [p["source"] for p in nothing.parts()] == ["cat", "dog"]
    twice = cat2dog.scale(0.5).add(cat2dog.scale(1.5))
    assert torch.allclose(twice.embeds, 2 * cat2dog.embeds)
    assert [p["factor"] for p in twice.scale(2).parts()] == [1.0, 3.0]
    assert twice.name == "cat -> dog * 0.5 + cat -> dog * 1.5"
    with pytest.raises(DirectionError, match="finite"):
        cat2dog.scale(float("inf"))


# Files ----------------------------------------------------------------------------------------


def test_saved_and_loaded(cat2dog: Direction, xl: Any, tmp_path: Path) -> None:
    for direction in (cat2dog, cat2dog.scale(2), Direction.between(xl, CATS, DOGS)):
        found = Direction.load(direction.save(tmp_path / "d.safetensors"))
        assert torch.equal(found.embeds, direction.embeds)
        assert (found.pooled is None) == (direction.pooled is None)
        assert found.sha256 == direction.sha256
        assert found.parts() == direction.parts()
    cat2dog.save(tmp_path / "d.safetensors")
    with safe_open(tmp_path / "d.safetensors", framework="pt") as f:
        header = json.loads(f.metadata()["header"])
    assert header["source"] == "cat"
    assert header["target"] == "dog"
    assert header["model_hash"] == cat2dog.model_hash
    assert header["extra"]["note"] == "by hand"
    assert header["extra"]["versions"]["torch"] == torch.__version__
    assert [p.name for p in tmp_path.iterdir()] == ["d.safetensors"]


def test_bad_files_are_named(cat2dog: Direction, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"

    def refused(why: str) -> None:
        with pytest.raises(DirectionError, match=why) as error:
            Direction.load(path)
        assert str(path) in str(error.value)

    refused("no such direction file")
    path.write_bytes(b"nothing of the kind")
    refused("damaged or not a safetensors file")
    save_file({"embeds": cat2dog.embeds}, path)
    refused("not a direction of this program")
    cat2dog.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    refused("damaged or not a safetensors file")

    def resave(header: Any = None, **tensors: Any) -> None:
        path.write_bytes(whole)
        with safe_open(path, framework="pt") as f:
            meta = dict(f.metadata())
        if header is not None:
            meta["header"] = json.dumps(header(json.loads(meta["header"])))
        save_file({**load_file(path), **tensors}, path, metadata=meta)

    resave(embeds=cat2dog.embeds + 1)
    refused("was changed since it was saved")
    resave(embeds=cat2dog.embeds[None].contiguous())
    refused("field 'embeds' is not a float32 tensor of 2")
    resave(embeds=cat2dog.embeds * float("nan"))
    refused("field 'embeds' holds values that are not finite")
    resave(pooled=torch.zeros(2, 2))
    refused("field 'pooled' is not a float32 tensor of 1")
    resave(lambda h: {k: v for k, v in h.items() if k != "model_hash"})
    refused("field 'model_hash' is missing")
    resave(lambda h: {**h, "sentences": "many"})
    refused(r"field 'sentences' has the wrong type \(str\)")
    resave(lambda h: {**h, "made_by": "sum"})
    refused("does not list the parts")
    resave(lambda h: [h])
    refused("field 'header' is not an object")


def test_another_models_direction(cat2dog: Direction, xl: Any, backbone: Any) -> None:
    cat2dog.check_model(backbone)
    with pytest.raises(DirectionError, match=r"was made with model 'sd' .* not with 'xl'"):
        settled(EditWords(direction=cat2dog), xl)
    with pytest.raises(DirectionError, match="of different models cannot be added"):
        cat2dog.add(Direction.between(xl, CATS, DOGS))


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat2dog", [(1.0, "cat2dog")]),
        ("cat2dog*1.0 + day2night*0.5", [(1.0, "cat2dog"), (0.5, "day2night")]),
        ("0.5*a  -  2 * b", [(0.5, "a"), (-2.0, "b")]),
        ("red-ball2blue-ball*-1", [(-1.0, "red-ball2blue-ball")]),
        ("dir/x-y.safetensors * .5", [(0.5, "dir/x-y.safetensors")]),
    ],
)
def test_expressions(text: str, wanted: Any) -> None:
    assert terms(text) == wanted


@pytest.mark.parametrize("text", ["", "a +", "a + + b", "a*x", "*2", "a*nan", "2*"])
def test_expressions_that_are_none(text: str) -> None:
    with pytest.raises(DirectionError, match=r"is not NAME or NAME\*NUMBER"):
        terms(text)


def test_names_and_sums(home: Path, backbone: Any, cat2dog: Direction) -> None:
    kept_folder().mkdir(parents=True)
    day = Direction.between(backbone, ["red"], ["blue"], words=("red", "blue"))
    cat2dog.save(home / "cat2dog.safetensors")
    day.save(kept_folder() / "red2blue.safetensors")
    assert find("cat2dog") == Path("cat2dog.safetensors")
    assert resolve("cat2dog").sha256 == cat2dog.sha256
    found = resolve("cat2dog*2 - red2blue*0.5")
    assert torch.allclose(found.embeds, 2 * cat2dog.embeds - 0.5 * day.embeds)
    assert found.name == "cat -> dog * 2 + red -> blue * -0.5"
    with pytest.raises(DirectionError, match=r"no direction 'x2y': .*kept are red2blue"):
        resolve("cat2dog + x2y")
    assert name_of("Red  ball", "blue ball!") == "red-ball2blue-ball"


def test_a_direction_is_an_edit(home: Path, backbone: Any, cat2dog: Direction) -> None:
    source = "a cat on a mat"
    cat2dog.save("d.safetensors")
    words = EditWords(direction="d.safetensors")
    assert words.any()
    prompts = settled(words, backbone).apply(source)
    assert prompts == Prompts(source, source, (), {}, prompts.direction)
    text = target_text(backbone, prompts, (128, 128))
    plain = backbone.encode_text([source]).embeds[0]
    assert torch.allclose(text.embeds[0], plain, atol=1e-6)
    assert torch.allclose(text.embeds[1], plain + cat2dog.embeds, atol=1e-5)
    swapped = settled(EditWords(swap={"mat": "table"}, direction=cat2dog), backbone).apply(source)
    assert swapped.target == "a cat on a table"
    told = summary(swapped.direction)
    assert told is not None
    assert told["name"] == "cat -> dog"
    assert summary(None) is None
    both = target_text(backbone, Prompts(source, "a dog"), (128, 128))
    assert torch.equal(both.embeds, backbone.encode_text([source, "a dog"]).embeds)
    with pytest.raises(DirectionError, match="no direction 'gone'"):
        EditWords(direction="gone").check()
    with pytest.raises(PromptError, match="--direction"):
        EditWords().check()
    assert isinstance(text, TextCond)


# A language model -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["decoder", "both"])
def language_model(request: Any, folder: Path) -> Path:
    """A random language model saved as transformers saves one."""
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    tokenizer = small_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
    }
    torch.manual_seed(0)
    model: Any
    if request.param == "decoder":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, **ends))
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, **ends,
                decoder_start_token_id=ends["pad_token_id"],
            )
        )  # fmt: skip
    where = folder / f"language-{request.param}"
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


def test_a_language_model_writes(language_model: Path, backbone: Any) -> None:
    writer = Writer.load(language_model)
    state = torch.random.get_rng_state()
    found = writer.write("cat", 18, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(found) == 18
    assert all("cat" in s for s in found)
    assert len(set(found)) > 9
    assert found == writer.write("cat", 18, seed=1)
    assert found != writer.write("cat", 18, seed=2)
    assert re.fullmatch(r"[0-9a-f]{64}", writer.weights_hash)
    Direction.between(backbone, found, writer.write("dog", 18, seed=1), made_by="model")


def test_what_is_no_language_model(folder: Path, backbone: Any, tmp_path: Path) -> None:
    with pytest.raises(DirectionError, match="give the folder of a language model"):
        Writer.load(folder / "sd")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(DirectionError, match="cannot be used as a language model"):
        Writer.load(tmp_path)


def test_what_a_model_wrote_becomes_a_sentence() -> None:
    assert sentence('\n 1. "A cat on a mat."\nmore', "cat") == "A cat on a mat."
    assert sentence("concatenated", "cat") == "concatenated cat"
    assert sentence("", "cat") == "cat"
