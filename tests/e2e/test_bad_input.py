"""What users get wrong: one line that names it and says what to do, exit code 2, nothing written.

All of these are found without loading the model (``main`` runs in this process); see
``test_bad_processes.py`` for the same as processes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from inversion.result import _digest
from p2p_real.editor import Editor
from p2p_real.pictures import save_png

from .commands import RED_BALL, SOURCE, call, files_in

SAID = ("--source", SOURCE)
SWAP = ("--swap", "red=blue")


def header_of(width: int, height: int) -> bytes:
    """A PNG that says it is huge and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + data + chunk(b"IEND", b"")


def _cut(path: Path) -> None:
    path.write_bytes(RED_BALL.read_bytes()[:3000])


def _corrupt(path: Path) -> None:
    data = bytearray(RED_BALL.read_bytes())
    for i in range(2000, len(data) - 20, 7):
        data[i] ^= 0x5A
    path.write_bytes(bytes(data))


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "there is no file bad.png; check the name"),
    "folder": (lambda p: p.mkdir(), "bad.png is a folder; name the picture inside it"),
    "empty": (lambda p: p.touch(), "bad.png is empty (0 bytes)"),
    "cut": (_cut, "bad.png is cut short"),
    "corrupt": (_corrupt, "bad.png is damaged"),
    "bomb": (lambda p: p.write_bytes(header_of(60000, 60000)), "bad.png has"),
    "text": (lambda p: p.write_text("a cat, a dog"), "bad.png is text, not a picture"),
    "tiny": (lambda p: Image.new("RGB", (7, 30)).save(p), "bad.png is only 7 x 30"),
    "page": (lambda p: p.write_text("<!doctype html><p>404"), "bad.png is a web page"),
    "pdf": (lambda p: p.write_bytes(b"%PDF-1.7\n" + bytes(50)), "bad.png is a PDF"),
}


@pytest.mark.parametrize("kind", FILES)
def test_photos_that_cannot_be_used(kind: str, cwd: Path) -> None:
    make, said = FILES[kind]
    make(Path("bad.png"))
    before = files_in(cwd)
    assert said in call("edit", "bad.png", *SWAP).line()
    assert said in call("invert", "bad.png").line()
    assert said in call("caption", RED_BALL, "bad.png").line()
    if kind != "folder":
        assert said in call("edit", RED_BALL, *SAID, *SWAP, "--mask", "bad.png").line()
    assert files_in(cwd) == before
    assert not Path("out").exists()


WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing asked": ((), "no edit asked for: give --target, --swap"),
    "excited, carried": (
        (*SAID, "--excite", "ball", "--edit", "p2p"),
        "--excite alone changes none",
    ),
    "excited elsewhere": ((*SAID, "--excite", "mug"), "no word 'mug' in the prompt"),
    "empty source": (("--source", " ", *SWAP), "--source is empty: say what the photo shows"),
    "empty target": ((*SAID, "--target", ""), "the target prompt is empty"),
    "word not there": ((*SAID, "--swap", "bal=cube"), "no word 'bal' in the prompt"),
    "word offered": ((*SAID, "--swap", "bal=cube"), "did you mean 'ball'?"),
    "too many": ((*SAID, "--swap", "ball#2=cube"), "stands only 1 time"),
    "identical": ((*SAID, "--target", f" {SOURCE.upper()}"), "equals the source prompt"),
    "same word": ((*SAID, "--swap", "red=red"), "changes nothing"),
    "weight of 1": ((*SAID, "--weight", "red=1"), "equals the source prompt"),
    "no arrow": ((*SAID, "--swap", "red"), "a swap is written OLD=NEW"),
    "swapped twice": ((*SAID, *SWAP, "--swap", "red=green"), "--swap gives 'red' twice"),
    "target and swap": ((*SAID, *SWAP, "--target", "x"), "cannot be combined with --swap"),
    "removed elsewhere": ((*SAID, "--remove", "cat"), "no word 'cat' in the prompt"),
    "weighted elsewhere": ((*SAID, "--weight", "cat=2"), "no word 'cat' in the prompt"),
    "weight of old word": ((*SAID, *SWAP, "--weight", "red=2"), "no word 'red' in the prompt"),
    "weight of nothing": ((*SAID, "--weight", "red=much"), "a weight is written WORD=NUMBER"),
    "local elsewhere": ((*SAID, *SWAP, "--local", "cat"), "no word 'cat' in the prompt"),
    "subtract elsewhere": (
        (*SAID, *SWAP, "--local", "ball", "--subtract", "cat"),
        "no word 'cat' in the prompt",
    ),
    "window elsewhere": ((*SAID, *SWAP, "--cross-replace", "cat=0.4"), "no word 'cat'"),
    "nothing added": ((*SAID, "--add", " "), "there is nothing to add"),
    "no style": ((*SAID, "--style", "?"), "there is no style"),
    "all removed": ((*SAID, "--remove", SOURCE), "nothing is left of the prompt"),
}


@pytest.mark.parametrize("kind", WORDS)
def test_words_that_make_no_edit(kind: str, cwd: Path) -> None:
    argv, said = WORDS[kind]
    assert said in call("edit", RED_BALL, *argv).line()
    assert files_in(cwd) == set()


OPTIONS: dict[str, tuple[tuple[object, ...], str]] = {
    "no steps": (("--steps", 0), "--steps 0: give a whole number from 1 to 1000"),
    "too many steps": (("--steps", 1001), "--steps 1001"),
    "half a step": (("--steps", 1.5), "argument --steps: invalid int value: '1.5'"),
    "guidance nan": (("--guidance", "nan"), "--guidance nan: give a number from 0 to 100"),
    "guidance below 0": (("--guidance=-1",), "--guidance -1.0"),
    "guidance inf": (("--guidance", "inf"), "--guidance inf"),
    "guidance 0": (("--guidance", 0), "--guidance 0 does not read the prompts"),
    "seed": (("--seed", -1), "--seed -1: give a whole number"),
    "model": (("--model", "sd1.6"), "did you mean 'sd1.5'?"),
    "model folder": (("--model", "./none"), "no file or folder './none'"),
    "model file": (("--model", str(RED_BALL)), "give a .safetensors file or a diffusers folder"),
    "empty model": (("--model", ""), "no model was named"),
    "device": (("--device", "banana"), "unknown device 'banana': use auto"),
    "absent device": (("--device", "xpu"), "device 'xpu' is not available here: use "),
    "dtype": (("--dtype", "int8"), "invalid choice: 'int8'"),
    "captioner": (("--captioner", "blob"), "there is no captioner 'blob'; there are: blip"),
    "idle captioner": ((*SAID, "--captioner", "blip"), "--captioner is not needed"),
    "method": (("--method", "nulltext"), "did you mean 'null-text'?"),
    "setting": (("--method-option", "innersteps=3"), "has no setting 'innersteps'"),
    "setting of no kind": (
        ("--method", "null-text", "--method-option", "inner_steps=many"),
        "inner_steps='many' is not of type int",
    ),
    "setting out of range": (
        ("--method", "null-text", "--method-option", "inner_steps=-1"),
        "inner_steps=-1 is out of range",
    ),
    "setting nan": (
        ("--method", "null-text", "--method-option", "lr=nan"),
        "lr=nan is not a finite number",
    ),
    "setting twice": (
        ("--method-option", "share=1", "--method-option", "share=0"),
        "--method-option gives 'share' twice",
    ),
    "no pair": (("--method-option", "share"), "--method-option 'share': give NAME=VALUE"),
    "negative with null-text": (
        ("--method", "null-text", "--negative-prompt", "dull"),
        "--negative-prompt would have no effect: use --method direct or ddim",
    ),
    "negative unguided": (
        ("--negative-prompt", "dull", "--guidance", 1),
        "--negative-prompt has no effect at --guidance 1",
    ),
    "edit method": (("--edit", "p2pp"), "did you mean 'p2p'?"),
    "edit method twice": (("--edit", "p2p", "--edit", "p2p"), "--edit p2p is given twice"),
    "plain beside p2p": (("--edit", "p2p", "--edit", "plain"), "give it alone"),
    "edit setting": (("--edit-option", "selfscale=1"), "has no such setting; there are: "),
    "window of plain": (("--edit", "plain", "--self-replace", 0.4), "belongs to p2p"),
    "said two ways": (
        ("--self-replace", 0.4, "--edit-option", "self_replace=0.5"),
        "say the same: give one",
    ),
    "cross window": (("--cross-replace", "1.5"), "cross_replace=1.5 is out of range"),
    "cross window nan": (("--cross-replace", "nan"), "cross_replace=nan"),
    "cross window text": (("--cross-replace", "ball=long"), "give a fraction such as 0.8"),
    "word window": (("--cross-replace", "ball=2"), "window of 'ball'"),
    "self window": (("--self-replace", "-0.1"), "self_replace=-0.1 is out of range"),
    "strength": (("--strength", "1.1"), "--strength 1.1: give a number from 0 to 1"),
    "strength nan": (("--strength", "nan"), "--strength nan"),
    "threshold": (("--local", "ball", "--local-threshold", 2), "--local-threshold 2.0"),
    "local and none": (("--local", "ball", "--no-local"), "--local and --no-local: give one"),
    "none beside plain": (("--edit", "plain", "--no-local"), "only p2p without a mask"),
    "none beside a mask": (("--mask-box", "0,0,1,1", "--no-local"), "only p2p without a mask"),
    "threshold alone": (("--local-threshold", 0.5), "--local-threshold belongs to a local blend"),
    "start alone": (("--local-start", 0.5), "--local-start belongs to a local blend"),
    "subtract alone": (("--subtract", "ball"), "--subtract belongs to a local blend"),
    "paste alone": (("--paste-back",), "--paste-back needs a mask"),
    "offload": (("--offload", "model"), "offload needs an accelerator"),
    "unknown option": (("--swop", "red=blue"), "unrecognized arguments: --swop"),
    "two photos": ((str(RED_BALL),), "unrecognized arguments"),
    "fit": (("--fit", "stretch"), "invalid choice: 'stretch'"),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_out_of_range_and_without_effect(kind: str, cwd: Path) -> None:
    argv, said = OPTIONS[kind]
    assert said in call("edit", RED_BALL, *SWAP, *argv).line()
    assert files_in(cwd) == set()


OTHERS: dict[str, tuple[tuple[object, ...], str]] = {
    "no verb": ((), "the following arguments are required: VERB"),
    "unknown verb": (("edti", RED_BALL), "invalid choice: 'edti'"),
    "no photo": (("edit", *SWAP), "no photo given: p2p-real edit PHOTO --swap OLD=NEW"),
    "demo steps": (("demo", "--steps", 0), "--steps 0"),
    "caption device": (("caption", RED_BALL, "--device", "banana"), "unknown device 'banana'"),
    "caption model": (("caption", RED_BALL, "--model", "tabeltop"), "did you mean 'tabletop'"),
    "caption beams": (("caption", RED_BALL, "--num-beams", 0), "--num-beams 0"),
    "caption sample": (
        ("caption", RED_BALL, "--sample", "--num-beams", 2),
        "--num-beams has no effect beside --sample",
    ),
    "caption lora": (("caption", RED_BALL, "--lora", "x"), "--lora is of the editing model"),
    "caption dtype": (("caption", RED_BALL, "--dtype", "float16"), "--dtype is of the editing"),
    "invert empty prompt": (("invert", RED_BALL, "--prompt", " "), "--prompt is empty"),
    "invert method": (("invert", RED_BALL, "--method", "x"), "no inversion method 'x'"),
    "invert ending": (
        ("invert", RED_BALL, "--out", "x.pt"),
        "--out x.pt: give a file name that ends in .inv.safetensors",
    ),
    "generate nothing": (("generate", " "), "the prompt is empty: say what to draw"),
    "generate count": (("generate", SOURCE, "--count", 0), "--count 0"),
    "generate size": (("generate", SOURCE, "--size", "64"), "--size '64': give width x height"),
    "generate no size": (("generate", SOURCE, "--size", "0x8"), "--size '0x8'"),
    "generate far too large": (("generate", SOURCE, "--size", "99999x99999"), "16 megapixels"),
    "generate control alone": (
        ("generate", SOURCE, "--local", "ball"),
        "--local says how an edit acts, and none is asked for",
    ),
    "generate strength alone": (("generate", SOURCE, "--strength", 1), "--strength says how"),
    "generate word": (("generate", SOURCE, "--swap", "cat=dog"), "no word 'cat' in the prompt"),
    "tokens of nothing": (("tokens", ""), "the prompt is empty: give some words"),
    "methods": (("methods", "nulltext"), "no method 'nulltext'; there are: "),
    "doctor without plan": (("doctor", "--method", "ddim"), "--method is of a plan: give --plan"),
    "doctor method": (("doctor", "--plan", "--method", "x"), "no inversion method 'x'"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_verbs(kind: str, cwd: Path) -> None:
    argv, said = OTHERS[kind]
    assert said in call(*argv).line()
    assert files_in(cwd) == set()


def test_masks(cwd: Path) -> None:
    Image.new("L", (50, 40), 255).save("other.png")
    Image.new("L", Image.open(RED_BALL).size, 90).save("dark.png")
    edit = ("edit", RED_BALL, *SAID, *SWAP, "--mask")
    assert "--mask is 50 x 40, the photo " in call(*edit, "other.png").line()
    assert "nothing white" in call(*edit, "dark.png").line()
    assert "there is no file" in call(*edit, "none.png").line()
    assert "a folder" in call(*edit, ".").line()
    assert files_in(cwd) == {"other.png", "dark.png"}


def test_inputs_are_never_overwritten(cwd: Path) -> None:
    photo = Path("edited.png")
    photo.write_bytes(RED_BALL.read_bytes())
    line = call("edit", photo, *SAID, *SWAP, "--out", ".").line()
    assert "edited.png would be overwritten by the result: give another --out" in line
    Image.new("L", Image.open(RED_BALL).size, 255).save("mask.png")
    line = call("edit", RED_BALL, *SAID, *SWAP, "--mask", "mask.png", "--out", ".").line()
    assert "mask.png would be overwritten" in line
    assert photo.read_bytes() == RED_BALL.read_bytes()


def test_output_places_that_cannot_be(cwd: Path) -> None:
    Path("file").write_text("mine")
    edit = ("edit", RED_BALL, *SAID, *SWAP, "--out")
    assert "is a file" in call(*edit, "file").line()
    assert "is a file" in call(*edit, "file/below").line()
    assert "cannot write /proc/" in call(*edit, "/proc/none").line()
    assert "cannot write /proc" in call("invert", RED_BALL, "--out", "/proc/x.safetensors").line()
    Path("d.inv.safetensors").mkdir()
    line = call("invert", RED_BALL, "--out", "d.inv.safetensors").line()
    assert "--out d.inv.safetensors: give a file name" in line
    assert Path("file").read_text() == "mine"


# Saved inversions -------------------------------------------------------------------------------


def _header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the JSON header of an inversion, signed anew; the tensors stay."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + size])
    inner = json.loads(outer["__metadata__"]["header"])
    change(inner)
    header = json.dumps(inner)
    digest = _digest(load_file(path), header)
    outer["__metadata__"] |= {"header": header, "sha256": digest}
    head = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + size :])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))


def _reword(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"a red ball", b"a big ball"))


def _foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def _unsigned(path: Path) -> None:
    save_file(load_file(path), path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "x.inv.safetensors: no such inversion file"),
    "empty": (lambda p: p.write_bytes(b""), "damaged or not a safetensors file"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-500]), "damaged or not a safetensors file"),
    "cut early": (lambda p: p.write_bytes(p.read_bytes()[:40]), "damaged or not a safetensors"),
    "text": (lambda p: p.write_text("hello " * 50), "damaged or not a safetensors file"),
    "picture": (lambda p: p.write_bytes(RED_BALL.read_bytes()), "damaged or not a safetensors"),
    "foreign": (_foreign, "not an inversion of this program"),
    "no header": (_unsigned, "not an inversion of this program"),
    "one bit": (_flip, "was changed since it was saved"),
    "prompt": (_reword, "was changed since it was saved"),
    "no photo": (lambda p: _header(p, lambda h: h.update(photo={})), "field 'photo'"),
    "no prompt": (lambda p: _header(p, lambda h: h.pop("prompt")), "field 'prompt' is missing"),
    "guidance": (lambda p: _header(p, lambda h: h.update(guidance_scale="7")), "'guidance_scale'"),
    "method": (lambda p: _header(p, lambda h: h.update(method="magic")), "field 'method'"),
    "setting": (lambda p: _header(p, lambda h: h.update(settings={"a": 1})), "field 'method'"),
    "schedule": (
        lambda p: _header(p, lambda h: h["schedule"].update(timesteps=[1])),
        "field 'schedule'",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_inversions_that_cannot_be_used(kind: str, cwd: Path, saved: Path) -> None:
    change, said = BROKEN[kind]
    path = Path("x.inv.safetensors")
    path.write_bytes(saved.read_bytes())
    change(path)
    line = call("edit", path, *SWAP).line()
    assert said in line
    assert "x.inv.safetensors" in line
    assert not Path("out").exists()


def test_options_of_an_inversion_that_is_made(cwd: Path, saved: Path) -> None:
    for option, value in (
        ("--steps", 50),
        ("--method", "ddim"),
        ("--method-option", "share=1"),
        ("--negative-prompt", "dull"),
        ("--fit", "crop"),
        ("--seed", 3),
        ("--captioner", "blip"),
    ):
        line = call("edit", saved, *SWAP, option, value).line()
        assert f"{option} belongs to the inversion" in line
        assert "leave it out, or invert again" in line
    assert "was made for the prompt" in call("edit", saved, *SWAP, "--source", "a cat").line()
    assert "no word 'cat'" in call("edit", saved, "--swap", "cat=dog").line()
    assert not Path("out").exists()


# Found when the model is there ------------------------------------------------------------------


def test_what_only_the_model_knows_is_one_line_too(cwd: Path, saved: Path) -> None:
    long = "ball " * 80
    line = call("edit", RED_BALL, *SWAP, "--source", f"red {long}").line()
    assert "tokens, the model reads 75: shorten it" in line
    assert "the model reads 75" in call("invert", RED_BALL, "--prompt", long).line()
    assert "the model reads 75" in call("generate", long).line()
    assert "the model reads 75" in call("tokens", "a ball", long).line()
    assert "multiples of 8" in call("generate", SOURCE, "--size", "60x64").line()
    none = ("--cross-replace", 0, "--self-replace", 0)
    assert "leave nothing of p2p" in call("edit", RED_BALL, *SAID, *SWAP, *none).line()
    path = Path("other.inv.safetensors")
    path.write_bytes(saved.read_bytes())
    _header(path, lambda h: h.update(model="sd1.5", model_hash="0" * 64))
    line = call("edit", path, *SWAP).line()
    assert "made with model 'sd1.5'" in line
    assert "use --model sd1.5 or invert again" in line
    assert files_in(cwd) == {"other.inv.safetensors"}


def test_internal_failures_leave_a_log(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the dog ate it")

    monkeypatch.setattr(Editor, "load", fail)
    monkeypatch.setenv("TMPDIR", str(cwd))
    monkeypatch.setattr("tempfile.tempdir", None)
    run = call("edit", RED_BALL, *SAID, *SWAP)
    assert run.code == 1
    assert run.err.count("\n") == 1
    assert "internal failure (RuntimeError: the dog ate it); traceback in " in run.err
    log = Path(run.err.rsplit(" ", 1)[1].strip())
    assert "Traceback" in log.read_text()
    assert "--swap red=blue" in log.read_text()


# --again ----------------------------------------------------------------------------------------


def _with(settings: dict[str, Any]) -> str:
    save_png(Image.new("RGB", (8, 8)), "made.png", settings)
    return "made.png"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "it was made by 'p2p-real None'"),
        ({"command": "edit"}, "it was made by 'p2p-real None'"),
        ({"command": {"verb": "generate", "options": {}}}, "only pictures of 'p2p-real edit'"),
        ({"command": {"verb": "edit"}}, "damaged (no options)"),
        ({"command": {"verb": "edit", "options": {"photo": "gone.jpg"}}}, "gone.jpg, is not there"),
        ({"command": {"verb": "edit", "options": {"steps": "3; x"}}}, "damaged (steps is '3; x')"),
        ({"command": {"verb": "edit", "options": {"swap": "a=b"}}}, "damaged (swap is 'a=b')"),
        ({"command": {"verb": "edit", "options": {"fit": "x"}}}, "damaged (fit is 'x')"),
        ({"command": {"verb": "edit", "options": {"explicit": 1}}}, "damaged (explicit is 1)"),
        ({"command": {"verb": "edit", "options": {"run": "ls"}}}, "option 'run' that is not known"),
    ],
)
def test_pictures_that_cannot_be_repeated(settings: dict[str, Any], said: str, cwd: Path) -> None:
    assert said in call("edit", "--again", _with(settings)).line()


def test_again_of_no_picture_of_ours(cwd: Path) -> None:
    assert "carries no p2p-real settings" in call("edit", "--again", RED_BALL).line()
    assert "there is no file none.png" in call("edit", "--again", "none.png").line()
    assert "is a folder" in call("edit", "--again", ".").line()
