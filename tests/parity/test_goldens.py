"""Every golden through the public classes in compat mode: numbers the published code gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edit import AttentionStore, ControlStack, EditContext, LocalBlend, edits, published
from inversion import ClassifierFree, Denoiser, Intervention, Replay, TextCond, inverters, sample
from inversion.methods.direct import Direct
from inversion.methods.edit_friendly import EditFriendly, draws
from inversion.methods.pix2pix_zero import Pix2PixZero
from inversion.regularizers import draw_as_published, draw_rolls
from p2p_real.backbones import load_backbone

from .goldens import Golden, model_folder, names

MISSING = {
    "c": "pix2pix-zero's edit is not built yet",
}
ELSEWHERE = ("pnp", "masactrl", "diffedit", "d")  # kinds with a file of their own


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
    """One golden, ready to run: network, text, schedule, controls."""

    def __init__(self, golden: Golden, backbone: Any) -> None:
        self.golden, self.backbone, f = golden, backbone, golden.fields
        self.prompts: list[str] = f.get("prompts") or [f["prompt"]]
        self.steps: int = f["num_inference_steps"]
        self.schedule = backbone.schedule(self.steps, compat=True)
        self.tokens = [backbone.tokens(p) for p in self.prompts]
        self.cond = backbone.encode_text(self.prompts)
        self.uncond = backbone.encode_text([f.get("negative_prompt", "")])
        self._check_inputs()
        self.cond = TextCond(golden.arrays["in/prompt_embeds"])
        if golden.has("in/uncond_embeds"):
            self.uncond = TextCond(golden.arrays["in/uncond_embeds"])
        self.guide = ClassifierFree(float(f.get("guidance_scale", 1.0)))
        self.first_step: int = f.get("skip", 0)

    def _check_inputs(self) -> None:
        g = self.golden
        g.close("in/prompt_embeds", self.cond.embeds)
        if g.has("in/uncond_embeds"):
            g.close("in/uncond_embeds", self.uncond.embeds)
        if g.kind() != "c":
            g.same("in/timesteps", torch.tensor(self.schedule.timesteps))
        ids = g.arrays["in/input_ids"]
        for row, tokens in zip(ids, self.tokens, strict=True):
            kept = list(tokens.ids)[: tokens.length - 2]
            assert row[1 : 1 + len(kept)].tolist() == kept
        for table in ("alphas_cumprod", "final_alpha_cumprod"):
            if g.has(f"in/{table}"):
                g.close(f"in/{table}", getattr(self.backbone.scheduler, table))

    def denoiser(self, prompts: slice = slice(None)) -> Denoiser:
        rows = list(range(len(self.prompts)))[prompts]
        return Denoiser(self.backbone, self.cond.rows(rows), self.uncond, self.guide)

    def context(self) -> EditContext:
        tokens, size = self.tokens, (32, 32)
        return EditContext(tokens[0], tuple(tokens[1:]), self.steps, size, self.first_step)

    def controls(self) -> list[Any]:
        case = self.golden.fields.get("case") or {"edit": "none", "reweight": None}
        made: list[Any] = []
        if case["edit"] != "none" or case["reweight"]:
            method = edits.create("p2p", **self._p2p_settings(case))
            made += method.controls(self.context())
            self._check_tables(case, made[0])
        if not made or any(k.startswith("out/avg_") for k in self.golden.arrays):
            made.append(AttentionStore(max_pixels=1024))
        if case.get("local_blend"):
            made.append(self._blend(case["local_blend"]))
        return made

    def _p2p_settings(self, case: dict[str, Any]) -> dict[str, Any]:
        def pair(window: Any) -> tuple[float, float]:
            return tuple(window) if isinstance(window, list) else (0.0, float(window or 0.0))

        windows = case["cross_replace_steps"]
        windows = dict(windows) if isinstance(windows, dict) else {"default_": windows}
        cross = pair(windows.pop("default_", 1.0))
        own = pair(case["self_replace_steps"])
        return {
            "mode": case["edit"],
            "cross_start": cross[0],
            "cross_replace": cross[1],
            "self_start": own[0],
            "self_replace": own[1],
            "self_max_pixels": case["self_replace_max_pixels"],
            "weights": tuple((case["reweight"] or {}).items()),
            "word_windows": tuple((w, *pair(v)) for w, v in windows.items()),
            "compat": True,
        }

    def _check_tables(self, case: dict[str, Any], cross: Any) -> None:
        g, targets = self.golden, self.tokens[1:]
        prefix = "in/ctl_prev_" if g.has("in/ctl_prev_mapper") else "in/ctl_"
        if case["edit"] == "replace" and g.has(prefix + "mapper"):
            g.close(prefix + "mapper", cross.matrix)
        if case["edit"] == "refine" and g.has(prefix + "mapper"):
            pairs = [published.refine_mapper(self.tokens[0], t) for t in targets]
            g.same(prefix + "mapper", torch.stack([p[0] for p in pairs]))
            g.same(prefix + "alphas", torch.stack([p[1] for p in pairs]))
        if g.has("in/ctl_cross_replace_alpha"):
            g.same("in/ctl_cross_replace_alpha", cross.gate[self.first_step :])
        if g.has("in/ctl_equalizer"):
            for row in cross.weights:
                g.close("in/ctl_equalizer", row[None])

    def _blend(self, blend: dict[str, Any]) -> LocalBlend:
        def selectors(words: list[Any]) -> Tensor:
            rows = zip(self.tokens, words, strict=True)
            return torch.stack([published.blend_selector(t, w) for t, w in rows])

        words = selectors(blend["blend_words"])
        subtract = blend.get("subtract_words")
        less = selectors(subtract) if subtract else None
        for key, value in (("in/lb_alpha_layers", words), ("in/lb_substruct_layers", less)):
            if self.golden.has(key):
                assert value is not None
                self.golden.same(key, value)
        return LocalBlend(
            words,
            less,
            threshold=tuple(blend["threshold"]),
            start=(int(blend["start_blend"] * self.steps) + self.first_step + 0.5) / self.steps,
            scales=(2,),
        )

    def walk(
        self, replay: Replay, *, guide: Any = None, single: bool = False, explicit: bool = False
    ) -> tuple[Tensor, list[Any], list[Tensor]]:
        """Final latents, the controls that acted, and the latents after every step."""
        denoiser = self.denoiser(slice(0, 1) if single else slice(None))
        denoiser.guide = guide or self.guide
        controls = [] if single else self.controls()
        stack, watch = ControlStack(controls, explicit=explicit), Watch()
        x = sample(denoiser, replay, self.schedule, [stack, watch])
        stack.report()
        return x, controls, watch.all


def check_p2p(case: Case) -> None:
    """Prompt-to-prompt on text-to-image, by the fast path and by explicit maps."""
    golden = case.golden
    start = golden.arrays["in/latent"][0]
    for explicit in (False, True):
        replay = Replay(start.expand(case.steps + 1, *start.shape))
        x, controls, steps = case.walk(replay, explicit=explicit)
        golden.close("out/latents", x)
        if golden.has("out/latents_all"):
            golden.close("out/latents_all", torch.stack(steps))
        if golden.has("out/lb_final_mask"):
            golden.same("out/lb_final_mask", controls[-1].mask)
        store = next((c for c in controls if isinstance(c, AttentionStore)), None)
        for key in (k for k in golden.arrays if k.startswith("out/avg_")):
            assert store is not None
            _, place, _, i = key.removeprefix("out/").split("_")
            places = [s for s in store.average() if s.place == place]
            golden.close(key, store.average()[_nth(places, place, int(i), case.backbone)])


def _nth(stored: list[Any], place: str, i: int, backbone: Any) -> Any:
    """The stored site that is the i-th cross layer of its part of the UNet."""
    from edit import sites_of

    all_of = [s for s in sites_of(backbone.unet).values() if s.cross and s.place == place]
    return next(s for s in stored if s == all_of[i])


def check_ddim(case: Case) -> None:
    golden = case.golden
    z0 = golden.arrays["in/z0"]
    ways: dict[str, dict[str, Any]] = {
        "out/ddim_latents": {},
        "out/ddim_latents_uncond": {"text": "empty"},
        "out/ddim_latents_cfg": {
            "inversion_guidance": golden.fields.get("cfg_inversion_scale", 1.0)
        },
    }
    for key, settings in ways.items():
        if golden.has(key):
            method = inverters.create("ddim", **settings)
            record = method.invert(z0, case.denoiser(slice(0, 1)), case.schedule)
            golden.close(key, record.trajectory)


def _inverted(case: Case, name: str, **settings: Any) -> tuple[Any, Tensor, dict[str, Tensor]]:
    method = inverters.create(name, **settings)
    record = method.invert(case.golden.arrays["in/z0"], case.denoiser(slice(0, 1)), case.schedule)
    if case.golden.has("out/ddim_latents"):
        case.golden.close("out/ddim_latents", record.trajectory)
    return method, *record.photo(0)


def check_null_text(case: Case) -> None:
    golden, f = case.golden, case.golden.fields
    method, path, tape = _inverted(
        case,
        "null-text",
        inner_steps=f["num_inner_steps"],
        early_stop=f["early_stop_epsilon"],
        compat=True,
    )
    golden.same("out/inner_steps", (tape["losses"] >= 0).sum(1))
    golden.close("out/losses", tape["losses"])
    golden.close("out/null_embeds", tape["uncond"], loose=True)
    if golden.has("out/reconstruction"):
        x, _, _ = case.walk(method.replay(path, tape), single=True)
        golden.close("out/reconstruction", x)
    x, _, _ = case.walk(method.replay(path, tape))
    golden.close("out/edit_latents", x)


def check_negative_prompt(case: Case) -> None:
    golden, f = case.golden, case.golden.fields
    method, path, tape = _inverted(case, "negative-prompt")
    if golden.has("out/reconstruction"):
        x, _, _ = case.walk(method.replay(path, tape), single=True)
        golden.close("out/reconstruction", x)
    if golden.has("out/edit_latents"):
        golden.close("out/edit_latents", case.walk(method.replay(path, tape))[0])
    for kind in ("l0", "l1"):
        if golden.has(f"out/edit_latents_prox_{kind}"):
            prox = inverters.create(
                "negative-prompt",
                proximal=kind,
                quantile=f[f"proximal_{kind}_quantile"],
                compat=True,
            )
            guide = prox.guide(case.guide)  # type: ignore[attr-defined]
            x, _, _ = case.walk(prox.replay(path, tape), guide=guide)
            golden.close(f"out/edit_latents_prox_{kind}", x)


def check_direct(case: Case) -> None:
    golden = case.golden
    method, path, tape = _inverted(case, "direct")
    golden.close("out/offsets", Direct.offsets(path, case.denoiser(), case.schedule))
    golden.close("out/edit_latents", case.walk(method.replay(path, tape))[0])


def check_edit_friendly(case: Case) -> None:
    """Both halves of it: the noise maps of a photo, and an edit that plays them."""
    golden, f = case.golden, case.golden.fields
    scales = [float(w) for w in f.get("cfg_scales", [f.get("cfg_src", 3.5)])]
    source = float(f.get("cfg_src", scales[0]))
    if golden.has("out/x_T"):
        _ddim_start(case, source, ClassifierFree(tuple(scales)))
        return
    skip = case.first_step / case.steps
    method = EditFriendly(source_guidance=source, skip=skip, eta=f["eta"], compat=True)
    record = method.extract(
        golden.arrays["in/z0"],
        golden.arrays["in/noises"],
        case.denoiser(slice(0, 1)),
        case.schedule,
    )
    if "seed" in f:
        ours = draws(record.trajectory, case.steps, torch.Generator().manual_seed(f["seed"]))
        golden.close("in/noises", torch.stack(ours)[:, None])
    path, noise = record.trajectory[:, 0], record.tape["noise"][:, 0]
    for end in ("in", "out"):
        if golden.has(f"{end}/xts"):
            golden.close(f"{end}/xts", path)
        if golden.has(f"{end}/zs"):
            golden.close(f"{end}/zs", noise.flip(0))
    if golden.has("out/latents"):
        if golden.has("in/xts"):
            path, noise = golden.arrays["in/xts"], golden.arrays["in/zs"].flip(0)
        guide = EditFriendly(source_guidance=scales[0]).guide(ClassifierFree(tuple(scales)))
        x, _, steps = case.walk(method.replay(path, {"noise": noise}), guide=guide)
        _same_walk(case, x, steps)


def _ddim_start(case: Case, source: float, guide: Any) -> None:
    """The variant that edits from the end of a guided DDIM inversion."""
    golden = case.golden
    _, path, _ = _inverted(case, "ddim", inversion_guidance=source)
    golden.close("out/x_T", path[-1:].reshape(golden.arrays["out/x_T"].shape))
    if golden.has("out/latents"):
        x, _, steps = case.walk(Replay(path), guide=guide)
        _same_walk(case, x, steps)


def _same_walk(case: Case, x: Tensor, steps: list[Tensor]) -> None:
    case.golden.close("out/latents", x)
    if case.golden.has("out/latents_all"):
        case.golden.close("out/latents_all", torch.stack(steps))


def check_pix2pix_zero_inversion(case: Case) -> None:
    """The published scheduler, shifts and regularisation, step by step."""
    golden, f = case.golden, case.golden.fields
    method = Pix2PixZero(
        inversion_guidance=float(f["guidance_scale"]),
        rounds=f["num_reg_steps"],
        ac_rolls=f["num_ac_rolls"],
        lambda_ac=f["lambda_ac"],
        lambda_kl=f["lambda_kl"],
        compat=True,
    )
    golden.same("in/timesteps", torch.tensor(case.schedule.timesteps).flip(0)[1:-1])
    z0, visited = golden.arrays["in/z0"], len(golden.arrays["in/timesteps"])
    draw = draw_as_published(f["seed"])
    rolls = [
        draw_rolls(z0.shape, draw) for _ in range(visited * f["num_reg_steps"] * f["num_ac_rolls"])
    ]
    golden.same("in/rolls", torch.tensor(rolls).flatten())
    noise: list[tuple[Tensor, Tensor]] = []
    path = method.walk(
        z0,
        case.denoiser(),
        case.schedule,
        generator=torch.Generator().manual_seed(f["seed"]),
        watch=lambda raw, regularised: noise.append((raw, regularised)),
    )
    for key, values in zip(("out/eps_raw", "out/eps_reg"), zip(*noise, strict=True), strict=True):
        golden.close(key, torch.stack(values))
    golden.close("out/latents_all", path[-visited:])
    golden.close("out/x_inv", path[-1])


CHECKS = {
    "c": check_pix2pix_zero_inversion,
    "e": check_edit_friendly,
    "p2p": check_p2p,
    "ddim": check_ddim,
    "null-text": check_null_text,
    "negative-prompt": check_negative_prompt,
    "direct": check_direct,
}


@pytest.mark.parametrize("name", [n for n in names() if Golden.read(n).kind() not in ELSEWHERE])
def test_golden(name: str, backbone: Any) -> None:
    golden = Golden.read(name)
    kind = golden.kind()
    if kind in MISSING and not golden.has("out/x_inv"):
        pytest.skip(MISSING[kind])
    CHECKS[kind](Case(golden, backbone))
