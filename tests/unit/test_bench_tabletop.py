"""The ground-truth benchmark: its edits are what they say, and so are its figures and files."""

from __future__ import annotations

import copy
import csv
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from p2p_real.bench.tabletop import (
    KINDS,
    TabletopError,
    Way,
    mask_iou,
    read_kinds,
    read_ways,
    run,
    truth_set,
    two_object_scenes,
)
from p2p_real.bench.tabletop.directing import Directions, captions_about, direction_words
from p2p_real.bench.tabletop.figures import Ruler, structure
from p2p_real.bench.tabletop.reading import Readers
from p2p_real.bench.tabletop.running import Bench, load_tabletop
from p2p_real.bench.tabletop.summary import in_order, interval, mark_nearer, summarise
from p2p_real.bench.tabletop.truths import SEED, TruthEdit
from p2p_real.bench.tabletop.ways import is_bound, new_words
from p2p_real.captions import captioner_for
from p2p_real.compare import EditAsked, MethodAsked
from p2p_real.editor import Editor
from p2p_real.metrics import perceptual
from p2p_real.numbers import OptionError
from p2p_real.tabletop.reader import load_reader
from p2p_real.tabletop.scene import (
    GROUND_PHRASES,
    caption,
    held_out_rng,
    noun_phrase,
    parse_caption,
    sample_scene,
)
from p2p_real.tabletop.truth import VISIBLE, blend_words, truth_pair

KINDS_SAID = ("colour", "light", "remove")
COSTS = ("seconds", "cpu_seconds", "inversion_seconds", "edit_seconds", "peak_memory_bytes")


@functools.cache
def edits() -> tuple[TruthEdit, ...]:
    return tuple(truth_set(per_kind=2))


@pytest.fixture(scope="module")
def editor() -> Editor:
    return load_tabletop()


@pytest.fixture(scope="module")
def readers() -> Readers:
    return Readers(load_reader(), captioner_for("blip", "tabletop").caption)


# --- the edits -------------------------------------------------------------------------------


def test_edits_come_by_seed_and_more_begin_with_the_same() -> None:
    few, many = truth_set(per_kind=2), truth_set(per_kind=3)
    assert [(t.id, t.record, t.edit) for t in few] == [
        (t.id, t.record, t.edit) for t in many if t.number < 2
    ]
    assert [t.kind for t in few] == [*KINDS, *KINDS]
    alone = truth_set("light", per_kind=3)
    assert [t.record for t in alone] == [t.record for t in many if t.kind == "light"]
    assert truth_set(per_kind=1, seed=SEED + 1)[0].record != few[0].record
    assert len(truth_set(limit=10)) == 10
    assert len(truth_set()) >= 300


def test_no_edit_is_one_that_defaults_were_tuned_on() -> None:
    found = [json.dumps(t.record, sort_keys=True) for t in truth_set(per_kind=10)]
    for seed in (7, 11):
        rng = held_out_rng(seed)
        other = [json.dumps(sample_scene(rng, two), sort_keys=True) for two in (0, 1) * 200]
        assert not set(found) & set(other)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("truth", edits(), ids=lambda t: t.id)
def test_only_the_mask_changes(truth: TruthEdit) -> None:
    photo, true = (np.asarray(p).astype(int) for p in (truth.photo, truth.truth))
    gap = np.abs(photo - true).max(-1)
    assert gap[~truth.changed].max(initial=0) <= VISIBLE
    assert gap[truth.changed].max() > VISIBLE
    if "light" not in truth.ops:
        assert not truth.changed.all()


@pytest.mark.parametrize("truth", edits(), ids=lambda t: t.id)
def test_captions_differ_in_what_is_edited(truth: TruthEdit) -> None:
    """The source's caption becomes the target's by changing the words of the edit alone."""
    record, edited = truth.pair.record, truth.pair.edited
    said = {"source": caption(record), "target": caption(edited)}
    assert said == {"source": truth.pair.source_caption, "target": truth.pair.target_caption}
    assert said["source"] != said["target"]
    wanted = copy.deepcopy(record)
    for op in truth.ops:
        if op in ("ground", "light"):
            assert wanted[op] != edited[op]
            wanted[op] = edited[op]
        elif op in ("add", "remove"):
            assert abs(len(edited["objects"]) - len(record["objects"])) == 1
            wanted["objects"] = edited["objects"]
        else:
            assert wanted["objects"][0][op] != edited["objects"][0][op]
            wanted["objects"][0][op] = edited["objects"][0][op]
    assert wanted == edited
    for thing in record["objects"]:
        if thing in edited["objects"]:
            assert noun_phrase(thing) in said["target"]


def test_random_edits_are_two_changes() -> None:
    found = truth_set("random", per_kind=20)
    assert all(len(set(t.ops)) == 2 for t in found)
    assert len({frozenset(t.ops) for t in found}) > 5


def test_blend_words_stand_in_the_captions() -> None:
    for truth in truth_set(per_kind=6):
        pair = truth_pair(truth.record, truth.edit, size=8)
        words = blend_words(pair)
        if words is None:
            assert "light" in truth.ops
            continue
        assert len(words) in (1, 2)
        for old, new in words.items():
            assert (old in pair.source_caption.split()) is (truth.kind != "add")
            assert (new in pair.target_caption.split()) is (truth.kind != "remove")
        if truth.kind == "background":
            (old,) = words
            assert old in GROUND_PHRASES[truth.record["ground"]]


def test_two_object_scenes_have_two() -> None:
    assert {len(r["objects"]) for r in two_object_scenes(5)} == {2}


# --- reading ---------------------------------------------------------------------------------


def test_the_truth_is_read_as_done_and_the_photo_as_not(readers: Readers) -> None:
    found = edits()
    done = [readers.read(t.truth, t) for t in found]
    assert sum(r.asked and r.kept for r in done) >= len(found) - 1
    assert sum(r.said == t.pair.target_caption for r, t in zip(done, found, strict=True)) == len(
        found
    )
    undone = [readers.read(t.photo, t) for t in found]
    assert sum(r.asked for r in undone) <= 1
    assert sum(r.kept for r in undone) >= len(found) - 1


@pytest.mark.parametrize(
    ("kind", "said", "asked", "kept"),
    [
        ("add", "{target}", True, True),
        ("add", "{source}", False, True),
        ("add", "a black metal mug and {source}", False, True),
        ("add", "nothing at all", False, False),
        ("remove", "{target}", True, True),
        ("remove", "{source}", False, True),
        ("remove", "a black metal mug on the sand at noon", True, False),
    ],
)
def test_coming_and_going_is_counted(kind: str, said: str, asked: bool, kept: bool) -> None:
    truth = next(t for t in edits() if t.kind == kind)
    text = said.format(source=truth.pair.source_caption, target=truth.pair.target_caption)
    reading = Readers(load_reader(), lambda pictures: [text]).read(truth.photo, truth)
    assert (reading.asked, reading.kept, reading.by) == (asked, kept, "captioner")


# --- figures ---------------------------------------------------------------------------------


def test_figures_know_inside_from_outside() -> None:
    ruler = Ruler(perceptual(), load_reader())
    truth = next(t for t in edits() if t.kind == "colour")
    name = ruler.perceptual.name
    perfect, photo = ruler.measure(truth.truth, truth), ruler.measure(truth.photo, truth)
    assert perfect["psnr"] == perfect["psnr_inside"] == perfect["psnr_outside"] == 60
    assert perfect["structure"] == perfect[name] == 0
    assert photo["psnr_outside"] > 40 > 25 > photo["psnr_inside"]
    assert photo["ssim_outside"] > photo["ssim_inside"]
    assert photo[f"{name}_outside"] < photo[f"{name}_inside"]
    light = next(t for t in edits() if t.changed.all())
    assert ruler.measure(light.photo, light)["psnr_outside"] is None


def test_structure_sees_a_moved_object_more_than_another_colour() -> None:
    reader = load_reader()
    truth = next(t for t in edits() if t.kind == "colour")
    moved = Image.fromarray(np.roll(np.asarray(truth.photo), 24, axis=1))
    colour, place = (structure(reader, truth.photo, p) for p in (truth.truth, moved))
    assert 0 < colour < place


def test_mask_iou_by_hand() -> None:
    true = np.zeros((4, 4), bool)
    true[:2] = True
    found = np.zeros((4, 4), np.uint8)
    found[1:3] = 255
    assert mask_iou(Image.fromarray(found), true) == pytest.approx(4 / 12)
    assert mask_iou(true, true) == 1


# --- intervals and order ---------------------------------------------------------------------


def test_bootstrap_is_that_of_theory() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 400)
    mean, low, high = interval(list(values))
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert interval([1.0] * 5) == [1, 1, 1]
    assert interval(list(values)) == interval(list(values))


def row(way: str, kind: str, n: int, **figures: Any) -> dict[str, Any]:
    return {"id": f"{kind}-{n}", "kind": kind, "way": way, "status": "ok", **figures}


def test_failures_count_as_not_done() -> None:
    rows = [
        row("a", "colour", 0, right=True, psnr=20.0, psnr_inside=20.0),
        row("a", "light", 0, right=False, status="failed"),
        row("b", "colour", 0, right=True, psnr=21.0, psnr_inside=21.0),
        row("b", "light", 0, right=False, psnr=10.0, psnr_inside=10.0),
    ]
    mark_nearer(rows, "b")
    assert rows[0]["nearer"] is False
    found = summarise(rows)
    assert found["a"]["all"]["failed"] == 1
    assert found["a"]["all"]["right"][0] == 0.5
    assert found["a"]["all"]["psnr"][0] == 20  # of those that there are
    assert found["b"]["light"]["right"][0] == 0
    assert in_order(found) == ["a", "b"]


# --- ways ------------------------------------------------------------------------------------


def test_plain_regeneration_is_always_one_of_the_ways() -> None:
    made = read_ways("direct,null-text:inner_steps=2", "p2p", guidance="2,3")
    assert [w.label for w in made] == [
        "direct, p2p guidance 2",
        "direct, p2p guidance 3",
        "null-text:inner_steps=2, p2p guidance 2",
        "null-text:inner_steps=2, p2p guidance 3",
        "direct, plain guidance 2",
        "direct, plain guidance 3",
    ]
    assert [is_bound(w) for w in made] == [False] * 4 + [True] * 2
    assert len(read_ways("direct", "p2p,plain")) == 2
    assert [w.label for w in read_ways("edict", plain_guidance=[1.5, 3])] == [
        "edict, p2p",
        "direct, plain guidance 1.5",
        "direct, plain guidance 3",
    ]
    both = read_ways("direct", "p2p,plain", local="both")
    assert [w.label for w in both] == ["direct, p2p", "direct, p2p local", "direct, plain"]


def test_an_edit_says_what_stands_beside_it() -> None:
    (whole, _) = read_ways("direct", "p2p+no-local")
    assert whole.label == "direct, p2p no-local"
    assert whole.control == {"local": ()}
    asked = "p2p+local,p2p+pnp,direction,world-direction+pix2pix-zero:every=2,plain"
    made = read_ways("direct", asked)
    assert [w.label for w in made] == [
        "direct, p2p local",
        "direct, p2p+pnp",
        "direct, direction",
        "direct, world-direction+pix2pix-zero:every=2",
        "direct, plain",
    ]
    assert [w.direction for w in made] == ["", "", "forms", "captions", ""]
    assert [is_bound(w) for w in made] == [False] * 4 + [True]
    truth, light, removed = (next(t for t in edits() if t.kind == k) for k in KINDS_SAID)
    alone, beside, plain = read_ways("direct", "excite,p2p+excite,plain")
    assert [alone.label, beside.label] == ["direct, plain excited", "direct, p2p excited"]
    assert [is_bound(w) for w in (alone, beside, plain)] == [False, False, True]
    words = new_words(truth)
    assert words == (truth.edit["to"],)
    assert new_words(light) == (light.edit["to"],)
    assert (alone.how(truth).edit, alone.how(truth).excite) == (("attend-excite",), words)
    assert beside.how(truth).edit == ("p2p", "attend-excite")
    assert alone.how(removed).edit == ("plain",)  # nothing comes
    assert made[2].prompts(truth).target == truth.pair.source_caption
    assert made[4].prompts(truth).target == truth.pair.target_caption


@pytest.mark.parametrize("truth", edits(), ids=lambda t: t.id)
def test_every_edit_can_be_said_as_a_direction(truth: TruthEdit) -> None:
    said, spoken = direction_words(truth), truth.pair
    assert 1 <= len(said) <= 2
    for before, after in said:
        assert before in spoken.source_caption
        assert after in spoken.target_caption
        assert before != after
        for words in (before, after):
            found = captions_about(words)
            assert len(found) >= 18
            assert all(words in one and parse_caption(one) for one in found)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"kinds": "colour,style"}, "--kinds 'style': there are colour, object"),
        ({"kinds": "colour,color"}, "colour is given twice"),
        ({"per_kind": 0}, "--per-kind 0"),
        ({"limit": 0}, "--limit 0"),
        ({"methods": "dim"}, "did you mean 'ddim'"),
        ({"edits": "p2p:cross=1"}, "has no such setting"),
        ({"edits": "p2p,p2p"}, "p2p is given twice"),
        ({"edits": "local"}, "stands beside an edit"),
        ({"edits": "p2p+local", "local": "yes"}, "give one"),
        ({"edits": "pnp+no-local"}, "only p2p blends by itself"),
        ({"edits": "p2p+local+no-local"}, "with a blend or without"),
        ({"edits": "direction+world-direction"}, "says direction twice"),
        ({"edits": "direction+excite"}, "no words that could be excited"),
        ({"guidance": "two"}, "--guidance 'two'"),
        ({"guidance": "3,3"}, "--guidance: 3 is given twice"),
        ({"guidance": "0"}, "--guidance 0 does not read"),
        ({"local": "maybe"}, "--local 'maybe'"),
        ({"steps": 0}, "--steps 0"),
        ({"processes": 0}, "--processes 0"),
        ({"batch": 0}, "--batch 0"),
        ({"ways": []}, "one or more"),
    ],
)
def test_bad_input_is_one_line_before_any_model(
    asked: dict[str, Any], why: str, tmp_path: Path
) -> None:
    def load() -> Editor:
        raise AssertionError("no model was to be loaded")

    with pytest.raises(ValueError, match=why) as caught:
        run(tmp_path / "out", load=load, **asked)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_kinds_go_by_either_name() -> None:
    assert read_kinds("color, ground") == ["colour", "background"]
    assert read_kinds() == list(KINDS)
    with pytest.raises(TabletopError):
        read_kinds([])
    with pytest.raises(OptionError):
        read_ways(guidance=[101.0])


# --- whole runs ------------------------------------------------------------------------------

ASKED: dict[str, Any] = {
    "kinds": "colour,light",
    "per_kind": 1,
    "methods": "direct,negative-prompt",
    "steps": 4,
}


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows without what a run costs."""
    return [{k: v for k, v in r.items() if k not in COSTS} for r in found["rows"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, editor: Editor) -> tuple[Path, dict[str, Any]]:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, load=lambda: editor, **ASKED)


def test_files_and_rows(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, found = whole
    lines = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    assert len(lines) == len(found["rows"]) == 2 * (3 + 3)
    for line, made in zip(lines, found["rows"], strict=True):
        assert line["way"] == made["way"]
        if "psnr" in made:
            assert float(line["psnr"]) == made["psnr"]
    ways = [r for r in found["rows"] if "edit" in r]
    assert {r["status"] for r in ways} == {"ok"}
    for r in ways:
        assert (
            r["unet_rows"] == r["unet_forwards"] + r["unet_backwards"] + r["edit_unet_rows"] >= 12
        )
        assert r["seconds"] > 0
        assert r["peak_memory_bytes"] > 0
        if r["method"] == "direct":
            assert r["below_ceiling"] == pytest.approx(0, abs=1e-6)
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert "| direct, p2p | " in text
    assert "nearer to the truth than `direct, plain`" in text
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["seed"], manifest["edits"], manifest["steps"]) == (SEED, 2, 4)
    assert set(manifest["versions"]) >= {"torch", "diffusers"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["direct, p2p"]["all"]["count"] == 2
    for name in ("plot.png", "sheet.png"):
        with Image.open(folder / name) as picture:
            assert np.asarray(picture).std() > 5


def test_a_stopped_run_goes_on_and_ends_the_same(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, editor: Editor
) -> None:
    class Stopped(BaseException):
        pass

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path, load=lambda: editor, progress=stop, **ASKED)
    assert not (tmp_path / "table.md").exists()
    kept = sorted((tmp_path / "cells").glob("*.json"))
    assert len(kept) == 3
    kept[0].write_text(kept[0].read_text()[:100])  # torn
    times = {p: p.stat().st_mtime_ns for p in kept}
    again = run(tmp_path, load=lambda: editor, **ASKED)
    assert [p.stat().st_mtime_ns == times[p] for p in kept] == [False, True, True]
    assert rows_of(again) == rows_of(whole[1])
    before = set((tmp_path / "cells").glob("*.json"))
    run(tmp_path, load=lambda: editor, kinds="light", per_kind=1, methods="direct", steps=1)
    other = set((tmp_path / "cells").glob("*.json")) - before
    assert len(other) == 3  # other settings, other cells


def test_one_ways_failure_is_a_row(tmp_path: Path, editor: Editor) -> None:
    ways = [
        Way(MethodAsked("direct"), EditAsked(("p2p",)), control={"local": "zebra"}, name="zebra"),
        Way(MethodAsked("direct"), EditAsked(("p2p",)), mask=True),
    ]
    found = run(tmp_path, load=lambda: editor, kinds="colour", per_kind=1, ways=ways, steps=3)
    failed, masked = (r for r in found["rows"] if "edit" in r)
    assert failed["status"] == "failed"
    assert "zebra" in failed["reason"]
    assert not failed["right"]
    assert masked["mask_iou"] > 0.4
    assert masked["psnr_outside"] > 30
    text = (tmp_path / "table.md").read_text()
    assert "- zebra: 1 edits failed" in text
    assert "plain regeneration (which failed)" in text


def test_directions_are_made_once_and_change_the_picture(tmp_path: Path, editor: Editor) -> None:
    asked = {"kinds": "colour", "per_kind": 1, "methods": "direct", "steps": 2}
    ways = "world-direction,world-direction+pix2pix-zero"
    found = run(tmp_path, load=lambda: editor, edits=ways, **asked)
    told, led, plain = (r for r in found["rows"] if "edit" in r)
    assert {r["status"] for r in (told, led, plain)} == {"ok"}
    assert len({r["psnr"] for r in (told, led, plain)}) == 3
    assert "a direction is made once" in (tmp_path / "table.md").read_text()
    directions = Directions(editor.backbone)
    one = directions.of(edits()[0], "captions")
    assert directions.of(edits()[0], "captions") is one
    assert one.name == " -> ".join(direction_words(edits()[0])[0])


def test_several_processes_end_as_one(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    made = run(tmp_path, processes=2, load=load_tabletop, **ASKED)
    assert rows_of(made) == rows_of(whole[1])


def test_one_inversion_serves_all_edits_of_a_photo(tmp_path: Path, editor: Editor) -> None:
    from p2p_real.compare.cells import Cells

    ways = read_ways("direct", "p2p,plain")
    bench = Bench(editor, Cells(tmp_path), ways, 3)
    p2p, plain = (r for r in bench.rows(edits()[:1]) if "edit" in r)
    assert p2p["inversion_seconds"] == plain["inversion_seconds"]


def test_photos_inverted_together_are_read_as_alone(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, editor: Editor
) -> None:
    made = run(tmp_path, load=lambda: editor, batch=2, **ASKED)
    for one, other in zip(whole[1]["rows"], made["rows"], strict=True):
        assert one["said"] == other["said"]
        assert one.get("unet_rows") == other.get("unet_rows")
        assert one.get("psnr", 0) == pytest.approx(other.get("psnr", 0), abs=0.01)
