"""The verb direction, and edits by what it made."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from p2p_real.directions import Direction
from p2p_real.directions.expression import resolve

from .commands import FEW, RED_BALL, SOURCE, call, files_in, pixels

BALL = (RED_BALL, "--source", SOURCE, "--no-cache", *FEW)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A direction of two files of sentences."""
    folder = tmp_path_factory.mktemp("direction")
    (folder / "red.txt").write_text("a red ball\n2. a red ball on a table\n")
    (folder / "blue.txt").write_text("a blue ball\n2. a blue ball on a table\n")
    done = call(
        *("direction", "red", "blue", "--out", folder / "d.safetensors", "--quiet", "--json"),
        *("--sentences-src", folder / "red.txt", "--sentences-dst", folder / "blue.txt"),
    )
    assert done.code == 0, done.err
    found = done.json
    assert found["made_by"] == "files"
    assert found["sentences"]["source"]["count"] == 2
    assert found["model"] == "tabletop"
    return folder / "d.safetensors"


def test_a_direction_is_kept_by_its_name(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cwd / "cache"))
    done = call("direction", "red ball", "blue ball", "--quiet")
    assert done.code == 0, done.err
    assert "red ball: 255 sentences" in done.out
    assert "--direction 'red-ball2blue-ball'" in done.out
    kept = cwd / "cache" / "p2p-real" / "directions" / "red-ball2blue-ball.safetensors"
    found = Direction.load(kept)
    assert found.made_by == "forms"
    assert files_in(cwd) == {str(kept.relative_to(cwd))}
    assert resolve("red-ball2blue-ball").sha256 == found.sha256


def test_edits_by_a_direction(made: Path, cwd: Path) -> None:
    def edit(name: str, *more: Any) -> dict[str, Any]:
        done = call("edit", *BALL, "--direction", made, "--json", *more, "--out", name)
        assert done.code == 0, done.err
        return done.json

    plain = edit("plain", "--edit", "plain")
    guided = edit("guided", "--edit", "pix2pix-zero", "--edit-option", "guidance_amount=1")
    both = edit("both", "--edit", "pix2pix-zero", "--edit", "p2p", "--local", "ball")
    assert plain["target"] == plain["source"] == SOURCE
    assert plain["direction"]["name"] == "red -> blue"
    (control,) = guided["controls"]
    assert control["guidance_amount"] == 1
    assert len(control["losses"]) == 3
    assert [c["control"] for c in both["controls"]] == [
        "cross-attention guidance",
        "cross-attention",
        "self-attention",
        "local blend",
    ]
    pictures = [pixels(Path(n) / "edited.png") for n in ("plain", "guided", "both")]
    assert all((a != b).any() for a, b in itertools.pairwise(pictures))
    again = call("edit", "--again", "guided/edited.png", "--out", "again", "--quiet")
    assert again.code == 0, again.err
    assert "+ the direction red -> blue" in again.out
    assert (pixels("again/edited.png") == pictures[1]).all()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("red", "red"), "from 'red' to itself is no direction"),
        (("red", " "), "' ' is none"),
        (("a", "b", "--out", "x.bin"), "give a file name that ends in .safetensors"),
        (("a", "b", "--sentences-src", "x.txt"), "--sentences-dst go together"),
        (("a", "b", "--count", "3"), "--count belongs to --sentences-model"),
        (("a", "b", "--sentences-model", "gone"), "give the folder of a language model"),
        (("a", "b", "--sentences-model", "m", "--count", "0"), "--count 0"),
        (("a", "b", "--sentences-src", "x", "--sentences-dst", "y"), "x: cannot be read"),
    ],
)
def test_directions_that_cannot_be_made(cwd: Path, argv: tuple[str, ...], said: str) -> None:
    more = () if "--out" in argv else ("--out", "d.safetensors")
    assert said in call("direction", *argv, *more).line()
    assert files_in(cwd) == set()


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        ("gone", "no direction 'gone': neither a file nor a name"),
        ("a*x", "is not NAME or NAME*NUMBER"),
        ("photo.safetensors", "photo.safetensors: damaged or not a safetensors file"),
    ],
)
def test_directions_that_cannot_be_used(cwd: Path, direction: str, said: str) -> None:
    Path("photo.safetensors").write_bytes(b"no direction at all")
    assert said in call("edit", *BALL, "--direction", direction, "--out", "out").line()
    assert "edited.png" not in " ".join(files_in(cwd))
