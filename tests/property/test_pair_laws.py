"""What must hold of each edit and of each pair of edits, local blend among them.

The pairs are made from the registry, so a new method is held to these laws at once; what cannot
hold of a method is named in ``EXCEPT``, with the reason.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from edit import BlendWords, ControlStack, edits, make_plan
from inversion import ClassifierFree, sample
from inversion.sampling import FromNoise
from p2p_real.bench.plainly import sampling_loop
from p2p_real.editor import Editor
from p2p_real.moving import MOVE
from p2p_real.numbers import OptionError
from tests.walks import SMALL, Record, Walker, left_behind, off

STEPS = 2
GUIDANCE = 1.5  # a random network amplifies rounding; here it stays below 1e-5
PAIR = SMALL[:2]
LOCAL = "local"
METHODS = [name for name in edits if name not in ("plain", MOVE)]
WAYS = [*((one,) for one in (*METHODS, LOCAL)), *combinations((*METHODS, LOCAL), 2)]
WAYS.remove((LOCAL,))  # it blends an edit, and is none itself
SETTINGS: dict[str, dict[str, Any]] = {  # without which they would have nothing to do here
    "attend-excite": {"tokens": (3,), "thresholds": "none"},
    "masactrl": {"start": 0.0},
    "pix2pix-zero": {"guidance_amount": 0.5},
}
FULL: dict[str, dict[str, Any]] = {  # everything of the photo, until the end
    "p2p": {
        "cross_replace": 1.0,
        "self_replace": 1.0,
        "self_scale": 1,
        "noise_branch": "self+cross",
    },
    "pnp": {"feature_stop": 1.0, "attention_stop": 1.0, "features": "all", "layers": "all"},
    "masactrl": {"start": 0.0, "layers": "all"},
}
EXCEPT = {
    "attend-excite": "it moves the latents until a word is seen, whether or not words change",
}
BLEND = BlendWords((("mat",),), start=0.0, threshold=(0.6, 0.6))


def named(way: tuple[str, ...]) -> str:
    return "+".join(way)


ways = pytest.mark.parametrize("way", WAYS, ids=named)


@pytest.fixture(scope="module")
def w(walkers: dict[str, Walker]) -> Walker:
    return walkers["epsilon"]


@pytest.fixture(scope="module")
def record(w: Walker) -> Record:
    return w.invert("ddim", steps=STEPS, guidance=GUIDANCE)


@pytest.fixture(scope="module")
def plain(w: Walker, record: Record) -> Tensor:
    return w.walk(record, PAIR)


@pytest.fixture(scope="module")
def made(w: Walker, record: Record) -> dict[tuple[str, ...], Tensor]:
    """The pair by each way."""
    return {way: w.walk(record, PAIR, controls(w, PAIR, way)) for way in WAYS}


def controls(
    w: Walker,
    prompts: tuple[str, ...],
    way: tuple[str, ...],
    settings: dict[str, dict[str, Any]] = SETTINGS,
) -> tuple[Any, ...]:
    methods = [edits.create(name, **settings.get(name, {})) for name in way if name != LOCAL]
    blend = BLEND if LOCAL in way else None
    return make_plan(w.context(prompts, STEPS), methods, blend=blend).controls


@ways
def test_same_prompt_is_the_reconstruction(
    way: tuple[str, ...], w: Walker, record: Record, plain: Tensor
) -> None:
    same = (PAIR[0], PAIR[0])
    x = w.walk(record, same, controls(w, same, way))
    assert off(x[:1], plain[:1]) < 1e-5
    if "attend-excite" in way:
        assert off(x[1], x[0]) > 1e-4, EXCEPT["attend-excite"]
    else:
        assert off(x[1], x[0]) < 1e-5


@ways
def test_it_acts_and_the_source_is_not_touched(
    way: tuple[str, ...], plain: Tensor, made: dict[tuple[str, ...], Tensor]
) -> None:
    x = made[way]
    assert torch.isfinite(x).all()
    assert off(x[:1], plain[:1]) < 1e-5
    assert off(x[1], plain[1]) > 1e-4
    assert off(x[1], x[0]) > 1e-3
    for one in way if len(way) > 1 else ():  # neither is lost beside the other
        alone = plain if one == LOCAL else made[one,]
        assert off(x[1], alone[1]) > 1e-5, one


@ways
@pytest.mark.parametrize("size", [(16, 16), (9, 17)], ids=str)
def test_fast_path_is_the_explicit_one(
    way: tuple[str, ...],
    size: tuple[int, int],
    w: Walker,
    record: Record,
    made: dict[tuple[str, ...], Tensor],
) -> None:
    here, walked, fast = w, record, made[way]
    if size != w.latent_size:
        here = Walker(w.backbone, w.prompts, size)
        walked = here.invert("ddim", steps=STEPS, guidance=GUIDANCE)
        fast = here.walk(walked, PAIR, controls(here, PAIR, way))
        assert off(fast[1], fast[0]) > 1e-3
    slow = here.walk(walked, PAIR, controls(here, PAIR, way), explicit=True)
    assert off(fast, slow) < 1e-5


@ways
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_removed_without_a_trace(
    way: tuple[str, ...],
    error: type[BaseException] | None,
    w: Walker,
    record: Record,
    plain: Tensor,
) -> None:
    before, during = left_behind(w), []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        during.append(left_behind(w) != before)
        if error is not None and done == 1:
            raise error("stop")

    acting = controls(w, PAIR, way)
    if error is None:
        w.walk(record, PAIR, acting, progress=progress)
    else:
        with pytest.raises(error):
            w.walk(record, PAIR, acting, progress=progress)
    assert all(during)
    assert left_behind(w) == before
    assert torch.equal(w.walk(record, PAIR), plain)


# Everything of the photo ----------------------------------------------------------------------

HOLDING = [way for n in (1, 2, 3) for way in combinations(FULL, n)]


@pytest.mark.parametrize("way", HOLDING, ids=named)
def test_everything_injected_is_the_source_where_it_is_injected(
    way: tuple[str, ...], w: Walker, record: Record
) -> None:
    """Self-attention is the source's where queries and keys of one edit and values of another are.

    The picture is not: the words' values stay the target's, whatever is injected.
    """
    apart: list[float] = []

    def look(module: Any, args: Any, out: Tensor) -> None:
        source, target = out.unflatten(0, (2, 2)).unbind(1)
        apart.append(off(target, source))

    layers = [m for n, m in w.backbone.unet.named_modules() if n.endswith("attn1.to_out.0")]
    handles = [layer.register_forward_hook(look) for layer in layers]
    try:
        x = w.walk(record, PAIR, controls(w, PAIR, way, FULL), all_rows=True)
    finally:
        for handle in handles:
            handle.remove()
    assert len(apart) == STEPS * len(layers)
    if "masactrl" in way and len(way) > 1:
        assert max(apart) < 1e-5
    else:
        assert max(apart) > 1e-4
    assert off(x[1], x[0]) > 1e-4


# Nothing --------------------------------------------------------------------------------------

EARLY: dict[str, dict[str, Any]] = {  # over after the first half of the walk
    "attend-excite": {**SETTINGS["attend-excite"], "until": 0.5},
    "masactrl": {"start": 0.0, "stop": 0.5},
    "p2p": {"cross_replace": 0.5, "self_replace": 0.5},
    "pix2pix-zero": {"stop": 0.5},
    "pnp": {"feature_stop": 0.5, "attention_stop": 0.5},
}
# local blend is left out: it reads the words' maps at every step
ENDING = [(), *(way for way in WAYS if LOCAL not in way)]


@pytest.mark.parametrize("way", ENDING, ids=named)
def test_a_step_without_control_is_the_networks_own_bit_by_bit(
    way: tuple[str, ...], w: Walker, record: Record
) -> None:
    calls: list[Any] = []

    def look(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        calls.append((args, kwargs, out))

    handle = w.backbone.unet.register_forward_hook(look, with_kwargs=True)
    try:
        w.walk(record, PAIR, controls(w, PAIR, way, EARLY))
    finally:
        handle.remove()
    args, kwargs, under_control = calls[-1]
    with torch.no_grad():
        alone = w.backbone.unet(*args, **kwargs)
    assert torch.equal(under_control[0], alone[0])


def test_nothing_is_as_diffusers_samples(w: Walker) -> None:
    backbone, latents = w.backbone, w.latents(3)
    scheduler = DDIMScheduler.from_config(backbone.pipeline().scheduler.config)
    scheduler.set_timesteps(STEPS)
    text = torch.cat([backbone.empty_text().embeds, backbone.encode_text([PAIR[1]]).embeds])
    theirs = sampling_loop(backbone.unet, latents, text, scheduler, GUIDANCE)
    bare, empty = (
        sample(
            w.denoiser(PAIR[1:], ClassifierFree(GUIDANCE)),
            FromNoise(latents, STEPS),
            backbone.schedule(STEPS),
            stack,
        )
        for stack in ([], [ControlStack([])])
    )
    assert torch.equal(bare, empty)
    assert off(bare, theirs) < 1e-6  # each call is theirs; a step is written in another form


# Through the editor ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inversion(editors: dict[str, Editor], photo: Any) -> Any:
    options = {"method": "ddim", "guidance_scale": GUIDANCE, "steps": STEPS, "verify": False}
    return editors["epsilon"].invert(photo, PAIR[0], **options)


def asked(way: tuple[str, ...]) -> dict[str, Any]:
    names = tuple(name for name in way if name != LOCAL)
    settings = {k: v for name in names for k, v in SETTINGS.get(name, {}).items()}
    more = {"local": "mat", "local_start": 0.0, "local_threshold": 0.6} if LOCAL in way else {}
    return {"edit": names, "edit_options": settings, **more}


@ways
def test_strength_goes_from_the_reconstruction_to_the_edit(
    way: tuple[str, ...], editors: dict[str, Editor], inversion: Any
) -> None:
    apart = []
    for strength in (0.0, 1.0):
        x = editors["epsilon"].edit(inversion, PAIR[1], strength=strength, **asked(way)).latents
        assert x is not None
        apart.append(off(x[1], x[0]))
    assert apart[0] < 1e-5
    assert apart[1] > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_a_move_stands_alone(name: str, editors: dict[str, Editor], inversion: Any) -> None:
    """Why it is in no pair: it lays the photo's own latents where others would change them."""
    with pytest.raises(OptionError, match=f"act alone, not beside --edit {name}"):
        editors["epsilon"].edit(inversion, move={"cat": (0.2, 0)}, **asked((MOVE, name)))
