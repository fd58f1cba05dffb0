"""LAVIS for real: `make lavis-test`, kept out of `make test` because pip fetches 200 MB for it.

Makes the environment with LAVIS's own pins (where this Python allows) and with the current ones,
captions photos by LAVIS's own `BlipCaption` at random weights through the command line, and holds
the two against each other. Prints the commands, what they say, versions, seconds and sizes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from captioning.lavis_environment import WORKER, clean_environ
from p2p_real.tabletop import PHOTOS

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = Path(__file__).with_name("lavis_weights.py")
TWO = [str(PHOTOS / "red_ball.png"), str(PHOTOS / "blue_cube.png")]
ASKED = (
    (),
    ("--num-beams", "1"),
    ("--prefix", "the blue cup"),
    ("--sample", "--seed", "4"),
)


def p2p(folder: Path, *argv: str) -> dict[str, Any]:
    """Runs a command line with a cache of its own; its JSON."""
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "TORCH_HOME": str(folder.parent / "torch")}
    print(f"$ p2p-real {shlex.join(argv)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "p2p_real", *argv, "--json"],
        cwd=ROOT,
        env={**os.environ, **places},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"lavis-test: p2p-real ended with code {done.returncode}")
    print(f"  {time.perf_counter() - start:.1f} s")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def make(folder: Path, pins: str) -> Path:
    """The environment of these pins, made anew; its python."""
    shutil.rmtree(folder, ignore_errors=True)
    say = ("doctor", "--make-lavis-env", "--lavis-env", str(folder / "env"), "--lavis-pins", pins)
    made = p2p(folder, *say)["lavis"]
    assert made["trouble"] is None
    for name, version in made["packages"].items():
        print(f"    {name}=={version}")
    print(
        f"  {made['seconds']:.0f} s, {made['fetched_bytes'] / 1e6:.0f} MB fetched, "
        f"{made['bytes'] / 1e6:.0f} MB on disk"
    )
    again = p2p(folder, *say)["lavis"]
    assert (again["made_now"], again["seconds"]) == (False, made["seconds"])
    return folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def weights(python: Path, kind: str, folder: Path) -> None:
    """Random weights, saved by LAVIS's own class."""
    command = [str(python), "-I", str(WEIGHTS), str(WORKER), kind, str(folder)]
    done = subprocess.run(command, env=clean_environ(), stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"lavis-test: no weights could be made: {done.stderr[-2000:]}")


def captions(folder: Path, *argv: str) -> list[str]:
    """What the photos are said to show."""
    found = [row["caption"] for row in p2p(folder, "caption", *argv)["captions"]]
    for text in found:
        print(f"    {text}")
    assert all(found), "an empty caption"
    return found


def main() -> None:
    """Both pins, from nothing to captions."""
    build = Path(sys.argv[1]).resolve()
    kinds = ("own", "current") if sys.version_info[:2] in ((3, 10), (3, 11)) else ("current",)
    said: dict[str, list[list[str]]] = {}
    for pins in kinds:
        python = make(build / pins, pins)
        if pins == kinds[0]:
            weights(python, "small", build / "small")
            weights(python, "base", build / "torch" / "hub" / "checkpoints")
        small = ("--captioner", str(build / "small"))
        said[pins] = [captions(build / pins, *TWO, *small, *asked) for asked in ASKED]
        said[pins].append([captions(build / pins, TWO[1], *small)[0]])
        said[pins].append(captions(build / pins, *TWO, *small[:1], f"{small[1]}-safetensors"))
        said[pins].append(captions(build / pins, TWO[0], "--captioner", "lavis"))
    first = said[kinds[0]]
    assert all(found == first for found in said.values()), "the pins do not agree"
    assert first[4] == first[0][1:], "alone it is captioned otherwise"
    assert first[5] == first[0], "safetensors and .pth do not agree"
    assert first[0] != first[1] != first[2]
    assert all(text.startswith("the blue cup") for text in first[2])
    assert first[0][0] != first[0][1], "the photo does not matter"
    shutil.rmtree(build / "torch")  # a gigabyte
    print(f"lavis-test: {' and '.join(kinds)} pins caption, and say the same")


if __name__ == "__main__":
    main()
