"""Which half, which layers, which words: the finer control of prompt-to-prompt."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from edit import ControlStack, NothingActed
from inversion import ClassifierFree, sample
from inversion.denoiser import COND, UNCOND, Layout
from inversion.registry import SettingError
from p2p_real.backbones import load_backbone
from tests.small import small_sd, small_sdxl
from tests.walks import Record, Walker, off

PROMPTS = ("a red cat on a mat", "a blue dog on a mat")
STEPS = 4


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def walker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Walker:
    make = {"sd": small_sd, "sdxl": small_sdxl}[request.param]
    folder = make(Path(tmp_path_factory.mktemp(request.param)) / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS)


@pytest.fixture(scope="module")
def record(walker: Walker) -> Record:
    return walker.invert("direct", steps=STEPS, guidance=2.0, share=1.0)


@pytest.mark.parametrize("branch", ["self", "self+cross"])
def test_the_noise_branch_by_maps_and_without(branch: str, walker: Walker, record: Record) -> None:
    # over all steps: in the first one both rows have the same latents
    whole = {"self_scale": 1, "self_replace": 1.0, "cross_replace": 1.0}
    controls = walker.controls(PROMPTS, STEPS, noise_branch=branch, **whole)
    fast = walker.walk(record, PROMPTS, controls)
    assert off(fast, walker.walk(record, PROMPTS, controls, explicit=True)) < 1e-5
    without = walker.walk(record, PROMPTS, walker.controls(PROMPTS, STEPS, **whole))
    assert off(fast[1], without[1]) > 1e-3
    assert torch.equal(fast[0], without[0])


def test_the_noise_branch_of_the_photos_own_prompt_is_the_photo(
    walker: Walker, record: Record
) -> None:
    same = (PROMPTS[0], PROMPTS[0])
    controls = walker.controls(same, STEPS, noise_branch="self+cross")
    x = walker.walk(record, same, controls)
    assert off(x[1], x[0]) < 1e-5


def test_the_noise_branch_asks_for_its_row_only_while_it_acts(walker: Walker) -> None:
    pinned = walker.invert("direct", steps=STEPS, guidance=2.0)

    def rows(**settings: object) -> int:
        counts: list[int] = []
        controls = walker.controls(PROMPTS, STEPS, self_replace=0.5, **settings)
        walker.walk(pinned, PROMPTS, controls, counts=counts)
        return counts[0]

    half = STEPS // 2  # steps in which self-attention is replaced
    assert rows(noise_branch="self") - rows() == half
    assert rows(noise_branch="self+cross", cross_replace=1.0) - rows(cross_replace=1.0) == STEPS


def test_with_all_injected_both_halves_see_alike(walker: Walker) -> None:
    """One call at the same latents: the unconditional rows come out equal in any case, and with
    the noise branch also where the latents differ, if all that is not attention is left out."""
    denoiser = walker.denoiser(PROMPTS, ClassifierFree(2.0))
    controls = walker.controls(
        PROMPTS, 1, noise_branch="self+cross", self_scale=1, self_replace=1.0, cross_replace=1.0
    )
    seen: list[tuple[int, ...]] = []
    for control in controls:
        plain = control.rows

        def watched(call: object, plain: object = plain) -> object:
            swap = plain(call)  # type: ignore[operator]
            if swap is not None:
                seen.append(tuple(swap.q))
            return swap

        control.rows = watched  # type: ignore[method-assign]
    stack = ControlStack(controls)
    replay = walker.invert("direct", steps=1, guidance=2.0, share=1.0).replay()
    sample(denoiser, replay, walker.backbone.schedule(1), [stack])
    layout = Layout.full(2)
    wanted = [layout.index(half, 0) for half in (UNCOND, COND) for _ in range(2)]
    assert seen
    assert all(list(one) == wanted for one in seen)


@pytest.mark.parametrize("what", ["cross", "self"])
def test_places_share_out_the_layers(what: str, walker: Walker, record: Record) -> None:
    def layers(text: str) -> int:
        controls = walker.controls(PROMPTS, STEPS, self_scale=1, **{f"{what}_places": text})
        denoiser = walker.denoiser(PROMPTS, ClassifierFree(2.0))
        stack = ControlStack(controls)
        sample(denoiser, record.replay(), record.schedule, [stack])
        row = next(r for r in stack.report() if r["control"] == f"{what}-attention")
        return sum(row["layers_hooked"].values())

    parts = ("down", "mid", "up")
    assert sum(layers(part) for part in parts) == layers("all") > layers("mid") > 0
    assert layers("down+up") == layers("all") - layers("mid")


def test_no_place_is_no_control(walker: Walker, record: Record) -> None:
    none = walker.controls(PROMPTS, STEPS, cross_places="up/64", self_places="up/64")
    assert torch.equal(walker.walk(record, PROMPTS, none), walker.walk(record, PROMPTS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"self_places": "left"}, "self_places='left'"),
        ({"cross_places": "up/"}, "cross_places='up/'"),
        ({"noise_branch": "self", "self_replace": 0.0}, "acts while self_replace does"),
        ({"noise_branch": "on"}, "not one of off, self, self"),
    ],
)
def test_what_cannot_be_read(settings: dict[str, object], message: str, walker: Walker) -> None:
    with pytest.raises(SettingError, match=message):
        walker.controls(PROMPTS, STEPS, **settings)


def test_the_noise_branch_needs_an_unconditional_half(walker: Walker) -> None:
    record = walker.invert("direct", steps=STEPS, guidance=1.0)
    with pytest.raises(NothingActed, match="guidance 1"):
        walker.walk(record, PROMPTS, walker.controls(PROMPTS, STEPS, noise_branch="self"))


def test_windows_have_a_start(walker: Walker, record: Record) -> None:
    """Halves of a window that follow each other act as the whole does, step by step."""

    def steps(low: float, high: float) -> list[int]:
        controls = walker.controls(
            PROMPTS, STEPS, cross_start=low, cross_replace=high, self_start=low, self_replace=high
        )
        stack = ControlStack(controls)
        denoiser = walker.denoiser(PROMPTS, ClassifierFree(2.0))
        sample(denoiser, record.replay(), record.schedule, [stack])
        rows = [r["steps_injected"] for r in stack.report()]
        assert rows[0] == rows[1]
        return list(rows[0])

    quarter = [steps(low, low + 0.25) for low in (0.0, 0.25, 0.5, 0.75)]
    assert list(itertools.chain(*quarter)) == steps(0.0, 1.0) == list(range(STEPS))
