"""What must hold of plug-and-play, MasaCtrl and Attend-and-Excite, whatever the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from edit import NothingActed
from edit.words import WordNotFound
from p2p_real.editor import Editor
from p2p_real.prompts import PromptError
from tests.walks import SMALL, Record, Walker, left_behind, off

STEPS = 3
GUIDANCE = 1.5  # a random network amplifies rounding; here it stays below 1e-5
NETWORKS = ("epsilon", "sdxl")
READERS = ("pnp", "masactrl")


@pytest.fixture(scope="module")
def records(walkers: dict[str, Walker]) -> dict[tuple[str, str], Record]:
    def invert(kind: str, name: str, **settings: Any) -> Record:
        return walkers[kind].invert(name, steps=STEPS, guidance=GUIDANCE, **settings)

    kinds = (*NETWORKS, "tabletop")
    made = {(k, "shared"): invert(k, "direct", share=1.0) for k in kinds}
    made |= {(k, "ddim"): invert(k, "ddim") for k in NETWORKS}
    made["epsilon", "direct"] = invert("epsilon", "direct")
    made["epsilon", "negative-prompt"] = invert("epsilon", "negative-prompt")
    return made


def together(w: Walker, prompts: tuple[str, ...], edit: str, steps: int = STEPS) -> tuple[Any, ...]:
    """Controls of a method alone ("pnp") or beside prompt-to-prompt ("p2p,pnp")."""
    *first, last = edit.split(",")
    controls = w.controls(prompts, steps, edit=last)
    return w.controls(prompts, steps, extra=controls) if first else controls


@pytest.mark.parametrize("kind", [*NETWORKS, "tabletop"])
@pytest.mark.parametrize("edit", [*READERS, "p2p,pnp"])
def test_same_prompt_is_the_reconstruction(
    kind: str, edit: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w = walkers[kind]
    same = (w.prompts[0], w.prompts[0])
    for name in ("shared", "ddim", "negative-prompt"):
        if (kind, name) in records:
            record = records[kind, name]
            x = w.walk(record, same, together(w, same, edit))
            assert off(x[1], x[0]) < 1e-5, name
            assert off(x[1:], w.walk(record, same[:1])) < 1e-5, name


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("edit", [*READERS, "p2p,pnp"])
def test_targets_change_and_the_source_does_not(
    kind: str, edit: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers[kind], records[kind, "ddim"]
    plain = w.walk(record, w.prompts)
    x = w.walk(record, w.prompts, together(w, w.prompts, edit))
    assert off(x[:1], plain[:1]) < 1e-5
    for b in range(1, 4):
        assert off(x[b], x[0]) > 1e-3
        assert off(x[b], plain[b]) > 1e-3


@pytest.mark.parametrize("kind", NETWORKS)
def test_more_of_the_photo_is_nearer_to_it(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers[kind], records[kind, "ddim"]
    pair = w.prompts[:2]
    everything = {
        "feature_stop": 1.0, "attention_stop": 1.0, "features": "all", "layers": "all"
    }  # fmt: skip
    far = w.walk(record, pair)
    near = w.walk(record, pair, w.controls(pair, STEPS, edit="pnp", **everything))
    assert (near[1] - near[0]).norm() < 0.8 * (far[1] - far[0]).norm()


@pytest.mark.parametrize("size", [(16, 16), (9, 17)])
@pytest.mark.parametrize("edit", [*READERS, "p2p,pnp"])
def test_fast_path_is_the_explicit_one_like_sdxl(
    edit: str, size: tuple[int, int], walkers: dict[str, Walker]
) -> None:
    w = Walker(walkers["sdxl"].backbone, walkers["sdxl"].prompts, size)
    record = w.invert("ddim", steps=2, guidance=GUIDANCE)
    three = w.prompts[:3]
    runs = [
        w.walk(record, three, together(w, three, edit, steps=2), explicit=explicit)
        for explicit in (False, True)
    ]
    assert off(*runs) < 1e-5
    assert off(runs[0][1:], w.walk(record, three)[1:]) > 1e-3


def test_words_and_features_do_not_wait_for_each_other(
    walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    pair = w.prompts[:2]
    words, features = w.controls(pair, STEPS), w.controls(pair, STEPS, edit="pnp")
    runs = [w.walk(record, pair, c) for c in ((*words, *features), (*features, *words))]
    assert off(*runs) < 1e-5
    assert all(off(runs[0], w.walk(record, pair, c)) > 1e-3 for c in (words, features))


# Attend-and-Excite ----------------------------------------------------------------------------


def excite(w: Walker, prompts: tuple[str, ...], word: str, **settings: Any) -> tuple[Any, ...]:
    settings = {"thresholds": "0:0.9", "refinements": 2, "until": 0.5} | settings
    return w.controls(prompts, STEPS, edit="attend-excite", words=(word,), **settings)


@pytest.mark.parametrize("kind", NETWORKS)
def test_excited_words_are_seen_more(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers[kind], records[kind, "ddim"]
    controls = excite(w, w.prompts[:2], "dog", refinements=8)
    plain = w.walk(record, w.prompts[:2])
    x = w.walk(record, w.prompts[:2], controls)
    assert torch.equal(x[0], plain[0]) or off(x[0], plain[0]) < 1e-5
    assert off(x[1], plain[1]) > 1e-3
    (told,) = controls[0].report()["excited"]
    first = told["loss_by_step"][0]
    assert first["loss_refined"] < first["loss"]
    assert first["refinements"] > 0
    assert told["updates"] == told["refinements"] + 1  # and one before the first step


@pytest.mark.parametrize("kind", NETWORKS)
def test_excite_beside_p2p(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    """The look at the words is under the target's text alone: prompt-to-prompt is not in it."""
    w, record = walkers[kind], records[kind, "ddim"]
    pair = w.prompts[:2]
    looks = []
    for extra in ((), w.controls(pair, STEPS)):
        controls = excite(w, pair, "dog", until=0.0)
        x = w.walk(record, pair, (*extra, *controls))
        looks.append(controls[0].logs[0].looks)
        assert off(x[1], w.walk(record, pair, extra)[1]) > 1e-4
    assert len(looks[0]) == len(looks[1])
    assert all(torch.equal(a, b) for a, b in zip(*looks, strict=True))


def test_excite_on_paths_that_leave_rows_out(
    walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, pair = walkers["epsilon"], SMALL[:2]
    for name in ("direct", "negative-prompt"):
        record = records["epsilon", name]
        x = w.walk(record, pair, excite(w, pair, "dog"))
        assert off(x[:1], w.walk(record, pair[:1])) < 1e-5
        assert off(x[1], w.walk(record, pair)[1]) > 1e-3


# Cleanliness ----------------------------------------------------------------------------------


def test_removed_when_the_network_fails_inside(
    walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    before = left_behind(w)

    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("out of memory")

    for edit in (*READERS, "attend-excite"):
        controls = (
            excite(w, SMALL[:2], "dog")
            if edit == "attend-excite"
            else w.controls(SMALL[:2], STEPS, edit=edit)
        )
        handle = w.backbone.unet.up_blocks[0].register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="out of memory"):
                w.walk(record, SMALL[:2], controls)
        finally:
            handle.remove()
        assert left_behind(w) == before


# Through the editor ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def editor(editors: dict[str, Editor]) -> Editor:
    return editors["epsilon"]


@pytest.fixture(scope="module")
def inversion(editor: Editor, photo: Image.Image) -> Any:
    options = {"method": "ddim", "guidance_scale": GUIDANCE}
    return editor.invert(photo, SMALL[0], steps=STEPS, verify=False, **options)


QUICK = {"thresholds": "none"}
WAYS: dict[str, dict[str, Any]] = {
    "pnp": {"edit": ("pnp",)},
    "masactrl": {"edit": ("masactrl",)},
    "both": {"edit": ("p2p", "pnp")},
    "excite": {"excite": ("dog",), "edit_options": QUICK},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]


def test_strength_goes_from_the_reconstruction_to_the_edit(
    way: dict[str, Any], editor: Editor, inversion: Any
) -> None:
    moved = []
    for strength in (0.0, 0.05, 1.0):
        x = editor.edit(inversion, SMALL[1], strength=strength, **way).latents
        assert x is not None
        moved.append(off(x[1], x[0]))
    assert moved[0] < 1e-5
    assert 0 < moved[1] < 0.5 * moved[2]
    assert moved[2] > 1e-2


def test_the_report_says_what_acted(editor: Editor, inversion: Any) -> None:
    report = editor.edit(
        inversion, SMALL[1], edit=("p2p", "pnp"), excite="dog", edit_options=QUICK
    ).report
    labels = [row["control"] for row in report["controls"]]
    assert labels == [
        "cross-attention", "self-attention", "features", "pnp self-attention", "attend-and-excite"
    ]  # fmt: skip
    assert report["controls"][2]["layers_hooked"] == {"features up 1/2": 1}
    assert report["edit_settings"]["attend-excite"]["words"] == ("dog",)
    with pytest.raises(WordNotFound, match="no word 'horse'"):
        editor.edit(inversion, SMALL[1], excite="horse")
    options = {"until": 0.0, "thresholds": "none"}
    with pytest.raises(NothingActed, match="raise until, step_size or thresholds"):
        editor.edit(inversion, SMALL[1], excite="dog", edit_options=options)


def test_a_picture_drawn_with_excited_words(editor: Editor) -> None:
    plain = editor.generate("a cat and a dog", steps=STEPS, seed=3)
    excited = editor.generate(
        "a cat and a dog", steps=STEPS, seed=3, excite=("cat", "dog"), edit_options=QUICK
    )
    assert plain.latents is not None
    assert excited.latents is not None
    assert off(excited.latents[:1], plain.latents) < 1e-4
    assert off(excited.latents[1:], plain.latents) > 1e-3
    assert [row["control"] for row in excited.report["controls"]] == ["attend-and-excite"]
    assert list(excited.report["edit_settings"]) == ["attend-excite"]


def test_a_photo_that_is_to_show_a_word_of_its_own_prompt(editor: Editor, photo: Any) -> None:
    """No word changes, and under one guidance for both nothing else moves the target."""
    options = {"method": "direct", "guidance_scale": GUIDANCE, "method_options": {"share": 1.0}}
    asked = {"source": SMALL[0], "steps": STEPS, "edit_options": QUICK, **options}
    made = editor.edit(photo, excite="cat", **asked)
    assert made.latents is not None
    assert made.report["source"] == made.report["target"] == SMALL[0]
    assert [row["control"] for row in made.report["controls"]] == ["attend-and-excite"]
    assert off(made.latents[1], made.latents[0]) > 1e-3
    with pytest.raises(PromptError, match="no edit asked for"):
        editor.edit(photo, **asked)
    with pytest.raises(WordNotFound, match="no word 'bird'"):
        editor.edit(photo, excite="bird", **asked)
