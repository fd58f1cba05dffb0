"""The goldens of plug-and-play, MasaCtrl and Attend-and-Excite, in compat mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edit import ControlStack, EditContext, edits
from inversion import ClassifierFree, Denoiser, Intervention, Replay, TextCond, sample
from inversion.methods.direct import PinnedSource
from inversion.sampling import FromNoise, ddim_invert
from p2p_real.backbones import load_backbone

from .goldens import Golden, model_folder, names


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(str(model_folder()), device="cpu", dtype="float32")


class Watch(Intervention):
    """Keeps the latents after every step."""

    def __init__(self) -> None:
        self.all: list[Tensor] = []

    def after(self, x, step):
        self.all.append(x.clone())
        return x


class Case:
    """A golden with its network; texts are checked against our own encoder's."""

    def __init__(self, golden: Golden, backbone: Any) -> None:
        self.golden, self.fields, self.backbone = golden, golden.fields, backbone
        self.steps: int = self.fields["num_inference_steps"]
        self.schedule = backbone.schedule(self.steps, compat=True)
        self.guide = ClassifierFree(float(self.fields["guidance_scale"]))
        golden.same("in/timesteps", torch.tensor(self.schedule.timesteps))

    def text(self, key: str, prompts: list[str]) -> TextCond:
        self.golden.close(key, self.backbone.encode_text(prompts).embeds)
        return TextCond(self.golden.arrays[key])

    def inverted(self, text: TextCond, guidance: float = 1.0) -> Tensor:
        """[S + 1, C, h, w] the published inversion of the photo."""
        guide = ClassifierFree(guidance)
        empty = self.backbone.encode_text([""])
        denoiser = Denoiser(self.backbone, text, empty, guide)
        path = ddim_invert(self.golden.arrays["in/z0"], denoiser, self.schedule)
        self.golden.close("out/ddim_latents", path)
        return path[:, 0]

    def context(self, *prompts: str) -> EditContext:
        tokens = [self.backbone.tokens(p) for p in prompts]
        size = tuple(self.golden.arrays["out/latents"].shape[-2:])
        return EditContext(tokens[0], tuple(tokens[1:]), self.steps, size)  # type: ignore[arg-type]

    def walk(
        self, denoiser: Denoiser, replay: Replay, controls: Any, explicit: bool
    ) -> tuple[Tensor, Tensor]:
        """Final latents, and the latents after every step."""
        stack, watch = ControlStack(controls, explicit=explicit), Watch()
        x = sample(denoiser, replay, self.schedule, [stack, watch])
        stack.report()
        return x, torch.stack(watch.all)


def check_pnp(case: Case, explicit: bool) -> None:
    golden, f = case.golden, case.fields
    source, target = f["prompt_src"], f["prompt_tar"]
    path = case.inverted(case.text("in/inversion_embeds", [source]))
    reads = case.text("in/pnp_guidance_embeds", [""])
    texts = case.text("in/text_embeds", [f["negative_prompt"], target])
    method = edits.create(
        "pnp", feature_stop=float(f["pnp_f_t"]), attention_stop=float(f["pnp_attn_t"]), compat=True
    )
    denoiser = Denoiser(
        case.backbone, TextCond.cat([reads, texts.rows([1])]), texts.rows([0]), case.guide
    )
    x, steps = case.walk(
        denoiser,
        PinnedSource(path, 0.0),
        method.controls(case.context(source, target)),
        explicit,
    )
    golden.close("out/latents", x[1:])
    golden.close("out/latents_all", steps[:, 1:])
    assert denoiser.rows_seen < 4 * case.steps  # one source row, and none when nobody reads it


def check_masactrl(case: Case, explicit: bool) -> None:
    golden, f = case.golden, case.fields
    inversion = case.backbone.encode_text([f["inversion_prompt"]])
    path = case.inverted(inversion, float(f["guidance_scale_inversion"]))
    prompts = f["prompts"]
    text = case.text("in/prompt_embeds", prompts)
    for row, prompt in zip(golden.arrays["in/input_ids"], prompts, strict=True):
        ids = list(case.backbone.tokens(prompt).ids)
        assert row[1 : 1 + len(ids)].tolist() == ids
    method = edits.create(
        "masactrl",
        start=f["start_step"] / case.steps,
        start_layer=f["start_layer"],
        compat=True,
    )
    controls = method.controls(case.context(*prompts))
    denoiser = Denoiser(case.backbone, text, case.text("in/uncond_embeds", [""]), case.guide)
    x, steps = case.walk(denoiser, Replay(path), controls, explicit)
    golden.close("out/latents", x)
    start = path[-1].expand(1, *x.shape)
    golden.close("out/latents_all", torch.cat([start, steps]))


def check_attend_excite(case: Case, explicit: bool) -> None:
    golden, f = case.golden, case.fields
    n, start, tokens = case.steps, golden.arrays["in/latent"], case.backbone.tokens(f["prompt"])
    assert golden.arrays["in/input_ids"][0, 1 : 1 + len(tokens.ids)].tolist() == list(tokens.ids)
    low, high = f["scale_range"]
    method = edits.create(
        "attend-excite",
        tokens=tuple(f["token_indices"]),
        until=f["max_iter_to_alter"] / n,
        thresholds="+".join(f"{int(i) / n}:{v}" for i, v in f["thresholds"].items()) or "none",
        refinements=f["max_refinement_steps"],
        step_size=float(f["scale_factor"]),
        step_start=low,
        step_stop=high,
        smooth=f["smooth_attentions"],
        sigma=f["sigma"],
        kernel=f["kernel_size"],
        scale=start.shape[-1] // f["attention_res"],
        compat=True,
    )
    text, empty = case.text("in/prompt_embeds", [f["prompt"]]), case.text("in/uncond_embeds", [""])
    denoiser = Denoiser(case.backbone, text, empty, case.guide)
    (control,) = method.controls(case.context(f["prompt"]))
    x, steps = case.walk(denoiser, FromNoise(start, n), [control], explicit)
    (log,) = control.logs
    assert len(log.updates) == f["updates"]
    assert len(log.looks) == f["loss_evaluations"]
    golden.close("out/max_attention_log", torch.stack(log.looks))
    golden.close("out/update_log", torch.tensor(log.updates))
    golden.close("out/last_cross16", control.last_map)
    golden.close("out/latents", x)
    golden.close("out/latents_all", steps)


CHECKS = {"pnp": check_pnp, "masactrl": check_masactrl, "d": check_attend_excite}


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("name", [n for n in names() if Golden.read(n).kind() in CHECKS])
def test_golden(name: str, explicit: bool, backbone: Any) -> None:
    golden = Golden.read(name)
    CHECKS[golden.kind()](Case(golden, backbone), explicit)
