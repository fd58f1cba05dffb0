"""The adapter of LAVIS: its protocol against small real processes, its files, its environment.

LAVIS itself is not installed here: `make lavis-test` captions with it.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captioning import Captioner, CaptionerError, load_captioner
from captioning.lavis import LavisCaptioner, find_files
from captioning.lavis_environment import (
    MARK,
    LavisEnvironment,
    base_versions,
    environment_folder,
    find_environment,
    trouble_with,
)
from captioning.lavis_making import _sweep, bytes_of, make_environment
from captioning.lavis_worker import fill_model
from p2p_real.captions import captioner_for
from tests.e2e.commands import RED_BALL, call

ROOT = Path(__file__).parents[2]
IMAGES = [Image.new("RGB", (20, 10), "red"), Image.new("L", (9, 9)), Image.new("RGBA", (5, 7))]
# answers with what it was asked: the size and colour of the picture, and its own process id
HONEST = """
import base64, io, json, os, sys
from PIL import Image
settings = json.loads(sys.stdin.readline())
print("talk that nobody may take for an answer", file=sys.stderr)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    picture = Image.open(io.BytesIO(base64.b64decode(asked["png"])))
    text = f"{picture.size[0]} by {picture.size[1]} {picture.mode} {asked['num_beams']} beams"
    if asked["seed"] == 99:
        text = f"{os.getpid()} {'PYTHONPATH' in os.environ} {settings['size']}"
    if asked["seed"] == 7:
        print(json.dumps({"id": asked["id"], "error": "ValueError: no good"}), flush=True)
    else:
        print(json.dumps({"id": asked["id"], "caption": text}), flush=True)
"""
READY = "import sys, time\nsys.stdin.readline()\nprint('{\"ready\": true}', flush=True)\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with LAVIS's two files; what is in them no test here reads."""
    place = tmp_path / "weights"
    (place / "bert-base-uncased").mkdir(parents=True)
    (place / "bert-base-uncased" / "vocab.txt").write_text("a\n")
    (place / "blip_coco_caption_base.pth").write_bytes(b"weights")
    return place


@pytest.fixture
def start(files: Path, tmp_path: Path) -> Callable[..., LavisCaptioner]:
    """Starts the adapter over a worker of this source."""

    def begin(source: str, **how: float) -> LavisCaptioner:
        script = tmp_path / "worker.py"
        script.write_text(source)
        return LavisCaptioner(files, python=sys.executable, worker=script, **how)  # type: ignore[arg-type]

    return begin


def running(pid: int) -> bool:
    """Whether a process of this number is there; one that ended and was waited for is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_pictures_and_settings_arrive_and_one_worker_answers_all(
    start: Callable[..., LavisCaptioner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lavis = start(HONEST)
    assert isinstance(lavis, Captioner)
    assert lavis.name == "lavis (blip_coco_caption_base.pth)"
    together = lavis.caption(IMAGES, num_beams=2)
    assert together == [f"{w} by {h} RGB 2 beams" for w, h in ((20, 10), (9, 9), (5, 7))]
    assert together == [lavis.caption([image], num_beams=2)[0] for image in IMAGES]
    assert lavis.caption(IMAGES[:1], " a  photo of") == ["a photo of 20 by 10 RGB 3 beams"]
    assert lavis.caption([]) == []
    answers = lavis.caption(IMAGES, seed=99) + lavis.caption(IMAGES, seed=99)
    assert len(set(answers)) == 1
    pid, *rest = answers[0].split()
    assert rest == ["False", "base"]
    assert running(int(pid))
    lavis.close()
    assert not running(int(pid))
    assert lavis.caption(IMAGES[:1], seed=99)[0].split()[0] != pid  # another one


def test_a_worker_ends_with_its_captioner_and_with_the_program(
    start: Callable[..., LavisCaptioner], files: Path
) -> None:
    lavis = start(HONEST)
    pid = int(lavis.caption(IMAGES[:1], seed=99)[0].split()[0])
    del lavis
    gc.collect()
    assert not running(pid)
    code = (
        "import sys; from PIL import Image; from captioning.lavis import LavisCaptioner\n"
        "lavis = LavisCaptioner(sys.argv[1], python=sys.executable, worker=sys.argv[2])\n"
        "print(lavis.caption([Image.new('L', (8, 8))], seed=99)[0].split()[0])"
    )
    worker = files.parent / "worker.py"
    command = [sys.executable, "-c", code, str(files), str(worker)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not running(int(done.stdout))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import sys; sys.exit('no module named lavis')",
            r"died \(code 1\): no module named lavis",
        ),
        ("print('hello', flush=True); input(); input()", "no JSON: hello"),
        ("print('[1]', flush=True); input(); input()", r"no JSON: \[1\]"),
        ('print(\'{"error": "OSError: bad file"}\', flush=True)', "cannot load.*OSError: bad file"),
        ('print(\'{"error": "ModuleNotFoundError: x"}\', flush=True)', "make-lavis-env` again"),
        ("import time; time.sleep(60)", r"did not answer within 0\.5 s and was ended"),
    ],
)
def test_a_worker_that_does_not_start(
    start: Callable[..., LavisCaptioner], source: str, said: str
) -> None:
    with pytest.raises(CaptionerError, match=said) as error:
        start(source, start_timeout=0.5 if "sleep" in source else 60)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("for line in sys.stdin: sys.exit('one\\nout of  memory\\n')", "died.*: out of memory"),
        ("for line in sys.stdin: print('{half', flush=True)", "no JSON: {half"),
        ("for line in sys.stdin: print('{\"id\": 5}', flush=True)", "answered something else"),
        ("for line in sys.stdin: time.sleep(60)", r"did not answer within 0\.5 s"),
        ("time.sleep(60)", r"did not answer within 0\.5 s"),  # it does not even read
        ("sys.stdin.readline(); sys.exit(3)", r"died \(code 3\): without a word"),
    ],
)
def test_a_worker_that_fails_in_the_middle(
    start: Callable[..., LavisCaptioner], source: str, said: str
) -> None:
    lavis = start(READY + source, timeout=0.5 if "sleep" in source else 60)
    large = Image.effect_noise((400, 400), 90)  # more than a pipe holds
    with pytest.raises(CaptionerError, match=said) as error:
        lavis.caption([large])
    assert "\n" not in str(error.value)


def test_an_error_of_one_picture_names_it_and_the_worker_goes_on(
    start: Callable[..., LavisCaptioner],
) -> None:
    lavis = start(HONEST)
    pid = lavis.caption(IMAGES[:1], seed=99)
    with pytest.raises(CaptionerError, match="caption picture 1: ValueError: no good"):
        lavis.caption(IMAGES, seed=7)
    assert lavis.caption(IMAGES[:1], seed=99) == pid


def test_wrong_questions(start: Callable[..., LavisCaptioner]) -> None:
    lavis = start(HONEST)
    with pytest.raises(CaptionerError, match="list"):
        lavis.caption(IMAGES[0])  # type: ignore[arg-type]
    with pytest.raises(CaptionerError, match="at least 1"):
        lavis.caption(IMAGES, max_new_tokens=0)
    with pytest.raises(CaptionerError, match="above 0"):
        start(HONEST, timeout=0)


def test_its_files(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_files(files)
    assert (found.weights.name, found.size, found.config) == (
        "blip_coco_caption_base.pth",
        "base",
        None,
    )
    (files / "blip_coco_caption_base.safetensors").write_bytes(b"weights")
    assert find_files(files).weights.suffix == ".safetensors"
    (files / "model.pth").write_bytes(b"weights")
    with pytest.raises(CaptionerError, match=r"model\.pth is not one of LAVIS's own.*lavis\.yaml"):
        find_files(files)
    (files / "lavis.yaml").write_text("model: {}\n")
    assert (find_files(files).size, find_files(files).config) == (None, files / "lavis.yaml")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    usual = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(CaptionerError, match=rf"weights are missing.*{usual}; LAVIS's own is http"):
        find_files(None)
    usual.mkdir(parents=True)
    (usual / "model_large_caption.pth").write_bytes(b"weights")
    with pytest.raises(
        CaptionerError, match=r"vocabulary is missing: bert-base-uncased/vocab\.txt"
    ):
        find_files(None)
    (files / "bert-base-uncased").rename(usual / "bert-base-uncased")
    assert find_files(None).size == "large"
    with pytest.raises(CaptionerError, match="vocabulary is missing"):
        find_files(files)
    with pytest.raises(CaptionerError, match="no captioner folder"):
        find_files(tmp_path / "nowhere")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "p2p-real"


def pretend(folder: Path, python: str) -> Path:
    """An environment that looks whole, whose python is a script of a few lines."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f"#!{sys.executable}\n{python}\n")
    (folder / "bin" / "python").chmod(0o755)
    said = {"pins": "current", "base": base_versions(), "packages": {"timm": "0.4.12"}}
    (folder / MARK).write_text(json.dumps({**said, "seconds": 3.0, "bytes": 5_000_000}))
    return folder


needs_scripts = pytest.mark.skipif(os.name == "nt", reason="an interpreter is no script there")


def test_without_an_environment_it_says_how_to_make_one(files: Path, cache: Path) -> None:
    with pytest.raises(CaptionerError, match=r"p2p-real doctor --make-lavis-env") as error:
        load_captioner("lavis", files)
    assert str(cache / "lavis") in str(error.value)
    with pytest.raises(CaptionerError, match="no LAVIS environment"):
        captioner_for(str(files), "tabletop")  # a folder of LAVIS is known as one
    run = call("caption", RED_BALL, "--captioner", "lavis")
    assert "no LAVIS environment" in run.line()
    with pytest.raises(CaptionerError, match="cannot be run"):
        LavisCaptioner(files, python=cache / "python")


@needs_scripts
def test_half_an_environment_is_none(cache: Path) -> None:
    whole = pretend(cache / "lavis", "")
    assert find_environment() is not None
    (whole / "bin" / "python").unlink()
    assert find_environment() is None
    whole = pretend(cache / "other", "")
    for mark in ("{half", "[]", '{"pins": "own"}', '{"strange": 1}'):
        (whole / MARK).write_text(mark)
        assert find_environment(whole) is None
    (whole / MARK).unlink()
    assert find_environment(whole) is None


@needs_scripts
@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("print('{\"ready\": true}')", None),
        ('print(\'{"error": "ImportError: no timm"}\')', "cannot be imported.*no timm"),
        ("import sys; sys.exit('bad magic')", "cannot be imported.*bad magic"),
        ("import time; time.sleep(60)", "more than 1 s"),
    ],
)
def test_doctor_tries_the_environment(
    cache: Path, python: str, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_environment(pretend(cache / "lavis", python))
    assert isinstance(found, LavisEnvironment)
    trouble = trouble_with(found, timeout=1 if "sleep" in python else 60)
    if said is None:
        assert trouble is None
        report = call("doctor", "--json").json["lavis"]
        assert (report["there"], report["trouble"], report["bytes"]) == (True, None, 5_000_000)
        assert f"{cache / 'lavis'}: works\n  current pins, made in 3 s" in call("doctor").out
    else:
        assert trouble is not None
        assert re.search(said, trouble)


@needs_scripts
def test_an_environment_that_works_is_not_made_again(cache: Path, tmp_path: Path) -> None:
    folder = pretend(tmp_path / "elsewhere", "print('{\"ready\": true}')")
    assert environment_folder() == cache / "lavis"
    found, now = make_environment(folder)
    assert (found.folder, now) == (folder, False)
    assert environment_folder() == folder  # captions find it from now on
    run = call("doctor", "--make-lavis-env", "--json")
    assert run.json["lavis"]["made_now"] is False


def test_what_cannot_be_made(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionerError, match="no pins 'old'; there are: own, current"):
        make_environment(tmp_path / "env", "old")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(CaptionerError, match="is there and is no LAVIS environment"):
        make_environment(mine)
    assert (mine / "thesis.txt").read_text() == "x"
    (tmp_path / "file").write_text("x")
    with pytest.raises(CaptionerError, match="cannot be made in"):
        make_environment(tmp_path / "file" / "env")
    for option in (("--lavis-env", "x"), ("--lavis-pins", "own")):
        line = call("doctor", *option).line()
        assert f"{option[0]} is of --make-lavis-env" in line


@needs_scripts
def test_a_making_that_fails_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A python whose venv stops half way, as it does where the system keeps pip apart."""
    half = (
        "import pathlib, sys\nassert sys.argv[1:3] == ['-m', 'venv']\n"
        "pathlib.Path(sys.argv[3], 'lib').mkdir(parents=True)\n"
        "print('Making it')\nprint('Error: ensurepip is not available')\nsys.exit(1)"
    )
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{half}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    told: list[tuple[object, ...]] = []
    said = "venv could not make the LAVIS environment: Error: ensurepip is not available"
    with pytest.raises(CaptionerError, match=said):
        make_environment(tmp_path / "new" / "env", progress=lambda *t: told.append(t))
    assert told == [("empty environment", 0, 1, "")]
    assert list((tmp_path / "new").iterdir()) == []
    assert not cache.exists()


def test_what_a_killed_making_left_is_swept(tmp_path: Path) -> None:
    for name in (".env.0a.part", ".env.0b.old", ".env.mine", ".other.0c.part", ".env.0d.part"):
        (tmp_path / name).mkdir()
        if name != ".env.0d.part":  # that one is being made
            os.utime(tmp_path / name, (0, 0))
    _sweep(tmp_path / "env")
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {".env.mine", ".other.0c.part", ".env.0d.part"}


@needs_scripts
def test_an_older_environment_stays_until_a_new_one_works(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pretend(tmp_path / "env", "import sys; sys.exit('broken since an update')")
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport sys; sys.exit('no room')\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(CaptionerError, match=r"venv could not make .*: no room"):
        make_environment(folder)
    assert find_environment(folder) is not None


def test_what_pip_says_it_fetched(tmp_path: Path) -> None:
    wheel = tmp_path / "x-1.whl"
    wheel.write_bytes(b"12345")
    said = {
        "  Downloading timm-0.4.12-py3-none-any.whl (376 kB)": 376_000,
        "Using cached torchvision-0.28.0-cp311.whl (7.7 MB)": 7_700_000,
        "  Downloading timm-0.4.12.whl.metadata (30 kB)": 0,
        f"Processing {wheel}": 5,
        "Requirement already satisfied: torch": 0,
    }
    assert {line: bytes_of(line) for line in said} == said


def test_the_worker_says_what_it_lacks(files: Path) -> None:
    """This environment has no torchvision, and is to have none."""
    with pytest.raises(CaptionerError, match=r"No module named 'torchvision'.*lavis-env` again"):
        LavisCaptioner(files, python=sys.executable)


def test_weights_are_tensors_or_are_not_read(tmp_path: Path) -> None:
    """The line says how to convert them; what it says is run."""
    import argparse

    import torch

    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    plain, mixed = tmp_path / "plain.pth", tmp_path / "mixed.pth"
    torch.save({"model": model.state_dict()}, plain)
    fill_model(other, str(plain))
    assert torch.equal(other.weight, model.weight)
    torch.save({"model": model.state_dict(), "config": argparse.Namespace(lr=1)}, mixed)
    with pytest.raises(ValueError, match="more than tensors") as error:
        fill_model(other, str(mixed))
    command = str(error.value).partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", command], check=True)
    again = torch.nn.Linear(3, 2)
    fill_model(again, str(mixed.with_suffix(".safetensors")))
    assert torch.equal(again.weight, model.weight)
    torch.save({"bias": model.bias.detach()}, plain)
    with pytest.raises(ValueError, match="lacks 1 tensors, among them weight"):
        fill_model(again, str(plain))
