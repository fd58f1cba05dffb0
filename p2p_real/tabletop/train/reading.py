"""Stage `reader`: the CNN that says what a one-object picture shows."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from p2p_real.tabletop.reader import HEADS, Reader, labels
from p2p_real.tabletop.train.data import (
    Scenes,
    held_out_images,
    held_out_records,
    signed,
)
from p2p_real.tabletop.train.loop import Task
from p2p_real.tabletop.train.settings import Settings

SHIFT = 4  # pixels


class ReaderTask(Task):
    """Trains the reader on pictures made as soft and noisy as decoded latents are."""

    name = "reader"
    betas = (0.9, 0.999)
    weight_decay = 0.02
    warmup = 30
    shared = False  # workers would write its batch norms' running means at once

    def __init__(self, settings: Settings, scenes: Scenes) -> None:
        self.scenes = scenes
        self.single = torch.tensor([k for k, r in enumerate(scenes.records) if _one(r["objects"])])
        self.answers = torch.tensor([labels(scenes.records[k]) for k in self.single.tolist()])
        records = held_out_records(settings.held_out)
        keep = [k for k, record in enumerate(records) if _one(record["objects"])]
        self.held_out = held_out_images(settings)[keep]
        self.wanted = torch.tensor([labels(records[k]) for k in keep])
        self.reader = Reader()
        super().__init__(settings, {"reader": self.reader})

    def batch(self, rng: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """Draws pictures and their five answers."""
        rows = torch.randint(len(self.single), (3 * self.settings.batch // 2,), generator=rng)
        x = signed(self.scenes.images(self.single[rows]))
        return self._worn(x, rng), self.answers[rows]

    def loss(self, *batch: Tensor) -> Tensor:
        """Gives the sum of the five cross-entropies."""
        x, answers = batch
        errors = [cross_entropy(p.float(), answers[:, k]) for k, p in enumerate(self.reader(x))]
        return torch.stack(errors).sum()

    def measure(self) -> dict[str, float]:
        """Gives the share of right answers on held-out pictures, for each attribute and for all."""
        pictures = self.held_out.permute(0, 2, 3, 1).to(self.settings.device)
        read = torch.cat([self.reader.indices(part).cpu() for part in pictures.split(64)])
        right = read == self.wanted
        return {
            **dict(zip(HEADS, right.float().mean(0).tolist(), strict=True)),
            "all": float(right.all(1).float().mean()),
        }

    def _worn(self, x: Tensor, rng: torch.Generator) -> Tensor:
        chance, keep, grain = torch.rand(3, generator=rng).tolist()
        if chance < 0.5:
            small = interpolate(x, scale_factor=0.3 + 0.6 * keep, mode="bilinear", antialias=True)
            x = interpolate(small, size=x.shape[-2:], mode="bilinear")
        x = x + torch.randn(x.shape, generator=rng) * 0.06 * grain
        x = x + torch.randn(len(x), 3, 1, 1, generator=rng) * 0.02
        shift = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=rng).tolist()
        return torch.roll(x, shift, (2, 3))


def _one(objects: list[object]) -> bool:
    return len(objects) == 1
