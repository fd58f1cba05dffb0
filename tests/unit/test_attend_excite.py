"""Attend-and-Excite: its loss, its gradient, its schedule, and what it leaves alone."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from edit import ControlStack, EditContext, NothingActed, WordNotFound, edits, sites_of
from edit.methods.attend_excite import Excite, Look, gaussian, peaks_of
from inversion import ClassifierFree, sample
from inversion.registry import SettingError
from inversion.sampling import FromNoise, NumericsError
from p2p_real.backbones import load_backbone
from p2p_real.numbers import OptionError
from p2p_real.prompts import EditWords, PromptError, Prompts
from p2p_real.steering import EditControl, excited
from tests.small import small_sd
from tests.walks import Walker, off

PROMPT = "a fluffy cat on a mat and a dog"
STEPS = 3


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("excite") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), (PROMPT,))


def made(walker: Walker, *prompts: str, steps: int = STEPS, **settings: Any) -> Excite:
    tokens = [walker.backbone.tokens(p) for p in prompts or (PROMPT,)]
    context = EditContext(tokens[0], tuple(tokens[1:]), steps, walker.latent_size)
    (control,) = edits.create("attend-excite", **settings).controls(context)
    assert isinstance(control, Excite)
    return control


def draw(walker: Walker, control: Excite | None) -> Tensor:
    """A picture's latents from noise."""
    noise = walker.latents(4) / 0.6
    denoiser = walker.denoiser([PROMPT], ClassifierFree(2.0))
    stack = ControlStack([] if control is None else [control])
    x = sample(denoiser, FromNoise(noise, STEPS), walker.backbone.schedule(STEPS), [stack])
    stack.report()
    return x


# The loss -------------------------------------------------------------------------------------


def test_the_published_kernel() -> None:
    kernel = gaussian(3, 0.5)
    torch.testing.assert_close(kernel.sum(), torch.tensor(1.0))
    wanted = torch.tensor([[0.0449, 0.1221, 0.0449], [0.1221, 0.3319, 0.1221]])
    torch.testing.assert_close(kernel[:2], wanted, atol=5e-5, rtol=0)
    torch.testing.assert_close(kernel, kernel.T)
    assert gaussian(1, 3.0).tolist() == [[1.0]]


def test_the_peak_of_a_word() -> None:
    maps = torch.zeros(4, 5, 6)
    maps[2, 3, 2], maps[2, 3, 3], maps[0, 0, 4] = 0.03, 0.03, 0.05
    plain = peaks_of(maps, [(2,), (4,), (2, 3)], 5, None)
    e = torch.tensor([3.0, 5.0]).exp()
    one, two = e[0] / (2 * e[0] + 2), e[1] / (e[1] + 3)
    torch.testing.assert_close(plain, torch.stack([one, two, 2 * one]))  # a word is all its tokens
    smooth = peaks_of(maps, [(2,)], 5, gaussian(3, 0.5))
    around = (1 - gaussian(3, 0.5)[1, 1]) / 4 + gaussian(3, 0.5)[1, 1] * one
    torch.testing.assert_close(smooth[0], around)
    # at the edge the picture is mirrored; a map too small for that repeats its edge
    edge = peaks_of(maps, [(4,)], 5, gaussian(3, 0.5))
    rest = (1 - gaussian(3, 0.5)[1, 1]) / 4
    torch.testing.assert_close(edge[0], rest + gaussian(3, 0.5)[1, 1] * two)
    assert torch.isfinite(peaks_of(maps[:1, :1], [(2,)], 5, gaussian(3, 0.5))).all()
    # tokens behind the last that competes are not seen
    assert peaks_of(maps, [(4,)], 6, None) < peaks_of(maps[..., :5], [(4,)], 5, None)


def looked(walker: Walker, control: Excite, x: Tensor) -> tuple[Look, Any]:
    """One look at latents, and the denoiser that was asked."""
    denoiser = walker.denoiser([PROMPT], ClassifierFree(2.0))
    step = next(iter(walker.backbone.schedule(STEPS).down()))
    stack = ControlStack([control])
    with stack.attach(denoiser), torch.no_grad():
        stack.alone = control
        return control._look(x, 0, 0, step, denoiser), denoiser


def test_the_gradient_is_the_slope_of_the_loss(walker: Walker) -> None:
    control = made(walker, words=("dog", "cat"))
    x = walker.latents(1)
    look, _ = looked(walker, control, x)
    assert 0 < look.loss < 1
    assert look.loss == pytest.approx(1 - float(look.peaks.min()), abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    ways = [look.grad / look.grad.norm()]
    ways += [ways[0] + 0.5 * torch.randn(x.shape, generator=generator) / x.numel() ** 0.5]
    for way in ways:
        h = 0.02
        up, down = (looked(walker, control, x + s * h * way)[0].loss for s in (1, -1))
        slope = float((look.grad * way).sum())
        assert abs(slope) > 1e-4
        assert (up - down) / (2 * h) == pytest.approx(slope, rel=0.03)


class Whole(Excite):
    """Asks the whole network, as published."""

    def probs(self, p: Tensor, call: Any) -> Tensor:
        with contextlib.suppress(Exception):
            return super().probs(p, call)
        return p


def test_the_rest_of_the_network_is_not_asked(walker: Walker) -> None:
    settings: dict[str, Any] = {"words": ("dog",), "scale": 2}
    part = made(walker, **settings)
    whole = Whole(part.words, part.stops, part.method, part.near)
    x, unet, looks = walker.latents(1), walker.backbone.unet, []
    reached: list[str] = []
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: reached.append(name))
        for name, module in (("level", unet.up_blocks[1].attentions[-1]), ("end", unet.conv_out))
    ]
    try:
        for control in (part, whole):
            reached.clear()
            looks.append(looked(walker, control, x)[0])
            assert reached == ([] if control is part else ["level", "end"])
    finally:
        for handle in handles:
            handle.remove()
    assert looks[0].loss == looks[1].loss
    assert torch.equal(looks[0].grad, looks[1].grad)
    assert float(looks[0].grad.abs().max()) > 0


def test_rows_are_counted(walker: Walker) -> None:
    control = made(walker, words=("dog",))
    _, denoiser = looked(walker, control, walker.latents(1))
    assert (denoiser.rows_seen, denoiser.rows_backward) == (1, 1)


# Settings -------------------------------------------------------------------------------------


def test_the_published_step_sizes(walker: Walker) -> None:
    method: Any = edits.create("attend-excite", words=("cat",))
    steps = list(walker.backbone.schedule(50).down())
    wanted = {0: 20.0, 1: 19.8977, 10: 18.9521, 20: 17.8429, 24: 17.3793}
    for index, rate in wanted.items():
        assert method.rate(steps[index]) == pytest.approx(rate, abs=5e-5)
    weaker = method.at_strength(0.5)
    assert weaker.rate(steps[0]) == pytest.approx(10.0)
    assert method.at_strength(0.0).rate(steps[0]) == 0


def test_thresholds() -> None:
    def goals(steps: int, **settings: Any) -> dict[int, float]:
        method: Any = edits.create("attend-excite", words=("cat",), **settings)
        return dict(method.goals(steps))

    assert goals(50) == {0: 0.05, 10: 0.5, 20: 0.8}
    assert goals(10) == {0: 0.05, 2: 0.5, 4: 0.8}
    assert goals(2) == {0: 0.8}  # steps that fall together take the highest
    assert goals(50, thresholds="none") == {}
    assert goals(10, thresholds=" 0.5:1 ") == {5: 1.0}
    for wrong in ("", "0.5", "1:0.5", "0:1.5", "a:b", "0:0.5,0.2:0.6", "-1:0.5"):
        with pytest.raises(SettingError, match="attend-excite: thresholds="):
            edits.create("attend-excite", thresholds=wrong)


def test_words(walker: Walker) -> None:
    assert made(walker, words=("dog",)).words == [[(9,)]]
    assert made(walker, words=("a",)).words == [[(1,), (5,), (8,)]]  # each one must be seen
    assert made(walker, words=("a#3", "fluffy cat")).words == [[(8,), (2, 3)]]
    assert made(walker, tokens=(3, 9)).words == [[(3,), (9,)]]
    assert made(walker, "a cat", "a dog", "a dog on a mat", words=("mat",)).words == [[], [(5,)]]
    assert made(walker, words=("dog",)).stops == [76]
    assert made(walker, words=("dog",), rest=False).stops == [10]
    with pytest.raises(WordNotFound, match="no word 'horse'"):
        made(walker, words=("cat", "horse"))
    with pytest.raises(WordNotFound, match="no word 'horse'"):
        made(walker, "a cat", "a dog", "a dog on a mat", words=("horse",))
    with pytest.raises(SettingError, match="give --excite WORD"):
        made(walker)
    for token in (0, 76, 500):
        with pytest.raises(SettingError, match=f"token {token} is none of 1 to 75"):
            made(walker, tokens=(token,))
    with pytest.raises(SettingError, match="give an odd number"):
        made(walker, words=("cat",), kernel=4)


def test_scales(walker: Walker) -> None:
    sites = sites_of(walker.backbone.unet).values()
    for settings, scale in (({}, 1), ({"scale": 2}, 2)):
        control = made(walker, words=("dog",), **settings)
        control.begin(walker.denoiser([PROMPT], ClassifierFree(2.0)))
        assert {s.scale for s in sites if control.watches(s)} == {scale}
        assert all(s.cross for s in sites if control.watches(s))
    with pytest.raises(NothingActed, match="no word maps at scale 16; it has 1, 2, 4"):
        draw(walker, made(walker, words=("dog",), scale=16))


def test_the_options_of_an_edit() -> None:
    assert EditControl(excite="dog").edit == ("p2p", "attend-excite")
    assert EditControl(edit="pnp", excite=("cat", "dog")).edit == ("pnp", "attend-excite")
    assert EditControl(excite="dog").excite_alone().edit == ("attend-excite",)
    assert EditControl(edit="pnp", excite="dog").excite_alone().edit == ("pnp", "attend-excite")
    words, how = excited(EditWords(), EditControl(excite="dog"))
    assert (words.apply("a dog"), how.edit) == (Prompts("a dog", "a dog"), ("attend-excite",))
    swap = EditWords(swap={"cat": "dog"})
    assert excited(swap, EditControl(excite="dog")) == (swap, EditControl(excite="dog"))
    with pytest.raises(PromptError, match="no edit asked for"):
        excited(EditWords(), EditControl())[0].check()
    with pytest.raises(PromptError, match="--also stands beside an edit"):
        excited(EditWords(also=["a cat"]), EditControl(excite="dog"))[0].check()
    EditControl(excite="dog").check_names()
    with pytest.raises(OptionError, match="which words"):
        EditControl(edit=("p2p", "attend-excite")).check_names()
    (method,) = EditControl(edit=("attend-excite",), excite="dog").methods(
        Prompts("a cat", "a dog"), {"attend-excite": {"step_size": 3.0}}
    )
    assert (method.words, method.step_size) == (("dog",), 3.0)  # type: ignore[attr-defined]


# What it does ---------------------------------------------------------------------------------


def test_a_drawn_picture_is_moved(walker: Walker) -> None:
    plain = draw(walker, None)
    control = made(walker, words=("dog", "cat"), thresholds="0:0.99", refinements=3)
    assert off(draw(walker, control), plain) > 1e-3
    (told,) = control.report()["excited"]  # type: ignore[misc]
    assert told["updates"] == 4
    assert told["refinements"] == 3
    assert [s["step"] for s in told["loss_by_step"]] == [0]
    assert 0 < told["largest_change"] <= 1
    assert draw(walker, control).equal(draw(walker, control))


def test_no_move_is_an_error(walker: Walker) -> None:
    with pytest.raises(NothingActed, match="no layer was changed"):
        draw(walker, made(walker, words=("dog",), until=0.0, thresholds="none"))
    with pytest.raises(NothingActed, match="no latent was moved"):
        draw(walker, made(walker, words=("dog",), step_size=0.0, thresholds="none"))
    with pytest.raises(NothingActed, match="no latent was moved"):  # seen well enough already
        draw(walker, made(walker, words=("dog",), until=0.0, thresholds="0:0.001"))


def test_no_move_is_larger_than_allowed(walker: Walker) -> None:
    settings: dict[str, Any] = {"words": ("dog",), "step_size": 1e4, "thresholds": "none"}
    for largest in (0.5, 2.0):
        control = made(walker, largest=largest, **settings)
        assert torch.isfinite(draw(walker, control)).all()
        assert max(m for *_, m in control.logs[0].updates) == pytest.approx(largest)
    control = made(walker, largest=0.0, **settings)
    with contextlib.suppress(NumericsError):
        draw(walker, control)
    assert max(m for *_, m in control.logs[0].updates) > 10


def test_numbers_that_are_none_stop_the_walk(walker: Walker) -> None:
    x = walker.latents(1)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericsError, match="gradient is not finite at sampling step 1 of 3"):
        looked(walker, made(walker, words=("dog",)), x)


def test_weights_get_no_gradient(walker: Walker) -> None:
    weights = list(walker.backbone.unet.parameters())
    flags = [p.requires_grad for p in weights]
    weights[0].requires_grad_(True)
    try:
        draw(walker, made(walker, words=("dog",), thresholds="none"))
        assert all(p.grad is None for p in weights)
        assert weights[0].requires_grad
    finally:
        for p, flag in zip(weights, flags, strict=True):
            p.requires_grad_(flag)
