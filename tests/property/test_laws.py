"""What must hold of every edit, whatever the network: reconstruction, idleness, cleanliness."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edit import AttentionStore, BlendWords, ControlStack, FixedMask, NothingActed, edits
from inversion import Cancelled
from p2p_real.editor import Editor
from tests.walks import SMALL, TABLE, Record, Walker, off

STEPS = 4
# A random network amplifies rounding; at this guidance it stays below 1e-5 of the largest value.
GUIDANCE = 2.0


@pytest.fixture(scope="module")
def records(walkers: dict[str, Walker]) -> dict[tuple[str, str], Record]:
    """Inversions made once: every method on two networks, DDIM on all."""

    def invert(kind: str, name: str, **settings: Any) -> Record:
        return walkers[kind].invert(name, steps=STEPS, guidance=GUIDANCE, **settings)

    made = {(k, "ddim"): invert(k, "ddim") for k in walkers}
    for kind in ("epsilon", "tabletop"):
        made[kind, "null-text"] = invert(kind, "null-text", inner_steps=2)
        made[kind, "negative-prompt"] = invert(kind, "negative-prompt")
        made[kind, "direct"] = invert(kind, "direct")
        made[kind, "shared"] = invert(kind, "direct", share=1.0)
    return made


ALL = ("epsilon", "v", "sdxl", "tabletop")
BOTH = ("epsilon", "tabletop")


# Reconstruction -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_same_prompt_is_the_reconstruction(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w = walkers[kind]
    same = (w.prompts[0], w.prompts[0])
    for name in ("ddim", "null-text", "negative-prompt", "shared"):
        if (kind, name) not in records:
            continue
        record = records[kind, name]
        alone = w.walk(record, same[:1])
        for settings in ({}, {"cross_replace": 1.0, "self_replace": 1.0, "self_scale": 1}):
            x = w.walk(record, same, w.controls(same, STEPS, **settings))
            assert off(x[1], x[0]) < 1e-5, name
            assert off(x[1:], alone) < 1e-5, name


def test_direct_without_share_lets_the_target_go(
    walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    """Why ``share=0`` is not under the law above: only the source row is put back on its record.

    The target keeps the error that guidance makes of the DDIM path, as published; under ``share=1``
    it gets the same correction as the source.
    """
    w, record = walkers["epsilon"], records["epsilon", "direct"]
    same = (w.prompts[0], w.prompts[0])
    x = w.walk(record, same, w.controls(same, STEPS))
    assert torch.equal(x[0], record.trajectory[0])
    assert off(x[1], x[0]) > 1e-2


@pytest.mark.parametrize("kind", BOTH)
def test_source_row_is_not_touched_by_the_edit(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers[kind], records[kind, "ddim"]
    alone = w.walk(record, w.prompts[:1])
    x = w.walk(record, w.prompts, w.controls(w.prompts, STEPS))
    assert off(x[:1], alone) < 1e-5
    assert all(off(x[b], x[0]) > 1e-3 for b in range(1, 4))


@pytest.fixture(scope="module")
def inversions(editors: dict[str, Editor], photo: Image.Image) -> dict[str, Any]:
    made = {}
    for kind, editor in editors.items():
        prompt = TABLE[0] if kind == "tabletop" else SMALL[0]
        made[kind] = editor.invert(photo, prompt, method="ddim", steps=STEPS, verify=False)
    return made


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("target", [1, 2, 3])
def test_strength_zero_is_the_reconstruction(
    kind: str, target: int, editors: dict[str, Editor], inversions: dict[str, Any]
) -> None:
    prompts = TABLE if kind == "tabletop" else SMALL
    shared = prompts[target].split()[-1]
    options = {"weight": {shared: 3.0}, "strength": 0.0}
    made = editors[kind].edit(inversions[kind], prompts[target], **options)
    assert made.latents is not None
    assert off(made.latents[1], made.latents[0]) < 1e-5
    difference = np.asarray(made.image, np.int16) - np.asarray(made.reconstruction, np.int16)
    assert abs(difference).max() <= 1  # a value may round to either side


@pytest.mark.parametrize("kind", ALL)
def test_strength_goes_from_nothing_to_the_edit(
    kind: str, editors: dict[str, Editor], inversions: dict[str, Any]
) -> None:
    prompts = TABLE if kind == "tabletop" else SMALL
    editor, inversion = editors[kind], inversions[kind]
    moved = []
    for strength in (0.01, 0.5, 1.0):
        made = editor.edit(inversion, prompts[2], strength=strength)
        assert made.latents is not None
        moved.append(off(made.latents[1], made.latents[0]))
    plain = editor.edit(inversion, prompts[2])
    assert plain.latents is not None
    assert off(plain.latents[1], plain.latents[0]) == moved[-1]
    assert moved[-1] > 1e-2  # the edit acts at all
    assert 0 < moved[0] < 0.1 * moved[-1]  # and does not jump where it begins


# Idleness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_empty_windows_are_plain_sampling(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers[kind], records[kind, "ddim"]
    pair = w.prompts[:2]
    idle = w.controls(pair, STEPS, cross_replace=0.0, self_replace=0.0)
    x = w.walk(record, pair, idle)
    assert torch.equal(x, w.walk(record, pair))
    assert torch.equal(x, w.walk(record, pair, []))
    assert off(x[1:], w.walk(record, pair[1:])) < 1e-4  # another batch size: other rounding


def test_nothing_acted_is_an_error(
    walkers: dict[str, Walker], records: dict[Any, Record], editors: dict[str, Editor],
    inversions: dict[str, Any],
) -> None:  # fmt: skip
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    pair = w.prompts[:2]
    stack = ControlStack(w.controls(pair, STEPS, cross_replace=0.0, self_replace=0.0))
    from inversion import ClassifierFree, sample

    denoiser = w.denoiser(pair, ClassifierFree(7.5))
    sample(denoiser, record.replay(), record.schedule, [stack])
    with pytest.raises(NothingActed, match="no layer was changed"):
        stack.report()
    with pytest.raises(NothingActed):
        editors["epsilon"].edit(
            inversions["epsilon"], SMALL[1], cross_replace=0.0, self_replace=0.0
        )


# The fast path --------------------------------------------------------------------------------

BLEND = BlendWords((("mat",),), subtract=(("fluffy", "fluffy"),), start=0.0, threshold=(0.6, 0.97))
SWAPS = (*SMALL[:2], "a fluffy cat running on a mat", "the fluffy horse sitting in the mat")
ADDITIONS = (SMALL[0], SMALL[2], "a fluffy cat on a mat", "two big fluffy dog on a mat")
WAYS: dict[str, dict[str, Any]] = {
    "replace": {"mode": "replace"},
    "refine": {"mode": "refine"},
    "auto": {"mode": "auto"},
    "reweight": {"mode": "none", "weights": (("mat", 3.0),)},
    "refine and reweight": {"mode": "refine", "weights": (("fluffy", -2.0), ("mat", 0.0))},
    "word windows": {"word_windows": (("mat", 0.25, 0.75), ("a", 0.5, 1.0))},
    "late start": {"cross_start": 0.25, "cross_replace": 0.75, "self_start": 0.5},
    "all self": {"self_replace": 1.0, "self_scale": 1},
    "self by pixels": {"self_replace": 1.0, "self_max_pixels": 64},
    "compat": {"mode": "replace", "compat": True},
    "compat refine": {"mode": "refine", "compat": True, "weights": (("mat", 2.0),)},
    "blend": {"blend": BLEND},
    "blend and reweight": {"blend": BLEND, "weights": (("mat", 2.0),)},
    "mask": {"extra": (FixedMask(torch.eye(16)[None, None]),)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("targets", [1, 2, 3])
def test_fast_path_is_the_explicit_one(
    way: str, targets: int, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    settings = dict(WAYS[way])
    words = settings.get("mode") == "replace" or settings.get("compat")
    prompts = (SWAPS if words else ADDITIONS)[: targets + 1]
    settings = {"self_replace": 0.5} | settings
    runs = []
    for explicit in (False, True):
        controls = w.controls(prompts, STEPS, **settings)
        runs.append(w.walk(record, prompts, controls, explicit=explicit))
        if "blend" in settings:
            share = controls[-1].mask[1:].mean((1, 2, 3))
            assert ((share > 0) & (share < 1)).all(), share  # a blend that does something
    assert off(*runs) < 1e-5
    plain = w.walk(record, prompts)
    assert off(runs[0], plain) > 1e-3  # and the control does something


@pytest.mark.parametrize("kind", ["v", "sdxl", "tabletop"])
def test_fast_path_is_the_explicit_one_on_other_networks(
    kind: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    # two steps: each lays the rounding of the rows together, and guidance makes it grow
    w, steps = walkers[kind], 2
    record = w.invert("ddim", steps=steps, guidance=GUIDANCE)
    word = w.prompts[0].split()[-1]
    blend = BlendWords(((word,),), start=0.0, threshold=(0.5, 0.5))
    for settings in ({"weights": ((word, 2.0),)}, {"blend": blend}):
        pair = (w.prompts[0], w.prompts[2])
        runs = [
            w.walk(record, pair, w.controls(pair, steps, **settings), explicit=explicit)
            for explicit in (False, True)
        ]
        assert off(*runs) < 1e-5
        assert off(runs[0][1], w.walk(record, pair)[1]) > 1e-3


def test_a_store_only_looks(walkers: dict[str, Walker], records: dict[Any, Record]) -> None:
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    pair = w.prompts[:2]
    plain = w.walk(record, pair, w.controls(pair, STEPS))
    store = AttentionStore()
    seen = w.walk(record, pair, w.controls(pair, STEPS, extra=(store,)))
    assert off(seen, plain) < 1e-5
    for mean in store.average().values():
        torch.testing.assert_close(mean.sum(-1), torch.ones(mean.shape[:-1]), rtol=0, atol=1e-4)
    # inside the window a swapped word's map is the source's
    for site, mean in store.average().items():
        assert mean.shape[0] == 2, site


def test_local_blend_keeps_the_source_outside(
    walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers["epsilon"], records["epsilon", "direct"]
    pair = w.prompts[:2]
    blend = BlendWords((("cat", "dog"),), start=0.0, threshold=(0.6, 0.6))
    controls = w.controls(pair, STEPS, blend=blend)
    x = w.walk(record, pair, controls)
    mask = controls[-1].mask[1, 0].bool()
    assert 0 < mask.float().mean() < 1
    assert torch.equal(x[1][:, ~mask], x[0][:, ~mask])
    assert not torch.equal(x[1][:, mask], x[0][:, mask])


# Rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["direct", "negative-prompt"])
def test_rows_left_out_change_nothing(
    kind: str, name: str, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers[kind], records[kind, name]
    prompts = w.prompts[:3]
    blend = BlendWords(((w.prompts[0].split()[-1],),), start=0.0)
    for settings in ({}, {"cross_replace": 0.5, "self_replace": 0.25}, {"blend": blend}):
        counts: list[int] = []
        runs = [
            w.walk(
                record,
                prompts,
                w.controls(prompts, STEPS, **settings),
                all_rows=all_rows,
                counts=counts,
            )
            for all_rows in (False, True)
        ]
        assert off(*runs) < 1e-5
        assert counts[1] == 6 * STEPS
        expected = 5 * STEPS
        if name == "direct" and "blend" not in settings:  # the source is read in the windows only
            expected -= round((1 - settings.get("cross_replace", 0.75)) * STEPS)
        assert counts[0] == expected


# Cleanliness ----------------------------------------------------------------------------------


def processors(w: Walker) -> dict[str, Any]:
    return dict(w.backbone.unet.attn_processors)


@pytest.mark.parametrize("error", [None, Cancelled, RuntimeError, KeyboardInterrupt])
def test_processors_come_back(
    error: type[BaseException] | None, walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    before, seen = processors(w), []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        seen.append(type(next(iter(processors(w).values()))).__name__)
        if error is not None and done == 2:
            raise error("stop")

    controls = w.controls(SMALL[:2], STEPS, self_scale=1)
    if error is None:
        w.walk(record, SMALL[:2], controls, progress=progress)
    else:
        with pytest.raises(error):
            w.walk(record, SMALL[:2], controls, progress=progress)
    assert set(seen) == {"Controlled"}
    after = processors(w)
    assert before.keys() == after.keys()
    assert all(after[k] is before[k] for k in before)


def test_processors_come_back_when_a_control_cannot_begin(walkers: dict[str, Walker]) -> None:
    w = walkers["epsilon"]

    class Broken(AttentionStore):
        def begin(self, denoiser: Any) -> None:
            raise RuntimeError("cannot begin")

    before = processors(w)
    with pytest.raises(RuntimeError, match="cannot begin"):
        w.walk(w.invert("ddim", steps=1), SMALL[:2], [Broken()])
    after = processors(w)
    assert all(after[k] is before[k] for k in before)


@pytest.mark.parametrize("kind", ALL)
def test_the_pipeline_draws_the_same_before_and_after(
    kind: str, walkers: dict[str, Walker], editors: dict[str, Editor], inversions: dict[str, Any]
) -> None:
    w = walkers[kind]
    pipeline = w.backbone.pipeline()

    def draw() -> Any:
        return pipeline(
            w.prompts[0],
            num_inference_steps=2,
            height=w.pixels[0],
            width=w.pixels[1],
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images

    before = draw()
    editors[kind].edit(inversions[kind], w.prompts[1])
    with pytest.raises(NothingActed):
        editors[kind].edit(inversions[kind], w.prompts[1], cross_replace=0.0, self_replace=0.0)
    assert np.array_equal(before, draw())


def live() -> tuple[int, int]:
    """Number and bytes of the tensors that are alive."""
    gc.collect()
    found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return len(found), sum(t.element_size() * t.nelement() for t in found)


def resident() -> int:
    if not Path("/proc/self/statm").exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_fifty_edits_do_not_grow(editors: dict[str, Editor], photo: Image.Image) -> None:
    editor = editors["epsilon"]
    inversion = editor.invert(photo, SMALL[0], method="ddim", steps=2, verify=False)

    def edit(i: int) -> None:
        local = {"local": "mat", "local_start": 0.0, "local_threshold": 0.1} if i % 2 else {}
        editor.edit(inversion, SMALL[1 + i % 2], cross_replace=1.0, **local)

    for i in range(6):
        edit(i)
    before, memory = live(), resident()
    for i in range(50):
        edit(i)
    assert live() == before
    assert resident() - memory < 40 * 2**20


def test_two_stacks_do_not_interfere(
    walkers: dict[str, Walker], records: dict[Any, Record]
) -> None:
    """Photos interleave: nothing of one walk is left for the next."""
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    pair = w.prompts[:2]
    other = w.invert("ddim", steps=STEPS, seed=9)
    controls = w.controls(pair, STEPS, blend=BlendWords((("cat", "dog"),), start=0.0))
    first = w.walk(record, pair, controls)
    w.walk(other, pair, controls)
    assert torch.equal(w.walk(record, pair, controls), first)


def test_plain_is_the_prompt_alone(walkers: dict[str, Walker], records: dict[Any, Record]) -> None:
    w, record = walkers["epsilon"], records["epsilon", "ddim"]
    pair = w.prompts[:2]
    assert w.controls(pair, STEPS, edit="plain") == ()
    assert torch.equal(w.walk(record, pair, ()), w.walk(record, pair))
    assert "plain" in list(edits)
