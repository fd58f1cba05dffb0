"""Every verb on the embedded model: what it writes, and every field of its contract."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from p2p_real.pictures import read_settings
from p2p_real.tabletop import PHOTOS

from .commands import FEW, RED_BALL, ROOT, SOURCE, call, files_in, finish, start, strict_json

FIGURES = ("reconstruction_psnr", "ceiling_psnr", "seconds", "peak_memory_bytes")


def check_report(report: dict[str, Any], steps: int) -> None:
    """The fields that say what acted."""
    assert report["layers_hooked"].keys() == report["steps_injected"].keys()
    assert sum(report["layers_hooked"]["cross-attention"].values()) > 0
    assert all("1/" in name for name in report["layers_hooked"]["cross-attention"])
    injected = report["steps_injected"]["cross-attention"]
    assert injected == sorted(injected)
    assert set(injected) <= set(range(steps))
    assert {"source": "red", "target": "blue", "kind": "swapped"} in report["token_alignment"]
    assert report["max_latent_change"]["reconstruction"] > 0
    assert "uninjected" in report["max_latent_change"]
    assert report["seconds"] > 0
    assert report["unet_rows"] >= 2 * steps
    assert report["peak_memory_bytes"] > 2**20
    assert report["seed"] == 0
    assert report["steps"] == steps
    assert report["settings"]["strength"] == 1
    assert report["edit_settings"]["p2p"]["cross_replace"] == 0.7
    assert {"p2p-real", "torch", "diffusers", "transformers"} <= report["versions"].keys()
    assert report["source"] == SOURCE
    assert report["target"] == SOURCE.replace("red", "blue")


def test_edit_writes_all_and_says_all(cwd: Path) -> None:
    run = call("edit", RED_BALL, "--swap", "red=blue", *FEW, "--local", "ball", "--json")
    assert (run.code, run.err) == (0, "")
    report = run.json
    check_report(report, 3)
    assert 0 < report["mask_coverage"] < 1
    assert 20 < report["reconstruction_psnr"] <= report["ceiling_psnr"] + 1e-6
    assert report["method"] == "direct"
    assert report["method_settings"]
    assert report["photo"] == "red_ball"
    names = {"edited", "reconstruction", "strip", "mask"}
    assert files_in(cwd) == {f"out/{n}.png" for n in names} | {"out/report.json"}
    assert set(report["files"]) == names
    assert strict_json((cwd / "out/report.json").read_text()) == report
    size = Image.open(RED_BALL).size
    for name in ("edited", "reconstruction", "mask"):
        assert Image.open(report["files"][name]).size == size
    for path in report["files"].values():
        settings = read_settings(path)
        assert settings["command"]["verb"] == "edit"
        assert settings["report"]["target"] == report["target"]


def test_edit_for_people(cwd: Path) -> None:
    run = call("edit", RED_BALL, "--source", SOURCE, "--swap", "red=blue", "--steps", 3)
    assert run.code == 0
    assert "red -> blue" in run.out
    assert "cross-attention" in run.out
    assert "out/edited.png" in run.out
    assert run.err.startswith("note: tabletop: sd, epsilon, float32")
    assert run.err.count("apache-2.0") == 1


def test_generate(cwd: Path) -> None:
    run = call("generate", SOURCE, "--swap", "red=blue", *FEW, "--json")
    assert (run.code, run.err) == (0, "")
    check_report(run.json, 3)
    names = ("edited", "mask", "source", "strip")  # tabletop blends by itself
    assert files_in(cwd) == {*(f"out/{n}.png" for n in names), "out/report.json"}
    assert Image.open("out/edited.png").size == Image.open("out/source.png").size
    assert Path("out/edited.png").read_bytes() != Path("out/source.png").read_bytes()


def test_generate_many_without_an_edit(cwd: Path) -> None:
    size = ("--size", "80x64")
    run = call("generate", SOURCE, "--count", 2, "--seed", 5, *size, *FEW, "--json")
    assert run.code == 0
    assert [p["seed"] for p in run.json["pictures"]] == [5, 6]
    assert Image.open("out/seed_5/source.png").size == (80, 64)
    first, second = (Path(f"out/seed_{n}/source.png").read_bytes() for n in (5, 6))
    assert first != second
    alone = call("generate", SOURCE, "--seed", 6, *size, *FEW, "--out", "alone")
    assert alone.code == 0
    pictures = [Image.open(p).tobytes() for p in ("alone/source.png", "out/seed_6/source.png")]
    assert pictures[0] == pictures[1]
    settings = read_settings("out/seed_6/edited.png")["command"]["options"]
    assert (settings["seed"], settings["count"]) == (6, 1)


def test_invert(cwd: Path) -> None:
    run = call("invert", RED_BALL, *FEW, "--method", "null-text", "--json")
    assert (run.code, run.err) == (0, "")
    found = run.json
    assert files_in(cwd) == {"red_ball.inv.safetensors"}
    assert found["file"] == "red_ball.inv.safetensors"
    assert found["prompt"] == SOURCE
    assert all(found[name] > 0 for name in FIGURES)
    assert found["unet_forwards"] >= 3
    assert found["unet_backwards"] >= 0
    assert found["versions"]["torch"]
    assert not found["from_cache"]
    edit = call("edit", found["file"], "--swap", "red=blue", "--quiet", "--json")
    assert edit.code == 0
    assert edit.json["method"] == "null-text"
    assert edit.json["steps"] == 3


def test_invert_for_people_tells_the_next_command(cwd: Path) -> None:
    run = call("invert", RED_BALL, "--prompt", SOURCE, *FEW, "--out", "deep/er/x.inv.safetensors")
    assert run.code == 0
    assert "p2p-real edit deep/er/x.inv.safetensors" in run.out
    assert "dB" in run.out


def test_caption_of_several_and_of_one_twice() -> None:
    cube = PHOTOS / "blue_cube.png"
    run = call("caption", RED_BALL, cube, RED_BALL, "--json")
    assert (run.code, run.err) == (0, "")
    captions = run.json["captions"]
    assert [c["photo"] for c in captions] == [str(RED_BALL), str(cube), str(RED_BALL)]
    assert captions[0]["caption"] == captions[2]["caption"] == SOURCE
    assert "blue cube" in captions[1]["caption"]
    assert call("caption", RED_BALL).out == SOURCE + "\n"
    assert call("caption", RED_BALL, cube).out.splitlines()[0] == f"{RED_BALL}\t{SOURCE}"


def test_tokens() -> None:
    target = SOURCE.replace("red ball", "big blue ball")
    run = call("tokens", SOURCE, target, "--json")
    assert (run.code, run.err.count("note:")) == (0, 1)
    found = run.json
    assert found["tokens"][1] == {**found["tokens"][1], "position": 2, "text": "red"}
    kinds = {(row["source"], row["target"]): row["kind"] for row in found["alignment"]}
    assert kinds["red", "big blue"] == "swapped"
    people = call("tokens", SOURCE, "--quiet").out
    assert "red" in people.splitlines()[1]
    assert people.endswith(" of 75\n")


def test_methods() -> None:
    found = call("methods", "--json").json
    inversions = {row["name"]: row for row in found["inversions"]}
    assert {"ddim", "direct", "negative-prompt", "null-text"} <= inversions.keys()
    assert {"p2p", "plain"} <= {row["name"] for row in found["edits"]}
    for row in (*found["inversions"], *found["edits"]):
        assert row["about"]
        assert "arXiv" in row["paper"] or row["name"] == "auto"
        assert all(s["help"] for s in row["settings"])
    assert call("methods", "null-text").out.count("arXiv") == 1


def test_doctor() -> None:
    found = call("doctor", "--json").json
    assert found["versions"]["torch"]
    assert found["devices"][0]["name"] == "cpu"
    plan = call("doctor", "--plan", "--method", "null-text", "--steps", 7, "--json")
    assert plan.code == 0
    assert plan.json["plan"]["steps"] == 7
    assert plan.json["plan"]["inversion_seconds_at_most"] > 0
    assert plan.json["plan"]["peak_memory_bytes"] > 0


def test_demo_as_a_process_and_without_a_network(tmp_path: Path) -> None:
    run = finish(start(["demo", "--steps", 3, "--json", "--quiet"], tmp_path))
    assert (run.code, run.err) == (0, "")
    report = run.json
    assert {"strip.png", "report.json"} <= {p.name for p in (tmp_path / "demo").iterdir()}
    assert report["caption"] == SOURCE
    assert report["method"] == "null-text"
    assert {"swap", "reweight", "local"} <= report["edits"].keys()
    assert any(e["mask_coverage"] for e in report["edits"].values())
    written = strict_json((tmp_path / "demo/report.json").read_text())
    assert {**written, "strip": report["strip"]} == report
    assert read_settings(tmp_path / "demo/strip.png")["caption"] == SOURCE
    assert not list(tmp_path.rglob(".*"))


def test_module_and_script_are_one(tmp_path: Path) -> None:
    entry = (ROOT / "setup.cfg").read_text()
    assert "p2p-real = p2p_real.cli:main" in entry
    assert finish(start(["methods", "--json"], tmp_path)).out == call("methods", "--json").out


@pytest.mark.parametrize(
    "verb", ["demo", "caption", "invert", "edit", "generate", "tokens", "methods", "doctor"]
)
def test_help_teaches(verb: str) -> None:
    run = call(verb, "--help")
    assert (run.code, run.err) == (0, "")
    assert f"\n  p2p-real {verb}" in run.out, "no example"
    module: Any = sys.modules[f"p2p_real.verbs.{verb}"]
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert len(parser._actions) > 2
    assert all(a.help for a in parser._actions), "an argument without a word about it"


def test_examples_in_help_can_be_parsed() -> None:
    """Each example is a command line that the parser takes."""
    import shlex

    from p2p_real.cli import VERBS, build_parser

    parser, seen = build_parser(), 0
    for verb in VERBS:
        for line in (sys.modules[f"p2p_real.verbs.{verb}"].__doc__ or "").splitlines():
            if line.startswith("  p2p-real "):
                parser.parse_args(shlex.split(line)[1:])
                seen += 1
    assert seen >= 12


def test_json_is_one_line_for_readers(cwd: Path) -> None:
    run = call("methods", "--json")
    assert run.out.count("\n") == 1
    json.loads(run.out)


def test_several_targets_and_a_sweep(cwd: Path) -> None:
    base = ("edit", RED_BALL, "--source", SOURCE, "--swap", "red=blue", *FEW, "--json")
    both = call(*base, "--also", SOURCE.replace("red", "green"), "--out", "both").json
    assert [Path(f).name for f in both["others"][0]["files"].values()] == [
        "edited_2.png",
        "mask_2.png",
    ]
    assert Path("both/edited_2.png").is_file()
    found = call(*base, "--sweep", "strength=0:1:3", "--out", "swept").json
    assert [row["value"] for row in found["rows"]] == [0, 0.5, 1]
    assert all(Path(row["file"]).is_file() for row in found["rows"])
    assert Image.open("swept/sweep.png").width > 4 * 128
    assert "FROM:TO:COUNT" in call(*base, "--sweep", "strength").line()
    assert "--also" in call(*base, "--sweep", "strength=0:1:3", "--also", "a dog").line()
