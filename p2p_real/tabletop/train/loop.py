"""The loop all networks are trained by: resumable, averaged, measured, drawn."""

import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from p2p_real.tabletop.train.curves import save_curve
from p2p_real.tabletop.train.muon import make_optimizers
from p2p_real.tabletop.train.settings import Settings
from p2p_real.tabletop.train.state import (
    optimizer_tensors,
    part,
    read_facts,
    read_tensors,
    restore_optimizer,
    write_tensors,
)


class Task:
    """What is trained and how; a stage of the command derives from it.

    Attributes:
        name: Names the stage and its files.
        lr: Learning rate at its highest.
        betas: AdamW's.
        weight_decay: Muon's.
        plain: Parts of names whose matrices are left to AdamW.
        warmup: Steps until the learning rate is at its highest.
        flat: Share of the run after which the learning rate falls along a cosine.
        average: How much of the averaged weights stays each step.
        shared: Whether workers may take parts of one batch (not with batch norms).
    """

    name = ""
    lr = 2e-3
    betas = (0.9, 0.97)
    weight_decay = 0.0
    plain: Sequence[str] = ()
    warmup = 60
    flat = 0.5
    average = 0.998
    shared = True

    def __init__(self, settings: Settings, modules: dict[str, nn.Module]) -> None:
        self.settings = settings
        self.modules = modules
        for module in modules.values():
            module.to(settings.device).train()

    def batch(self, rng: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """Draws a batch: tensors that share their first dimension.

        Args:
            rng: Where all chance comes from; it depends on the step alone.
            progress: How much of the stage is done, 0 to 1.
        """
        raise NotImplementedError

    def loss(self, *batch: Tensor) -> Tensor:
        """Gives the mean loss of a batch or of a part of one."""
        raise NotImplementedError

    def measure(self) -> dict[str, float]:
        """Gives figures of the averaged weights on held-out scenes."""
        return {}

    def samples(self, folder: Path) -> None:
        """Writes pictures of what the averaged weights do."""


def state_file(out: Path, name: str) -> Path:
    """Says where a stage's state lies."""
    return out / "state" / f"{name}.safetensors"


def is_done(out: Path, name: str) -> bool:
    """Says whether a stage has come to its end."""
    return bool(read_facts(state_file(out, name)).get("done"))


def load_averaged(out: Path, name: str, modules: dict[str, nn.Module]) -> None:
    """Loads the averaged weights that a stage has learnt."""
    tensors, _ = read_tensors(state_file(out, name))
    for key, module in modules.items():
        module.load_state_dict(part(tensors, f"average/{key}"))


def train(task: Task) -> None:
    """Trains a task to its end, from where it was last saved."""
    if not is_done(task.settings.out, task.name):
        _Run(task).go()


class _Run:
    """A task on its way."""

    def __init__(self, task: Task) -> None:
        self.task, self.settings = task, task.settings
        self.file = state_file(self.settings.out, task.name)
        self.optimizers = make_optimizers(
            task.modules.values(), task.lr, task.betas, task.weight_decay, task.plain
        )
        self.rest = self.optimizers[1].param_groups[0]["params"]
        self.trained = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        self.average = {name: t.detach().clone() for name, t in self._weights()}
        self.step, self.seconds, self.done = 0, 0.0, False
        self.log: list[dict[str, Any]] = []
        self.recent = float("nan")  # running mean of the loss
        self.workers = self.settings.workers if task.shared else 1
        self.pool = ThreadPoolExecutor(self.workers, initializer=self._one_thread)
        if self.file.exists():
            self._resume()

    def go(self) -> None:
        """Steps until the stage's steps or seconds are used up."""
        self._one_thread()
        logged = saved = self.seconds
        with self.pool, self._bar() as bar:
            begun = time.monotonic() - self.seconds
            while self._progress() < 1:
                self._advance()
                self.seconds = time.monotonic() - begun
                self._show(bar)
                if self.seconds - logged > self.settings.log_every:
                    self._measure()
                    logged = self.seconds
                if self.seconds - saved > self.settings.save_every:
                    self._save()
                    saved = self.seconds
            self.done = True
            self._measure()
            self._save()

    def _progress(self) -> float:
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        return self.seconds / self.settings.seconds(self.task.name)

    def _advance(self) -> None:
        rng = torch.Generator().manual_seed(zlib.crc32(f"{self.task.name}-{self.step}".encode()))
        progress = self._progress()
        fall = max(0.0, progress - self.task.flat) / (1 - self.task.flat)
        rate = min(1, (self.step + 1) / self.task.warmup) * (0.5 + 0.5 * cos(pi * fall) + 0.01)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = self.task.lr * self.settings.lr_scale * rate
        batch = [t.to(self.settings.device) for t in self.task.batch(rng, progress)]
        parts = zip(*(t.chunk(self.workers) for t in batch), strict=True)
        answers = list(self.pool.map(self._gradients, parts))
        for p, *grads in zip(self.trained, *(grads for _, grads in answers), strict=True):
            p.grad = sum(grads) / len(grads)
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._follow()
        loss = sum(value for value, _ in answers) / len(answers)
        self.recent = loss if self.recent != self.recent else 0.97 * self.recent + 0.03 * loss

    def _gradients(self, batch: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        # Each worker thread computes a whole part alone, with one thread inside it: two threads
        # within each operation wait for each other on a machine that has other work.
        device = torch.device(self.settings.device).type
        low = self.settings.dtype != torch.float32
        with torch.autocast(device, self.settings.dtype, enabled=low):
            loss = self.task.loss(*batch)
        grads = torch.autograd.grad(loss, self.trained, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.trained, grads, strict=True)
        ]
        return float(loss.detach()), filled

    @torch.no_grad()
    def _follow(self, every: int = 4) -> None:
        """Moves the averaged weights towards the live ones."""
        if self.step % every:
            return
        # weights that start from nothing are forgotten at once, those of a checkpoint are not
        most = self.step / (self.step + 30) if self.settings.start_from is None else 1.0
        keep = min(self.task.average, most) ** every
        for name, tensor in self._weights():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - keep)
            else:
                self.average[name].copy_(tensor)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for key, module in self.task.modules.items():
            for name, tensor in module.state_dict().items():
                yield f"{key}/{name}", tensor

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Lends the averaged weights to the networks."""
        live = {name: tensor.clone() for name, tensor in self._weights()}
        modules = self.task.modules.values()
        try:
            self._put(self.average)
            for module in modules:
                module.eval()
            with torch.no_grad():
                yield
        finally:
            self._put(live)
            for module in modules:
                module.train()

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self._weights():
            tensor.copy_(values[name])

    def _measure(self) -> None:
        with self._averaged():
            figures = self.task.measure()
            self.task.samples(self.settings.out / "samples")
        row = {"step": self.step, "minutes": round(self.seconds / 60, 2), "loss": self.recent}
        self.log.append({**row, **figures})
        save_curve(self.settings.out / "curves" / f"{self.task.name}.png", self.log)
        said = ", ".join(f"{name} {value:.4g}" for name, value in self.log[-1].items())
        tqdm.write(f"{self.task.name}: {said}")

    def _save(self) -> None:
        tensors = {f"module/{name}": tensor for name, tensor in self._weights()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.average.items()}
        for i, optimizer in enumerate(self.optimizers):
            state = optimizer_tensors(optimizer)
            tensors |= {f"optimizer{i}/{name}": tensor for name, tensor in state.items()}
        facts = {name: getattr(self, name) for name in ("step", "seconds", "done", "log", "recent")}
        write_tensors(self.file, tensors, facts)

    def _resume(self) -> None:
        tensors, facts = read_tensors(self.file)
        self._put(part(tensors, "module"))
        for name, value in part(tensors, "average").items():
            self.average[name].copy_(value)
        for i, optimizer in enumerate(self.optimizers):
            restore_optimizer(optimizer, part(tensors, f"optimizer{i}"))
        for name, value in facts.items():
            setattr(self, name, value)
        tqdm.write(f"{self.task.name}: goes on from step {self.step}")

    def _bar(self) -> tqdm:
        steps = self.settings.steps
        total = steps if steps is not None else round(self.settings.seconds(self.task.name))
        unit = "step" if steps is not None else "s"
        start = self.step if steps is not None else round(self.seconds)
        return tqdm(total=total, initial=start, desc=self.task.name, unit=unit)

    def _show(self, bar: tqdm) -> None:
        now = self.step if self.settings.steps is not None else round(self.seconds)
        bar.set_postfix(step=self.step, loss=f"{self.recent:.4f}", refresh=False)
        bar.update(now - bar.n)

    def _one_thread(self) -> None:
        if self.settings.device == "cpu":
            torch.set_num_threads(1)
