"""A small CNN that reads shape, colour, material, ground and light of a one-object picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from p2p_real.tabletop import READER
from p2p_real.tabletop.scene import COLORS, GROUNDS, LIGHTS, MATERIALS, SHAPES, Record

HEADS = {
    "shape": SHAPES,
    "color": COLORS,
    "material": MATERIALS,
    "ground": GROUNDS,
    "light": LIGHTS,
}


def labels(record: Record) -> list[int]:
    """Gives what the reader should answer for a record, an index for each of `HEADS`."""
    values = {**record["objects"][0], "ground": record["ground"], "light": record["light"]}
    return [choices.index(values[name]) for name, choices in HEADS.items()]


class Reader(nn.Module):
    """Reads the five attributes of 128 x 128 pictures with one object.

    Args:
        widths: Channels of the five stages behind the first convolution.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128, 160)) -> None:
        super().__init__()
        layers = _block(3, 16, 5, 2)
        last = 16
        for i, width in enumerate(widths):
            layers += _block(last, width, 3, 2 if i else 1) + _block(width, width, 3, 1)
            last = width
        self.body = nn.Sequential(*layers)  # 128 -> 64 -> 64 -> 32 -> 16 -> 8 -> 4
        self.mix = nn.Linear(last * 16, 256)
        self.heads = nn.ModuleList([nn.Linear(256, len(values)) for values in HEADS.values()])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Gives logits, one tensor [B, values] for each of `HEADS`.

        Args:
            x: Pictures, [B, 3, 128, 128] in [-1, 1].
        """
        features = self.body(x).flatten(1)
        features = relu(self.mix(dropout(features, 0.1, self.training)))
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def indices(self, pictures: Tensor) -> Tensor:
        """Reads pictures, uint8 [B, 128, 128, 3], as indices into `HEADS`, [B, 5]."""
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1  # [B, 3, H, W]
        return torch.stack([logits.argmax(1) for logits in self(x)], 1)

    def read(self, pictures: Tensor) -> list[dict[str, str]]:
        """Reads pictures, uint8 [B, 128, 128, 3], as words: `{"shape": "mug", ...}` for each."""
        return [_words(row) for row in self.indices(pictures).tolist()]


def load_reader(path: str | Path = READER, device: str | torch.device = "cpu") -> Reader:
    """Loads a reader for use.

    Args:
        path: A safetensors file of its weights.
        device: Where it is to run.

    Returns:
        The reader, in evaluation mode and float32.

    Example:
        >>> from p2p_real.tabletop.render import render
        >>> from p2p_real.tabletop.scene import held_out_rng, sample_scene
        >>> scene = sample_scene(held_out_rng(0), two=0)
        >>> load_reader().read(render([scene]))[0]["light"] == scene["light"]
        True
    """
    reader = Reader()
    reader.load_state_dict(load_file(path))
    return reader.float().to(device).eval().requires_grad_(False)


def _block(before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


def _words(row: Iterable[int]) -> dict[str, str]:
    return {name: values[i] for (name, values), i in zip(HEADS.items(), row, strict=True)}
