"""The two tokenizers: CLIP's for the text encoder, BERT's for the captioner."""

import json
import random
import string
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

from p2p_real.tabletop.scene import (
    COLORS,
    GROUND_PHRASES,
    LIGHTS,
    MATERIALS,
    SHAPES,
    caption,
    sample_scene,
)

DECODE = "[DEC]"  # what BLIP's text decoder starts a caption with
TOKENS = 77  # as in Stable Diffusion, so that nothing downstream needs an exception
# words that people add to prompts and that the world does not draw
EVERYDAY = (
    "photo of the and with in a an on at is are its next to left right two small large big shiny "
    "toy wooden picture image painting drawing sketch style"
)
_SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def world_words() -> list[str]:
    """Lists every word a caption can hold, in alphabetical order."""
    materials = MATERIALS[1:]  # plain is not said
    phrases = [*SHAPES, *COLORS, *materials, *LIGHTS, *GROUND_PHRASES.values(), "a and at"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def make_clip_tokenizer(scenes: int = 20_000) -> CLIPTokenizer:
    """Learns byte pairs from captions: a word of the world is one token, no text is unknown.

    Args:
        scenes: How many captions to learn from.

    Returns:
        CLIP's own tokenizer with a vocabulary of some 670 entries.
    """
    rng = random.Random(0)
    texts = [caption(sample_scene(rng)) for _ in range(scenes)]
    texts += [" ".join([EVERYDAY, *world_words()])] * max(60, scenes // 50)
    merges = _learn_merges(texts)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges)]
    symbols = list(dict.fromkeys(symbols))
    vocab = {symbol: i for i, symbol in enumerate([*symbols, "<|startoftext|>", "<|endoftext|>"])}
    lines = ["#version: 0.2", *map(" ".join, merges)]
    # by way of files, which transformers 4 and 5 both read
    with TemporaryDirectory() as name:
        Path(name, "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
        Path(name, "merges.txt").write_text("".join(f"{line}\n" for line in lines))
        return CLIPTokenizer.from_pretrained(name, model_max_length=TOKENS)


def make_bert_tokenizer() -> BertTokenizer:
    """Gives the captioner's tokenizer: the words of the world, and letters for all else."""
    letters = [*string.ascii_lowercase, *string.digits, *".,!?'-"]
    words = sorted({*world_words(), "photo", "of"} - set(letters))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", DECODE, "[ENC]"]
    entries = [*special, *letters, *("##" + letter for letter in letters), *words]
    with TemporaryDirectory() as name:
        Path(name, "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries))
        # without the last argument decoding would leave [DEC] in the caption
        return BertTokenizer.from_pretrained(
            name, model_max_length=48, additional_special_tokens=[DECODE, "[ENC]"]
        )


def _learn_merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=50,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
