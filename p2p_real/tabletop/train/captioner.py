"""Stage `captioner`: BLIP's own class, tiny, taught the captions of this world."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import BertTokenizer

from p2p_real.tabletop.models import make_captioner
from p2p_real.tabletop.scene import (
    COLORS,
    GROUNDS,
    LIGHTS,
    MATERIALS,
    SHAPES,
    Record,
    caption,
)
from p2p_real.tabletop.train.curves import save_sheet
from p2p_real.tabletop.train.data import Scenes, held_out_images, held_out_records
from p2p_real.tabletop.train.loop import Task
from p2p_real.tabletop.train.settings import Settings
from p2p_real.tabletop.vocabulary import DECODE

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of BLIP's image processor
STD = (0.26862954, 0.26130258, 0.27577711)
LONGEST = 18  # tokens of the longest caption and one more
SKIP = -100  # what a cross-entropy leaves out


class CaptionerTask(Task):
    """Trains the captioner, with help for its vision half that is thrown away at the end.

    A caption says the shape in one word of ten, which is little to learn seeing from. So
    linear heads also tell for each patch whether an object stands there and its shape, colour
    and material, and for the whole picture ground and light: the renderer knows them all.
    """

    name = "captioner"
    lr = 1.5e-3
    betas = (0.9, 0.98)
    weight_decay = 0.01
    plain = ("patch_embedding", "heads")

    def __init__(self, settings: Settings, scenes: Scenes, tokenizer: BertTokenizer) -> None:
        self.scenes, self.tokenizer = scenes, tokenizer
        self.model = make_captioner(tokenizer, settings.widths)
        width = settings.widths.captioner
        self.heads = nn.ModuleDict(
            {
                "stands": nn.Linear(width, 2),
                "shape": nn.Linear(width, len(SHAPES)),
                "color": nn.Linear(width, len(COLORS)),
                "material": nn.Linear(width, len(MATERIALS)),
                "ground": nn.Linear(width, len(GROUNDS)),
                "light": nn.Linear(width, len(LIGHTS)),
            }
        )
        self.side = self.model.config.vision_config.image_size
        self.patches = self.side // self.model.config.vision_config.patch_size
        self.tokens = self._tokens([caption(record) for record in scenes.records])
        self.answers = torch.tensor([_answers(record) for record in scenes.records])  # [N, 2, 5]
        self.held_out = held_out_images(settings)
        self.wanted = [caption(record) for record in held_out_records(settings.held_out)]
        super().__init__(
            settings, {"model": self.model, "heads": nn.ModuleDict({"heads": self.heads})}
        )

    def batch(self, rng: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """Draws pictures, caption tokens, the object at each patch and what it is."""
        rows = self.scenes.draw(rng, self.settings.batch)
        pixels = captioner_pixels(self.scenes.images(rows), self.side)
        return pixels, self.tokens[rows], self._standing(self.scenes.ids(rows)), self.answers[rows]

    def loss(self, *batch: Tensor) -> Tensor:
        """Gives the error of the caption and of the helping heads."""
        pixels, tokens, standing, answers = batch
        seen = self.model.vision_model(pixel_values=pixels).last_hidden_state  # [B, 1 + P, D]
        said = self.model.text_decoder(
            input_ids=tokens,
            attention_mask=(tokens != self.tokenizer.pad_token_id).long(),
            encoder_hidden_states=seen,
        ).logits  # [B, T, words]
        labels = tokens.masked_fill(tokens == self.tokenizer.pad_token_id, SKIP)
        words = cross_entropy(
            said[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=SKIP
        )
        return 2 * words + self._help(seen[:, 0], seen[:, 1:], standing, answers)

    def measure(self) -> dict[str, float]:
        """Gives the share of held-out captions that are right to the word, and of right words."""
        said = self._said()
        words = [
            sum(a == b for a, b in zip(text.split(), want.split(), strict=False))
            / len(want.split())
            for text, want in zip(said, self.wanted, strict=True)
        ]
        exact = [text == want for text, want in zip(said, self.wanted, strict=True)]
        return {"exact": sum(exact) / len(exact), "words": sum(words) / len(words)}

    def samples(self, folder: Path) -> None:
        """Writes eight held-out pictures and what is said of them."""
        save_sheet(folder / "captioner.png", self.held_out[:8].permute(0, 2, 3, 1))
        (folder / "captioner.txt").write_text("\n".join(self._said(8)) + "\n")

    def _said(self, count: int | None = None) -> list[str]:
        texts = []
        for images in self.held_out[:count].split(32):
            pixels = captioner_pixels(images, self.side).to(self.settings.device)
            ids = self.model.generate(pixel_values=pixels, max_new_tokens=LONGEST + 2)
            texts += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _help(self, whole: Tensor, patches: Tensor, standing: Tensor, answers: Tensor) -> Tensor:
        """Gives the error of the helping heads; `standing` is [B, P], `answers` [B, 2, 5]."""

        def error(head: str, features: Tensor, answer: Tensor) -> Tensor:
            logits = self.heads[head](features).float()
            # a mean that is 0, not NaN, where there is nothing to answer
            total = cross_entropy(logits, answer, ignore_index=SKIP, reduction="sum")
            return total / (answer != SKIP).sum().clamp(min=1)

        anything = torch.where(standing == -2, SKIP, (standing >= 0).long())
        rows = torch.arange(len(standing), device=standing.device)[:, None].expand_as(standing)
        there = standing >= 0
        objects = answers[rows[there], standing[there].long()]  # [objects' patches, 5]
        features = patches[there]
        total = 0.3 * error("stands", patches.flatten(0, 1), anything.flatten())
        for k, (head, weight) in enumerate((("shape", 0.5), ("color", 0.2), ("material", 0.2))):
            total = total + weight * error(head, features, objects[:, k])
        total = total + 0.2 * error("ground", whole, answers[:, 0, 3])
        return total + 0.2 * error("light", whole, answers[:, 0, 4])

    def _standing(self, ids: Tensor) -> Tensor:
        """The object in each patch, [B, P]: -1 for none, -2 where only a little of one is seen."""
        shares = torch.stack(
            [interpolate((ids == k)[:, None].float(), self.patches, mode="area") for k in range(2)]
        )[:, :, 0]  # [objects, B, rows, columns]
        most, which = shares.max(0)
        none = torch.where(shares.sum(0) == 0, -1, -2)
        return torch.where(most > 0.25, which, none).flatten(1)

    def _tokens(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(texts, padding="max_length", max_length=LONGEST).input_ids
        tokens = torch.tensor(ids)
        tokens[:, 0] = self.tokenizer.convert_tokens_to_ids(DECODE)  # instead of [CLS]
        return tokens


def captioner_pixels(images: Tensor, side: int) -> Tensor:
    """Does what the captioner's image processor does, [B, 3, side, side].

    Args:
        images: Pictures, uint8 [B, 3, H, W].
        side: Width and height that the captioner looks at.
    """
    small = interpolate(images.float(), size=side, mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (small.round().clamp(0, 255) / 255 - mean) / std


def _answers(record: Record) -> list[list[int]]:
    """Indices of shape, colour, material, ground and light, for each of two objects."""
    things = (record["objects"] * 2)[:2]
    scene = [GROUNDS.index(record["ground"]), LIGHTS.index(record["light"])]
    return [
        [
            SHAPES.index(thing["shape"]),
            COLORS.index(thing["color"]),
            MATERIALS.index(thing["material"]),
            *scene,
        ]
        for thing in things
    ]
