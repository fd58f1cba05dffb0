"""The attention processor: where it stands, what it computes, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edit import AttentionStore, Control, ControlStack, NothingActed, sites_of
from edit.control import ColumnEdit, RowSwap, attend, attend_with_maps
from inversion import ClassifierFree, sample
from p2p_real.backbones import load_backbone
from tests.small import small_sd
from tests.walks import Walker, off

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat")
SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
}


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("attention") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS)


# Where it stands ------------------------------------------------------------------------------


def counted(shape: dict[str, Any]) -> dict[tuple[str, bool, int], int]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**shape)
    sites = sites_of(unet)
    assert set(sites) == set(unet.attn_processors)
    found: dict[tuple[str, bool, int], int] = {}
    for site in sites.values():
        key = (site.place, site.cross, site.scale)
        found[key] = found.get(key, 0) + 1
    for cross in (False, True):
        numbers = [s.index for s in sites.values() if s.cross == cross]
        assert numbers == list(range(len(numbers)))
    return found


def test_sites_of_stable_diffusion() -> None:
    expected = {("down", 1): 2, ("down", 2): 2, ("down", 4): 2, ("mid", 8): 1}
    expected |= {("up", 4): 3, ("up", 2): 3, ("up", 1): 3}
    both = {(place, cross, s): n for (place, s), n in expected.items() for cross in (False, True)}
    assert counted(SD) == both
    assert sum(both.values()) == 32


def test_sites_of_sdxl() -> None:
    expected = {("down", 2): 4, ("down", 4): 20, ("mid", 4): 10, ("up", 4): 30, ("up", 2): 6}
    both = {(place, cross, s): n for (place, s), n in expected.items() for cross in (False, True)}
    assert counted(SDXL) == both
    assert sum(both.values()) == 140


class Watch(Control):
    """Sees every call of every layer; changes nothing."""

    label = "watch"

    def __init__(self, maps: bool = True) -> None:
        self.maps, self.calls = maps, []  # type: ignore[var-annotated]

    def watches(self, site: Any) -> bool:
        return True

    def wants_maps(self, call: Any) -> bool:
        return self.maps

    def probs(self, p: Tensor, call: Any) -> Tensor:
        self.calls.append((call, p))
        return p


@pytest.mark.parametrize("size", [(16, 16), (9, 17), (5, 30), (1, 1)])
def test_calls_come_in_order_with_their_sizes(walker: Walker, size: tuple[int, int]) -> None:
    w = Walker(walker.backbone, PROMPTS, size)
    watch = Watch()
    w.walk(w.invert("ddim", steps=1), PROMPTS, [watch])
    sites = list(sites_of(w.backbone.unet).values())
    assert [call.site for call, _ in watch.calls] == sites
    for call, p in watch.calls:
        scale = call.site.scale
        assert call.size == (-(-size[0] // scale), -(-size[1] // scale))
        places = call.size[0] * call.size[1]
        assert p.shape == (4, 2, places, 77 if call.site.cross else places)
        torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1]))
        assert call.layout.rows == (("uncond", 0), ("uncond", 1), ("cond", 0), ("cond", 1))
        assert (call.step.index, call.step.count) == (0, 1)


# What it computes -----------------------------------------------------------------------------


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def some_edits(targets: int, keeps: tuple[bool, ...], size: int = 7) -> list[ColumnEdit]:
    made = []
    for g in range(targets):
        own = draw(size, seed=50 + g) * keeps[g % len(keeps)]
        taken = draw(size, size, seed=70 + g)
        made.append(ColumnEdit(2 * targets + 1 - g, targets + 1, taken, own, keeps[g % len(keeps)]))
    return made


@pytest.mark.parametrize("keeps", [(True,), (False,), (True, False), (False, True)])
@pytest.mark.parametrize("targets", [1, 2, 3])
def test_column_edits_need_no_map(targets: int, keeps: tuple[bool, ...]) -> None:
    """In float64 the two ways agree to rounding, for any matrix and any share that stays."""
    rows = 2 * (targets + 1)
    q, k, v = draw(rows, 3, 11, 4, seed=1), draw(rows, 3, 7, 4, seed=2), draw(rows, 3, 7, 4, seed=3)
    before = [t.clone() for t in (q, k, v)]
    changes = some_edits(targets, keeps)
    fast = attend(q, k, v, changes)
    slow = attend_with_maps(q, k, v, changes, [])
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v), strict=True))
    # by hand, from the definition
    maps = torch.softmax(q @ k.transpose(-1, -2) / 2, dim=-1)
    for e in changes:
        p = maps[e.source] @ e.taken + maps[e.row] * e.own
        torch.testing.assert_close(fast[e.row], p @ v[e.row], rtol=0, atol=1e-12)
    edited = {e.row for e in changes}
    plain = attend(q, k, v, [])
    for r in set(range(rows)) - edited:
        torch.testing.assert_close(fast[r], plain[r], rtol=0, atol=1e-12)


def test_maps_are_seen_after_the_edits() -> None:
    q, k, v = draw(4, 1, 5, 2, seed=1), draw(4, 1, 7, 2, seed=2), draw(4, 1, 7, 2, seed=3)
    edit = ColumnEdit(3, 2, torch.eye(7, dtype=torch.float64), torch.zeros(7), False)
    watch = Watch()
    attend_with_maps(q, k, v, [edit], [(watch, None)])  # type: ignore[list-item]
    (_, p), *_ = watch.calls
    assert torch.equal(p[3], p[2])


def test_a_control_that_only_watches_changes_nothing(walker: Walker) -> None:
    """The processor's own arithmetic is that of the processor it stands in for."""
    record = walker.invert("ddim", steps=2)
    plain = walker.walk(record, PROMPTS)
    for maps in (False, True):
        assert off(walker.walk(record, PROMPTS, [Watch(maps)]), plain) < 1e-4


def test_swapped_rows(walker: Walker) -> None:
    """Queries, keys and values of the source everywhere make the target the source."""

    class Copy(Watch):
        def rows(self, call: Any) -> RowSwap:
            index = [0, 0, 2, 2]
            return RowSwap(q=index, k=index, v=index)

    record = walker.invert("ddim", steps=1)
    x = walker.walk(record, (PROMPTS[0], PROMPTS[1]), [Copy(maps=False)])
    assert off(x[1], x[0]) < 1e-5
    assert off(walker.walk(record, PROMPTS)[1], x[1]) > 1e-3


class NoMaps(TorchDispatchMode):
    """Fails where a tensor with a map's last two sides is made."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.found = side, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, Tensor) and t.ndim > 2 and tuple(t.shape[-2:]) == (self.side,) * 2:
                self.found += 1
        return out


def test_the_fast_path_makes_no_self_attention_map(walker: Walker) -> None:
    record = walker.invert("ddim", steps=2)
    for explicit, expected in ((False, False), (True, True)):
        controls = walker.controls(PROMPTS, 2, self_scale=1, self_replace=1.0, cross_replace=1.0)
        with NoMaps(16 * 16) as watch:
            walker.walk(record, PROMPTS, controls, explicit=explicit)
        assert bool(watch.found) == expected


# What it leaves and says ----------------------------------------------------------------------


def test_foreign_processors_are_refused(walker: Walker) -> None:
    unet = walker.backbone.unet
    record = walker.invert("ddim", steps=1)
    before = dict(unet.attn_processors)

    class Foreign:
        def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return hidden_states

    name = next(n for n in before if "attn2" in n)
    try:
        unet.set_attn_processor(before | {name: Foreign()})
        with pytest.raises(ValueError, match=r"Foreign, which cannot be controlled"):
            walker.walk(record, PROMPTS, [Watch()])
        assert isinstance(unet.attn_processors[name], Foreign)
    finally:
        unet.set_attn_processor(dict(before))


def test_report(walker: Walker) -> None:
    record = walker.invert("ddim", steps=4)
    controls = [
        *walker.controls(PROMPTS, 4, cross_replace=0.5, self_replace=0.25),
        AttentionStore(),
    ]
    stack = ControlStack(controls)
    denoiser = walker.denoiser(PROMPTS, ClassifierFree(2.0))
    sample(denoiser, record.replay(), record.schedule, [stack])
    cross, own, store = stack.report()
    assert cross["control"] == "cross-attention"
    assert cross["steps_injected"] == [0, 1]
    assert own["steps_injected"] == [0]
    assert store["steps_injected"] == [0, 1, 2, 3]
    assert set(own["layers_hooked"]) == {"self down 1/2", "self up 1/2", "self mid 1/4"}
    sites = sites_of(walker.backbone.unet).values()
    assert cross["calls"] == 2 * sum(s.cross for s in sites)
    assert sum(cross["layers_hooked"].values()) == sum(s.cross for s in sites)


def test_a_control_that_never_acts_is_an_error(walker: Walker) -> None:
    class Asleep(Watch):
        def active(self, step: Any) -> bool:
            return False

    record = walker.invert("ddim", steps=1)
    stack = ControlStack([Asleep()])
    denoiser = walker.denoiser(PROMPTS, ClassifierFree(2.0))
    idle = sample(denoiser, record.replay(), record.schedule, [stack])
    assert torch.equal(idle, sample(denoiser, record.replay(), record.schedule))
    with pytest.raises(NothingActed, match="watch: no layer was changed"):
        stack.report()


def test_a_stack_may_walk_again(walker: Walker) -> None:
    record = walker.invert("ddim", steps=2)
    stack = ControlStack(walker.controls(PROMPTS, 2))
    denoiser = walker.denoiser(PROMPTS, ClassifierFree(2.0))
    runs = []
    for _ in range(2):
        runs.append(sample(denoiser, record.replay(), record.schedule, [stack]))
        runs.append(torch.tensor([row["calls"] for row in stack.report()]))
    assert torch.equal(runs[0], runs[2])
    assert torch.equal(runs[1], runs[3])
