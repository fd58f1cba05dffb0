"""Figures of a checkpoint: `python -m p2p_real.tabletop.evaluate FOLDER`."""

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import BlipForConditionalGeneration, BlipProcessor

from p2p_real.tabletop import CAPTIONER, CHECKPOINT, READER
from p2p_real.tabletop.reader import HEADS, Reader, labels, load_reader
from p2p_real.tabletop.render import render
from p2p_real.tabletop.scene import (
    Record,
    caption,
    held_out_rng,
    noun_phrase,
    parse_caption,
    sample_scene,
)
from p2p_real.tabletop.train.renderer import chunk_records

SINGLE, MIXED, PAIRS = 1, 3, 5  # seeds of held-out records: one object, one or two, two
CHUNKS, CHUNK = 78, 500  # of the scenes that what is shipped was trained on


def held_out(count: int, seed: int, two: float) -> list[Record]:
    """Draws held-out records.

    Args:
        count: How many.
        seed: Of the stream.
        two: Share of scenes with two objects.
    """
    rng = held_out_rng(seed)
    return [sample_scene(rng, two) for _ in range(count)]


def reading_figures(
    reader: Reader, pictures: Tensor, records: Sequence[Record]
) -> dict[str, float]:
    """Gives the share of attributes that the reader finds as the records say.

    Args:
        reader: On the CPU.
        pictures: uint8 [B, 128, 128, 3].
        records: One-object scenes, B of them.

    Returns:
        A share for each of `reader.HEADS`, and `all` for pictures right in every one.
    """
    right = reader.indices(pictures) == torch.tensor([labels(record) for record in records])
    shares = [*right.float().mean(0).tolist(), float(right.all(1).float().mean())]
    return {name: round(share, 4) for name, share in zip([*HEADS, "all"], shares, strict=True)}


def unseen_pairs(count: int) -> list[Record]:
    """Draws held-out two-object records whose pair of objects no training scene shows.

    A pair is two objects of a colour, a material and a shape each, whichever stands left.

    Args:
        count: How many.
    """
    scenes = (record for chunk in range(CHUNKS) for record in chunk_records(chunk, CHUNK))
    seen = {_pair(record) for record in scenes if len(record["objects"]) == 2}
    rng = held_out_rng(PAIRS)
    found: list[Record] = []
    while len(found) < count:
        record = sample_scene(rng, two=1.0)
        if _pair(record) not in seen:
            found.append(record)
    return found


def pair_figures(folder: Path, pictures: Tensor, records: Sequence[Record]) -> dict[str, float]:
    """Gives how often the captioner finds what two-object records say.

    Args:
        folder: A BLIP folder.
        pictures: uint8 [B, 128, 128, 3].
        records: B scenes.

    Returns:
        The share of pictures with both objects right, and with ground and light right too.
    """
    both = everything = 0
    for said, record in zip(say(folder, pictures), records, strict=True):
        try:
            read, wanted = parse_caption(said), parse_caption(caption(record))
        except ValueError:
            continue
        both += read["objects"] == wanted["objects"]
        everything += read == wanted
    return {"both objects": both / len(records), "all": everything / len(records)}


@torch.no_grad()
def vae_figures(pipe: StableDiffusionPipeline, pictures: Tensor) -> tuple[dict[str, float], Tensor]:
    """Sends pictures through the autoencoder.

    Args:
        pipe: The checkpoint.
        pictures: uint8 [B, 128, 128, 3].

    Returns:
        Mean and worst PSNR in dB, and what came back, uint8 [B, 128, 128, 3].
    """
    back = []
    for part in pictures.split(16):
        x = part.permute(0, 3, 1, 2).to(pipe.device).float() / 127.5 - 1
        y = pipe.vae.decode(pipe.vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        back.append(((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu())
    returned = torch.cat(back)
    error = ((returned.float() - pictures.float()) / 255).pow(2).mean((1, 2, 3))
    psnr = -10 * error.log10()  # [B]
    return {"mean": round(float(psnr.mean()), 2), "worst": round(float(psnr.min()), 2)}, returned


def generate(
    pipe: StableDiffusionPipeline, captions: Sequence[str], guidance: float, steps: int = 30
) -> Tensor:
    """Draws captions, with the same noise for the same place in the list.

    Args:
        pipe: The checkpoint.
        captions: What to draw.
        guidance: Guidance scale.
        steps: Sampling steps.

    Returns:
        Pictures, uint8 [B, 128, 128, 3].
    """
    rng = torch.Generator().manual_seed(1)
    pictures = []
    for part in tqdm(list(_parts(captions, 20)), desc=f"guidance {guidance:g}"):
        images = pipe(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=rng,
            output_type="np",
        ).images
        pictures.append(torch.from_numpy((images * 255).round().astype(np.uint8)))
    return torch.cat(pictures)


def captioner_figures(
    folder: Path, pictures: Tensor, records: Sequence[Record]
) -> dict[str, float]:
    """Gives how often a captioner says exactly what a record's caption says.

    Args:
        folder: A BLIP folder.
        pictures: uint8 [B, 128, 128, 3].
        records: B scenes.

    Returns:
        The share of exact captions: of all, of one-object scenes and of two-object scenes.
    """
    said = say(folder, pictures)
    right = [text == caption(record) for text, record in zip(said, records, strict=True)]
    figures = {"exact": sum(right) / len(right)}
    for name, count in (("one object", 1), ("two objects", 2)):
        some = [ok for ok, r in zip(right, records, strict=True) if len(r["objects"]) == count]
        if some:
            figures[name] = sum(some) / len(some)
    return {name: round(value, 4) for name, value in figures.items()}


@torch.no_grad()
def say(folder: Path, pictures: Tensor) -> list[str]:
    """Captions pictures, uint8 [B, H, W, 3], with a BLIP folder."""
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder).float().eval()
    texts: list[str] = []
    for part in pictures.split(32):
        images = [Image.fromarray(picture.numpy()) for picture in part]
        pixels = processor(images=images, return_tensors="pt").pixel_values
        ids = model.generate(pixel_values=pixels, max_new_tokens=30)
        texts += processor.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in texts]


def load_pipeline(folder: Path, device: str = "cpu") -> StableDiffusionPipeline:
    """Loads a checkpoint folder in float32, without a look at the network."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a checkpoint, a captioner and a reader, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m p2p_real.tabletop.evaluate",
        description="Measure a tabletop checkpoint on held-out scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", default=CHECKPOINT, help="a checkpoint")
    parser.add_argument("--captioner", type=Path, default=CAPTIONER, help="a BLIP folder")
    parser.add_argument("--reader", type=Path, default=READER, help="the reader's weights")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes for each figure")
    parser.add_argument("--guidance", type=float, nargs="*", default=[3.0, 5.0], help="scales")
    parser.add_argument("--device", default="cpu", help="where the checkpoint runs")
    args = parser.parse_args(arguments)
    logging.getLogger("diffusers").setLevel(logging.ERROR)

    pipe, reader = load_pipeline(args.folder, args.device), load_reader(args.reader)
    single, mixed = held_out(args.scenes, SINGLE, 0.0), held_out(args.scenes, MIXED, 0.25)
    rendered, pictures = render(single), render(mixed)
    psnr, _ = vae_figures(pipe, pictures)
    _, returned = vae_figures(pipe, rendered)
    reading = {
        "rendered": reading_figures(reader, rendered, single),
        "through the autoencoder": reading_figures(reader, returned, single),
    }
    pairs = unseen_pairs(args.scenes)
    composed = {"rendered": pair_figures(args.captioner, render(pairs), pairs)}
    captions, double = ([caption(record) for record in some] for some in (single, pairs))
    for guidance in args.guidance:
        name = f"drawn at guidance {guidance:g}"
        reading[name] = reading_figures(reader, generate(pipe, captions, guidance), single)
        drawn = generate(pipe, double, guidance)
        composed[name] = pair_figures(args.captioner, drawn, pairs)
    figures = {
        "scenes": args.scenes,
        "autoencoder psnr": psnr,
        "captioner": captioner_figures(args.captioner, pictures, mixed),
        "read": reading,
        "pairs of objects that training never showed": composed,
    }
    print(json.dumps(figures, indent=1))
    return 0


def _pair(record: Record) -> frozenset[str]:
    return frozenset(noun_phrase(thing) for thing in record["objects"])


def _parts(items: Sequence[str], count: int) -> Iterator[list[str]]:
    for start in range(0, len(items), count):
        yield list(items[start : start + count])


if __name__ == "__main__":
    raise SystemExit(main())
