"""How fast: ratios within one run, against diffusers' own loop and the published way.

Ways are timed in turns (A B A B ...), medians are compared, and every way that should give the same
numbers as another is held to it in the same run. Absolute times mean nothing on another machine.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from edit import BlendWords, ControlStack, EditContext, Tokens, edits, make_plan, published
from edit.methods.p2p import P2P
from inversion import ClassifierFree, Denoiser, Replay, Schedule, TextCond, inverters, sample
from inversion.sampling import Progress, quiet

from ..backbones import load_backbone
from ..backbones.clip import clip_tokenizer
from ..files import check_output_folder, write_json, write_text
from ..measure import versions
from . import plainly

GUIDANCE = 7.5
WINDOWS = {"cross_replace": 0.8, "self_replace": 0.4}
AGREE = 1e-4  # of the largest value: latents after a whole walk
AGREE_TEXT = 1e-5  # of the largest value: fitted texts
SHORT = {"tabletop": (2, 3), "sd-shaped": (1, 2)}  # timesteps and Adam steps held to it
SHAPE: dict[str, Any] = {
    "block_out_channels": (80, 160, 320, 320),
    "layers_per_block": 2,
    "attention_head_dim": 2,  # heads: 40, 80 and 160 channels each, as in Stable Diffusion 1.x
    "cross_attention_dim": 192,
    "norm_num_groups": 16,
}


class Disagreement(RuntimeError):
    """Two ways that must give the same numbers did not; their speeds cannot be compared."""


@dataclass(frozen=True)
class Subject:
    """A network with a word swap to do.

    Args:
        name: in tables.
        unet: the network.
        scheduler: its scheduler; predicts epsilon, spacing leading.
        latents: [1, C, h, w].
        text: [3, T, D] of the empty prompt, the source and the target.
        tokens: of source and target.
        words: the swapped pair.
        shape: the network in a few words.
    """

    name: str
    unet: Any
    scheduler: DDIMScheduler
    latents: Tensor
    text: Tensor
    tokens: tuple[Tokens, Tokens]
    words: tuple[str, str]
    shape: str

    def predict(self, x: Tensor, t: int, cond: TextCond) -> Tensor:
        """The network, as the walk asks it."""
        return self.unet(  # type: ignore[no-any-return]
            x, t, encoder_hidden_states=cond.embeds, return_dict=False
        )[0]

    def timed(self, steps: int) -> DDIMScheduler:
        """A fresh scheduler with its timesteps set."""
        made = DDIMScheduler.from_config(self.scheduler.config)
        made.set_timesteps(steps)
        return made

    def schedule(self, steps: int) -> Schedule:
        s = self.timed(steps)
        return Schedule.make(s.timesteps, s.alphas_cumprod, s.final_alpha_cumprod, compat=True)

    def denoiser(self, rows: tuple[int, ...]) -> Denoiser:
        """Text rows as branches, under guidance."""
        text = TextCond(self.text)
        guide = ClassifierFree(GUIDANCE)
        return Denoiser(self, text.rows(rows), text.rows([0]), guide)


def _tabletop(device: str) -> Subject:
    backbone = load_backbone("tabletop", device=device, dtype="float32")
    prompts = ("a red ball on a wooden table", "a blue ball on a wooden table")
    empty, cond = backbone.empty_text(), backbone.encode_text(prompts)
    side = backbone.native_size
    return Subject(
        "tabletop",
        backbone.unet,
        backbone.scheduler,
        backbone.noise((side, side)),
        torch.cat([empty.embeds, cond.embeds]),
        (backbone.tokens(prompts[0]), backbone.tokens(prompts[1])),
        ("red", "blue"),
        f"the embedded model, latents {side // backbone.vae_scale_factor} a side",
    )


def _random(device: str, side: int) -> Subject:
    """Stable Diffusion 1.x at 512 pixels with a quarter of its channels, heads and positions.

    Convolutions, projections and attention keep their shares of the arithmetic.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet: Any = UNet2DConditionModel(sample_size=side, **SHAPE)
    unet.eval().requires_grad_(False).to(device)
    tokenizer = clip_tokenizer()
    prompts = ("a photo of a cat sitting on a mat", "a photo of a dog sitting on a mat")
    text = torch.randn(3, 77, SHAPE["cross_attention_dim"], generator=generator)
    text[2] = torch.lerp(text[1], text[2], 0.5)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return Subject(
        "sd-shaped",
        unet,
        scheduler,
        torch.randn(1, 4, side, side, generator=generator).to(device),
        text.to(device),
        (_tokens(tokenizer, prompts[0]), _tokens(tokenizer, prompts[1])),
        ("cat", "dog"),
        f"Stable Diffusion 1.x at 512 pixels with a quarter of its channels, heads and positions: "
        f"channels {SHAPE['block_out_channels']}, 2 heads, latents {side} a side; random weights",
    )


def _tokens(tokenizer: Any, prompt: str) -> Tokens:
    found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    ids = tuple(found["input_ids"])
    spans = tuple((int(a), int(b)) for a, b in found["offset_mapping"])
    return Tokens(prompt, ids, spans, tuple(tokenizer.decode([i]) for i in ids))


# What is compared -----------------------------------------------------------------------------


class EditWays:
    """One word swap by every way; each gives latents [2, C, h, w]."""

    def __init__(self, subject: Subject, steps: int) -> None:
        self.subject, self.steps = subject, steps
        self.size = subject.latents.shape[-2], subject.latents.shape[-1]
        self.context = EditContext(subject.tokens[0], subject.tokens[1:], steps, self.size)
        self.method = edits.create("p2p", mode="replace", compat=True, **WINDOWS)

    def diffusers(self) -> Tensor:
        """No control: diffusers' loop with its own processors."""
        s = self.subject
        text = s.text[[0, 0, 1, 2]]
        x = s.latents.expand(2, -1, -1, -1)
        return plainly.sampling_loop(s.unet, x, text, s.timed(self.steps), GUIDANCE)

    def uncontrolled(self) -> Tensor:
        """No control: our loop."""
        return self._ours([])

    def ours(self) -> Tensor:
        return self._ours(make_plan(self.context, [self.method]).controls)

    def ours_local(self) -> Tensor:
        blend = BlendWords((self.subject.words,), start=0.2)
        return self._ours(make_plan(self.context, [self.method], blend=blend).controls)

    def _ours(self, controls: Any) -> Tensor:
        s = self.subject
        replay = Replay(s.latents.expand(self.steps + 1, -1, -1, -1))
        stack = ControlStack(controls)
        x = sample(s.denoiser((1, 2)), replay, s.schedule(self.steps), [stack], all_rows=True)
        stack.report()
        return x

    def published(self) -> Tensor:
        return self._published(None)

    def published_local(self) -> Tensor:
        pairs = zip(self.subject.tokens, self.subject.words, strict=True)
        rows = [published.blend_selector(tokens, word) for tokens, word in pairs]
        return self._published(torch.stack(rows).to(self.subject.latents.device))

    def _published(self, blend: Tensor | None) -> Tensor:
        s, targets = self.subject, self.context.targets
        device = s.latents.device
        side = self.size[0] // self.context.scale_near(16)
        assert isinstance(self.method, P2P)
        controller = plainly.PublishedReplace(
            len(s.unet.attn_processors),
            torch.stack([published.replace_mapper(self.context.source, t) for t in targets]).to(
                device
            ),
            published.cross_window(self.steps, targets, self.method.cross_replace).to(device),
            published.self_window(self.steps, self.method.self_replace),
            (self.size[0] // 2) ** 2,
            max(self.size[0] // 2, side) ** 2,
            blend=blend,
            blend_side=side,
            start=int(0.2 * self.steps),
        )
        with plainly.explicit_attention(s.unet, controller):
            return plainly.sampling_loop(
                s.unet,
                s.latents.expand(2, -1, -1, -1),
                s.text[[0, 0, 1, 2]],
                s.timed(self.steps),
                GUIDANCE,
                controller.after,
            )

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "diffusers' loop": self.diffusers,
            "edit": self.ours,
            "edit, local": self.ours_local,
            "published edit": self.published,
            "published edit, local": self.published_local,
        }


class NullTextWays:
    """Null-text inversion by every way; each gives the fitted texts [S, T, D]."""

    def __init__(self, subject: Subject, steps: int, inner_steps: int) -> None:
        self.subject, self.steps, self.inner_steps = subject, steps, inner_steps

    def ours(self) -> Tensor:
        s = self.subject
        method = inverters.create(
            "null-text", inner_steps=self.inner_steps, early_stop=0.0, compat=True
        )
        made = method.invert(0.5 * s.latents, s.denoiser((1,)), s.schedule(self.steps))
        return made.tape["uncond"][:, 0]

    def published(self) -> Tensor:
        """On today's attention processors."""
        s = self.subject
        s.unet.requires_grad_(True)
        try:
            return plainly.null_text(
                s.unet,
                0.5 * s.latents,
                s.text[1:2],
                s.text[:1],
                s.timed(self.steps),
                GUIDANCE,
                inner_steps=self.inner_steps,
                early_stop=0.0,
            )
        finally:
            s.unet.requires_grad_(False)
            s.unet.zero_grad(set_to_none=True)

    def as_released(self) -> Tensor:
        """As released: prompt-to-prompt's attention hook is in place, so maps are formed."""
        with plainly.explicit_attention(self.subject.unet, plainly.unedited):
            return self.published()

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "null-text": self.ours,
            "published null-text": self.published,
            "published null-text, as released": self.as_released,
        }


# (way, against, aim) of the table; a ratio is seconds of the way over seconds of the other
EDIT_RATIOS = (
    ("edit", "diffusers' loop", "at most 1.10"),
    ("edit, local", "diffusers' loop", "at most 1.10"),
    ("edit", "published edit", "below 1"),
    ("edit, local", "published edit, local", "below 1"),
)
NULL_RATIOS = (
    ("null-text", "published null-text", "at most 0.50"),
    ("null-text", "published null-text, as released", "at most 0.50"),
)


# How it is measured ---------------------------------------------------------------------------


@dataclass
class Timing:
    """Wall-clock and processor seconds of one way, one entry a round."""

    wall: list[float]
    cpu: list[float]


def in_turns(
    ways: Mapping[str, Callable[[], Tensor]],
    rounds: int,
    device: torch.device,
    tick: Callable[[str], None],
) -> tuple[dict[str, Timing], dict[str, Tensor]]:
    """Times of every way, taken in turns after one unmeasured turn, and what each gave."""
    times = {name: Timing([], []) for name in ways}
    results = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = way()
            _wait(device)
            if turn:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
            tick(name)
    return times, results


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(way: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that a way holds at most, beyond what was there before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        way()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _hush(), torch.profiler.profile(profile_memory=True) as profiler:
        way()
    found = profiler.profiler
    assert found is not None
    assert found.kineto_results is not None
    events = [e for e in found.kineto_results.events() if e.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


@contextlib.contextmanager
def _hush() -> Iterator[None]:
    """No standard error while inside: torch's profiler writes there below Python."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _off(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def _hold(what: str, off: float, allowed: float) -> float:
    if not off <= allowed:
        raise Disagreement(f"{what}: off by {off:.1e} of the scale, {allowed:.0e} is allowed")
    return off


# The run --------------------------------------------------------------------------------------


def run(
    out: Path, *, quick: bool = False, progress: Progress = quiet, device: str = "cpu"
) -> dict[str, Any]:
    """Time edits and null-text inversion, and write the table.

    Args:
        out: folder for ``results.csv``, ``table.md`` and ``manifest.json``.
        quick: fewer rounds and steps: a smoke test, not a measurement.
        progress: called after each timed call.
        device: where to compute.

    Returns:
        The manifest: ratios, seconds, agreement, shapes, versions.

    Raises:
        Disagreement: ways that must give the same numbers did not.
        OutputError: ``out`` cannot be written to.
    """
    folder = check_output_folder(out)
    subjects = [_tabletop(device), _random(device, 16 if quick else 32)]
    rounds = {"tabletop": 1 if quick else 5, "sd-shaped": 1 if quick else 3}
    steps = {"tabletop": 5 if quick else 10, "sd-shaped": 3}
    inner = {"tabletop": (2, 3) if quick else (3, 10), "sd-shaped": (1, 2) if quick else (1, 10)}
    total = sum(8 * (rounds[s.name] + 1) for s in subjects)
    count = 0

    def tick(name: str) -> None:
        nonlocal count
        count += 1
        progress("speed", count, total, name)

    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    agreement: dict[str, dict[str, float]] = {}
    for s in subjects:
        where = torch.device(device)
        editing = EditWays(s, steps[s.name])
        times, gave = in_turns(editing.ways(), rounds[s.name], where, tick)
        small = EditWays(s, 2).ways()
        agreement[s.name] = _edit_agreement(s.name, gave, editing.uncontrolled())
        null = NullTextWays(s, *inner[s.name])
        more, texts = in_turns(null.ways(), rounds[s.name], where, tick)
        small |= NullTextWays(s, 1, 2).ways()
        brief = NullTextWays(s, *SHORT[s.name]).ways()
        agreement[s.name] |= _text_agreement(s.name, brief, texts, s.text[0])
        times |= more
        for name, timing in times.items():
            rows.append(_row(s.name, name, timing, peak_memory(small[name], where)))
        for way, against, aim in (*EDIT_RATIOS, *NULL_RATIOS):
            ratios.append(_ratio(s.name, way, against, aim, times))
    manifest: dict[str, Any] = {
        "benchmark": "speed",
        "quick": quick,
        "guidance_scale": GUIDANCE,
        "windows": WINDOWS,
        "subjects": {
            s.name: {
                "shape": s.shape,
                "parameters": sum(p.numel() for p in s.unet.parameters()),
                "edit_steps": steps[s.name],
                "null_text_steps_and_inner_steps": list(inner[s.name]),
                "rounds": rounds[s.name],
            }
            for s in subjects
        },
        "ratios": ratios,
        "agreement": agreement,
        "measurements": rows,
        "device": device,
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    write_text(folder / "results.csv", _csv(rows))
    write_text(folder / "table.md", table(manifest))
    write_json(folder / "manifest.json", manifest)
    return manifest


def _edit_agreement(name: str, gave: dict[str, Tensor], plain: Tensor) -> dict[str, float]:
    stock = gave["diffusers' loop"]
    return {
        "uncontrolled: our loop and diffusers'": _hold(
            f"{name}, uncontrolled", _off(plain, stock), AGREE
        ),
        "edit: ours and the published": _hold(
            f"{name}, edit", _off(gave["edit"], gave["published edit"]), AGREE
        ),
        # a place whose map is at the threshold may fall on either side: its share is told
        "local edit: share of values that differ": float(
            (
                (gave["edit, local"] - gave["published edit, local"]).abs()
                > AGREE * gave["published edit, local"].abs().max()
            )
            .float()
            .mean()
        ),
    }


def _text_agreement(
    name: str,
    brief: Mapping[str, Callable[[], Tensor]],
    timed: Mapping[str, Tensor],
    start: Tensor,
) -> dict[str, float]:
    """Fitted texts held to each other on a short run; how far the timed runs went apart is told.

    Adam divides by the gradient, so where that is next to nothing each of its steps makes rounding
    larger: the numbers agree for a few steps and the results for all of them.
    """
    texts = {way: fit() for way, fit in brief.items()}
    ours, told = texts["null-text"], {}
    if not float((ours[-1] - start).abs().max()) > 1e-3:
        raise Disagreement(f"{name}: null-text inversion fitted nothing")
    for _, way, _ in NULL_RATIOS:
        off = _hold(f"{name}, {way}", _off(ours, texts[way]), AGREE_TEXT)
        told[f"{way}: ours and theirs"] = off
        apart = (timed["null-text"] - timed[way]).abs().mean() / timed[way].abs().max()
        told[f"{way}: mean difference of the timed run"] = float(apart)
    return told


def _row(subject: str, way: str, timing: Timing, peak: int) -> dict[str, Any]:
    return {
        "network": subject,
        "way": way,
        "seconds": statistics.median(timing.wall),
        "seconds_least": min(timing.wall),
        "cpu_seconds": statistics.median(timing.cpu),
        "rounds": len(timing.wall),
        "peak_tensor_bytes": peak,
    }


def _ratio(
    subject: str, way: str, against: str, aim: str, times: Mapping[str, Timing]
) -> dict[str, Any]:
    a, b = times[way], times[against]
    by_round = [x / y for x, y in zip(a.cpu, b.cpu, strict=True)]
    return {
        "network": subject,
        "way": way,
        "against": against,
        "ratio": statistics.median(a.wall) / statistics.median(b.wall),
        "ratio_cpu": statistics.median(a.cpu) / statistics.median(b.cpu),
        "ratio_cpu_least": min(by_round),
        "ratio_cpu_most": max(by_round),
        "aim": aim,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(manifest: Mapping[str, Any]) -> str:
    """The ratios as Markdown."""
    memory = {(r["network"], r["way"]): r["peak_tensor_bytes"] for r in manifest["measurements"]}
    lines = [
        "# Speed",
        "",
        "Seconds of the way over seconds of what it is held against, medians of one run in turns;",
        "in brackets the same of processor seconds, which other work on the machine moves less.",
        "",
        "| network | way | against | ratio | aim | peak memory of tensors |",
        "|---|---|---|---|---|---|",
    ]
    for r in manifest["ratios"]:
        mine, theirs = (memory[r["network"], r[k]] / 2**20 for k in ("way", "against"))
        lines.append(
            f"| {r['network']} | {r['way']} | {r['against']} | {r['ratio']:.2f} "
            f"({r['ratio_cpu']:.2f}) | {r['aim']} | {mine:.0f} MiB, {theirs:.0f} MiB |"
        )
    lines.append("")
    for name, s in manifest["subjects"].items():
        lines.append(f"- {name}: {s['shape']}; {s['parameters'] / 1e6:.1f} million parameters")
    lines.append(f"- {manifest['device']}, {manifest['threads']} threads")
    return "\n".join(lines) + "\n"
