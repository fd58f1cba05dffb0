"""Masks: their text, their algebra, every source, and what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captioning.matching import WordNotInPrompt
from edit import BlendWords, Control, ControlStack, FixedMask, LocalBlend, NothingActed, SelfStore
from edit.control import Call
from inversion import ClassifierFree, sample
from inversion.denoiser import COND
from inversion.registry import SettingError, UnknownMethod
from p2p_real import Editor
from p2p_real.backbones import load_backbone
from p2p_real.fitting import fit_photo
from p2p_real.images import open_photo
from p2p_real.masks import (
    EmptyMask,
    Mask,
    MaskAsked,
    MaskError,
    Subject,
    feather,
    grow,
    invert,
    mask_sources,
    parse,
    shrink,
)
from p2p_real.masks.combine import difference, intersection, union
from p2p_real.masks.sources.box import corners
from p2p_real.masks.sources.segment import find_boxes, outline
from p2p_real.masks.sources.words import mutual
from p2p_real.numbers import OptionError
from p2p_real.steering import EditControl
from p2p_real.tabletop.scene import held_out_rng, sample_edit, sample_scene
from p2p_real.tabletop.truth import truth_pair
from tests.small import small_sd, small_sdxl
from tests.walks import Walker, off

RED_BALL = "a red ball on a wooden table at noon"


def draw(height: int, width: int, seed: int = 0, hard: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width), np.float32)
    return (values > 0.9).astype(np.float32) if hard else values


def box(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    values = np.zeros((height, width), np.float32)
    values[y0:y1, x0:x1] = 1
    return values


# The text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("words:red ball", "words:red ball"),
        ("diffedit", "diffedit"),
        ("words:a|box:0,0,1,1 - file:b.png", "words:a | box:0,0,1,1 - file:b.png"),
        ("words:a - (words:b | words:c)", "words:a - (words:b | words:c)"),
        ("(words:a - words:b) | words:c", "words:a - words:b | words:c"),
        ("words:a | words:b & words:c", "words:a | words:b & words:c"),
        ("(words:a | words:b) & words:c", "(words:a | words:b) & words:c"),
        ("~words:a & ~(words:b | words:c)", "~words:a & ~(words:b | words:c)"),
        ("WORDS: t-shirt - file: a-b.png", "words:t-shirt - file:a-b.png"),
        ('file:"a (1) & b.png"', 'file:"a (1) & b.png"'),
        ("words:cat#2", "words:cat#2"),
    ],
)
def test_a_text_is_read_as_it_says(text: str, read: str) -> None:
    assert str(parse(text)) == read
    assert parse(read) == parse(text)  # what is written is read the same again


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("words:a |", r"expected a source such as words:ball, at its end"),
        ("(words:a", "a bracket is not closed, at its end"),
        ("words:a) | words:b", r"expected \|, & or - between two masks, at character 8"),
        ("| words:a", r"expected a source .*, at character 1, before '\| words:a'"),
        ("words:a & & words:b", "expected a source .*, at character 11"),
        ("~", "expected a source .*, at its end"),
        ('file:"a', "at character 6"),
        ("words:a | 3", "no source and no sign starts here, at character 11, before '3'"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_at_its_place(text: str, said: str) -> None:
    with pytest.raises(MaskError, match=said):
        parse(text)


def test_the_signs_bind_as_stated() -> None:
    size, boxes = (10, 10), "box:0,0,6,6|box:4,4,10,10"
    given = {
        boxes: union(box(*size, 0, 0, 6, 6), box(*size, 4, 4, 10, 10)),
        f"{boxes} & box:0,0,2,2": union(box(*size, 0, 0, 6, 6), np.zeros(size, np.float32)),
        f"({boxes}) & box:0,0,2,2": box(*size, 0, 0, 2, 2),
        "box:0,0,6,6 - box:0,0,3,6 | box:0,0,2,2": union(
            box(*size, 3, 0, 6, 6), box(*size, 0, 0, 2, 2)
        ),
        "~box:0,0,6,10 & box:0,0,10,5": box(*size, 6, 0, 10, 5),
    }
    given[f"{boxes} & box:0,0,2,2"] = box(*size, 0, 0, 6, 6)
    for text, want in given.items():
        found = made(text, size)
        assert np.array_equal(found.values, want), text


def nothing(*_: Any) -> Any:
    raise AssertionError("this source looks at nothing of the kind")


def subject(size: tuple[int, int], mode: str = "resize", native: int = 64, **more: Any) -> Subject:
    height, width = size
    fit = fit_photo(Image.new("RGB", (width, height)), multiple=8, native=native, mode=mode)[1]
    return Subject(fit, nothing, None, nothing, **more)  # type: ignore[arg-type]


def made(text: str, size: tuple[int, int], **edge: Any) -> Mask:
    return MaskAsked(text, **edge).make(subject(size))


# The algebra -----------------------------------------------------------------------------------


def test_fuzzy_sets() -> None:
    a, b = draw(9, 14, 1), draw(9, 14, 2)
    np.testing.assert_allclose(invert(invert(a)), a, atol=1e-7)
    hard = draw(9, 14, 3, hard=True)
    assert np.array_equal(invert(invert(hard)), hard)
    assert np.array_equal(union(a, b), union(b, a))
    assert np.array_equal(intersection(a, b), intersection(b, a))
    assert np.array_equal(invert(union(a, b)), intersection(invert(a), invert(b)))
    assert np.array_equal(difference(a, b), intersection(a, invert(b)))
    assert not difference(hard, hard).any()


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("size", [(13, 22), (1, 7), (8, 1)])
def test_growing_and_shrinking(size: tuple[int, int], hard: bool) -> None:
    mask = draw(*size, 5, hard)
    assert np.array_equal(grow(mask, 0), mask)
    for n in range(4):
        assert (grow(mask, n + 1) >= grow(mask, n)).all()
        assert (shrink(mask, n + 1) <= shrink(mask, n) + 1e-7).all()
    assert (shrink(grow(mask, 2), 2) >= mask - 1e-6).all()  # holes may close, nothing is lost


def test_growing_is_by_that_many_pixels() -> None:
    dot = box(21, 21, 10, 10, 11, 11)
    for n in (1, 2, 5):
        wide = grow(dot, n)
        rows, columns = np.nonzero(wide)
        assert (rows.min(), rows.max()) == (10 - n, 10 + n)
        assert (columns.min(), columns.max()) == (10 - n, 10 + n)
        assert np.array_equal(wide, wide.T)
        assert wide.sum() < (2 * n + 1) ** 2 or n == 0  # an octagon, not a square
        assert np.array_equal(shrink(wide, n), dot)


@pytest.mark.parametrize("hard", [True, False])
def test_a_feather_stays_inside(hard: bool) -> None:
    mask = draw(20, 30, 6) if not hard else grow(draw(20, 30, 6, True), 3)
    soft = feather(mask, 4)
    assert (soft <= mask).all()
    assert ((soft > 0) == (mask > 0)).all()  # no pixel is lost
    np.testing.assert_allclose(feather(soft, 4), soft, atol=1e-6)  # soft enough already
    assert np.abs(np.diff(soft, axis=0)).max() <= 1 / 5 + 1e-6
    assert np.abs(np.diff(soft, axis=1)).max() <= 1 / 5 + 1e-6


def test_a_feather_rises_step_by_step() -> None:
    soft = feather(box(9, 12, 3, 0, 12, 9), 3)  # the picture's border is no edge
    np.testing.assert_allclose(soft[4], [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1])


def test_a_mask_of_numbers() -> None:
    mask = Mask(np.array([[0, 0.25], [1, 1]]))
    assert (mask.size, mask.coverage, mask.is_hard) == ((2, 2), 0.5625, False)
    assert np.asarray(mask.image).tolist() == [[0, 64], [255, 255]]
    assert made("box:0,0,1,1", (5, 7)).coverage == 1.0  # a mask of everything is allowed
    for wrong in (np.zeros((2, 2, 2)), np.full((2, 2), 1.5), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="a mask"):
            Mask(wrong)


@pytest.mark.parametrize("mode", ["resize", "pad", "crop"])
@pytest.mark.parametrize("size", [(64, 64), (61, 83), (40, 131), (200, 97)])
def test_masks_go_to_the_latents_and_back(mode: str, size: tuple[int, int]) -> None:
    """Of any size and fit: what the mask fills is free, what it does not touch is not."""
    there = subject(size, mode)
    height, width = size
    values = box(height, width, 0, 0, width // 2, height)
    h, w = there.fit.fitted[1] // 8, there.fit.fitted[0] // 8
    found = Mask(values).latent((h, w), there.fit)
    assert found.shape == (1, 1, h, w)
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    edge = (width / 2 - there.fit.box[0]) * there.fit.scaled[0] / there.fit.part[0] / 8
    inside = min(w, there.fit.scaled[0] // 8)  # what lies beyond is padding
    assert found[0, 0, :, : max(0, int(edge) - 1)].all()
    assert not found[0, 0, :, int(edge) + 2 : inside].any()


# Sources that look at nothing -------------------------------------------------------------------


def test_boxes() -> None:
    assert corners("0.25,0,0.5,1", (8, 6)) == (2, 0, 4, 6)
    assert corners("0,0,1,1", (8, 6)) == (0, 0, 8, 6)
    assert corners("0.3,0.3,0.31,0.31", (8, 6)) == (2, 1, 3, 2)  # whatever it touches
    assert corners("2,1,8,6", (8, 6)) == (2, 1, 8, 6)
    for text, said in (
        ("1,2,3", "give four numbers"),
        ("a,b,c,d", "give four numbers"),
        ("3,0,2,5", "left top corner comes first"),
        ("-1,0,2,5", "left top corner comes first"),
        ("0,0,nan,1", "left top corner comes first"),
        ("0,0,9,6", "beyond the photo, which has 8 x 6"),
        ("0,0,2.5,3", "whole pixels, or fractions"),
    ):
        with pytest.raises(MaskError, match=said):
            corners(text, (8, 6))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "keep (1).png"
    Image.fromarray((draw(20, 30, 7) * 255).astype(np.uint8)).save(path)
    grey = np.asarray(Image.open(path), np.float32) / 255
    text = f'file:"{path}"'
    assert np.array_equal(made(text, (20, 30)).values, (grey > 0.5).astype(np.float32))
    soft = made(text, (20, 30), settings={"soft": "yes"})
    assert np.array_equal(soft.values, grey)
    assert not soft.is_hard
    with pytest.raises(MaskError, match="is 30 x 20, the photo 31 x 20"):
        made(text, (20, 31))
    Image.new("L", (30, 20)).save(path)
    with pytest.raises(MaskError, match="nothing white"):
        made(text, (20, 30))


def test_an_edge_may_be_a_fraction() -> None:
    assert np.array_equal(
        made("box:5,5,15,15", (20, 40), grow=0.1).values,
        made("box:5,5,15,15", (20, 40), grow=2).values,
    )
    for edge, said in (
        ({"grow": -1}, "--grow -1"),
        ({"feather": 1.5}, "--feather 1.5: give whole"),
    ):
        with pytest.raises(MaskError, match=said):
            made("box:0,0,1,1", (20, 40), **edge)


@pytest.mark.parametrize(
    ("text", "more", "error", "said"),
    [
        ("box:0,0,5,5 - box:0,0,1,1", {}, EmptyMask, "box:0,0,5,5 - box:0,0,1,1' is empty"),
        ("~box:0,0,1,1", {}, EmptyMask, "'~box:0,0,1,1' is empty"),
        ("box:0,0,5,5", {"shrink": 9}, EmptyMask, "'box:0,0,5,5' is empty.*smaller --shrink"),
        ("wrods:ball", {}, UnknownMethod, "no mask method 'wrods'.*did you mean 'words'"),
        (
            "box:0,0,1,1",
            {"settings": {"soft": 1}},
            MaskError,
            "has such a setting; there are: none",
        ),
        ("words:ball", {"settings": {"threshold": 2}}, SettingError, "threshold=2 is out of range"),
        ("words", {}, MaskError, "say which, such as words:ball"),
        ("diffedit", {}, MaskError, "diffedit needs a new prompt"),
        (
            "segment:cat",
            {},
            MaskError,
            "needs a GroundingDINO and a SAM.*--segment-models DINO,SAM",
        ),
        (
            "segment:cat",
            {"settings": {"models": "/no/dino,/no/sam"}},
            MaskError,
            "there is no folder /no/dino",
        ),
    ],
)
def test_masks_that_cannot_be_made(
    text: str, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        made(text, (20, 30), **more)


def test_words_are_checked_without_any_weight() -> None:
    MaskAsked("words:ball - words:table").check(source=RED_BALL)
    with pytest.raises(WordNotInPrompt, match="no word 'cube'"):
        MaskAsked("words:ball | words:cube").check(source=RED_BALL)


# Options ---------------------------------------------------------------------------------------


def test_options_become_one_mask() -> None:
    how = EditControl(mask_from="words:a | words:b", mask_box=(0, 0, 0.5, 1), feather=2)
    assert how.mask_asked().spec == "(words:a | words:b) & box:0,0,0.5,1"
    assert how.settings()["mask_from"] == "words:a | words:b"
    photo = subject((40, 30))
    settled = EditControl(mask=np.ones((40, 30)), mask_box="0,0,15,40", grow=1).settled(photo)
    assert isinstance(settled.mask, Mask)
    assert settled.mask.coverage == 16 / 30
    assert settled.mask.spec == "box:0,0,15,40 & given image"
    again = EditControl(mask=settled.mask).settled(photo)
    assert np.array_equal(again.mask.values, settled.mask.values)  # type: ignore[union-attr]
    for options, said in (
        ({"grow": 2}, "--grow belongs to a mask"),
        ({"local": "ball", "feather": 2}, "--feather belongs to a mask"),
        ({"mask_box": "0,0,1,1", "mask_options": {"threshold": 1}}, "--mask-option belongs to"),
    ):
        with pytest.raises(OptionError, match=said):
            EditControl(**options)
    with pytest.raises(OptionError, match="--mask is 3 x 4, the photo 30 x 40"):
        EditControl(mask=Mask(np.ones((4, 3)))).settled(photo)


# In a walk -------------------------------------------------------------------------------------

PROMPTS = ("a fluffy cat on a mat", "a fluffy dog on a mat")


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    folder = small_sd(tmp_path_factory.mktemp("masks") / "model")
    return Walker(load_backbone(str(folder), device="cpu", dtype="float32"), PROMPTS)


class Explicit(Control):
    """Sums the columns that a local blend reads, from whole maps."""

    def __init__(self, blend: LocalBlend) -> None:
        self.blend, self.sums = blend, {}  # type: ignore[var-annotated]

    def watches(self, site: Any) -> bool:
        return self.blend.watches(site)

    def wants_maps(self, call: Call) -> bool:
        return True

    def probs(self, p: Tensor, call: Call) -> Tensor:
        rows = [call.layout.index(COND, b) for b in range(2)]
        words = torch.stack([self.blend.words, self.blend.subtract], -1)  # type: ignore[list-item]
        maps = (p[rows].mean(1) @ words).transpose(1, 2).unflatten(-1, call.size)
        self.sums[call.size] = self.sums.get(call.size, 0) + maps
        return p


@pytest.mark.parametrize("scales", [(2,), (1, 2)])
def test_a_local_blend_makes_no_map(walker: Walker, scales: tuple[int, ...]) -> None:
    """Its sums are those of whole maps after the edits, and so is the picture."""
    record = walker.invert("direct")
    words = BlendWords((("cat", "dog"),), (("mat",),), scales=scales)
    fast = walker.controls(PROMPTS, 4, blend=words)
    x = walker.walk(record, PROMPTS, fast)
    slow = walker.controls(PROMPTS, 4, blend=words)
    watch = Explicit(slow[-1])
    y = walker.walk(record, PROMPTS, [*slow, watch])
    assert set(fast[-1]._sums) == set(watch.sums)
    for size, sums in watch.sums.items():
        assert off(fast[-1]._sums[size], sums) < 1e-5
    assert off(x, y) < 1e-5
    assert not fast[-1].wants_maps(None)  # type: ignore[arg-type]


def test_a_blend_that_reads_no_layer_is_an_error(walker: Walker) -> None:
    blend = LocalBlend(torch.ones(2, 77), scales=(64,))
    stack = ControlStack([blend])
    record = walker.invert("ddim", steps=1)
    denoiser = walker.denoiser(PROMPTS, ClassifierFree(3.0))
    sample(denoiser, record.replay(), record.schedule, [stack])
    with pytest.raises(NothingActed, match="no attention layer of scale"):
        stack.report()


def test_a_soft_value_lets_go_late(walker: Walker) -> None:
    """A place of value m is the source's until the last share m of the walk."""
    record = walker.invert("direct")
    values = torch.cat([torch.zeros(16, 5), torch.full((16, 5), 0.5), torch.ones(16, 6)], 1)
    seen: list[Tensor] = []

    class After(Control):
        def after(self, x: Tensor, step: Any) -> Tensor:
            seen.append((x[1] - x[0]).abs().amax(0))
            return x

    mask = FixedMask(values[None, None])
    walker.walk(record, PROMPTS, [*walker.controls(PROMPTS, 4), mask, After()])
    moved = torch.stack(seen)
    assert not moved[:, :, :5].any()
    assert not moved[:2, :, 5:10].any()
    assert (moved[2:, :, 5:10] > 0).all()
    assert (moved[:, :, 10:] > 0).all()


def test_outside_the_mask_a_path_may_be_kept(walker: Walker) -> None:
    record = walker.invert("ddim")
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    kept = FixedMask(mask, path=record.trajectory)
    x = walker.walk(record, PROMPTS, [*walker.controls(PROMPTS, 4), kept])
    assert torch.equal(x[1, :, :, :8], record.trajectory[0][:, :, :8])
    assert off(x[1, :, :, 8:], record.trajectory[0][:, :, 8:]) > 0.01


def test_links_go_both_ways() -> None:
    attention = torch.rand(6, 6, generator=torch.Generator().manual_seed(1))
    attention[0, 1], attention[1, 0] = 0.0, 5.0  # one way only is no link
    link = mutual(attention, 2.0)
    torch.testing.assert_close(link.sum(1), torch.ones(6))
    assert link[0, 1] == link[1, 0] == 0
    torch.testing.assert_close(mutual(torch.eye(4) + 1e-9, 3.0), torch.eye(4), atol=1e-5, rtol=0)


def test_the_mean_self_attention(walker: Walker) -> None:
    store = SelfStore(2)
    walker.walk(walker.invert("ddim"), PROMPTS[:1], [store])
    mean = store.average()
    assert mean.shape == (1, 64, 64)
    torch.testing.assert_close(mean.sum(-1), torch.ones(1, 64))
    with pytest.raises(LookupError, match="no self-attention layer of scale 2 was seen"):
        SelfStore(2).average()


# Sources that look -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def editor(walker: Walker) -> Editor:
    return Editor(walker.backbone)


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Small random checkpoints of the real classes."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("segmenters")
    torch.manual_seed(0)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "fluffy", "cat"]
    hf.BertTokenizerFast(vocab={w: i for i, w in enumerate(names)}).save_pretrained(folder / "dino")
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}
    text |= {"intermediate_size": 32, "max_position_embeddings": 32}
    swin = {"image_size": 64, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2]}
    config = hf.GroundingDinoConfig(
        text_config=hf.BertConfig(**text),
        backbone_config=hf.SwinConfig(
            **swin, window_size=2, out_features=["stage2", "stage3", "stage4"]
        ),
        num_queries=5,
        d_model=32,
        max_text_len=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    hf.GroundingDinoForObjectDetection(config).save_pretrained(folder / "dino")
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    vision |= {"image_size": 64, "patch_size": 8, "output_channels": 16, "num_pos_feats": 8}
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sam = hf.SamModel(
        hf.SamConfig(
            vision_config=vision | {"window_size": 0, "global_attn_indexes": [0]},
            prompt_encoder_config=prompt,
            mask_decoder_config=decoder | {"iou_head_hidden_dim": 16},
        )
    )
    sam.save_pretrained(folder / "sam")
    for kind, name, sizes in (
        (
            "GroundingDinoImageProcessor",
            "dino",
            {"size": {"shortest_edge": 64, "longest_edge": 96}},
        ),
        (
            "SamImageProcessor",
            "sam",
            {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}},
        ),
    ):
        cls = getattr(hf, f"{kind}Pil", None) or getattr(hf, kind)
        cls(**sizes).save_pretrained(folder / name)
    return f"{folder / 'dino'},{folder / 'sam'}"


def photo_of(height: int, width: int, alpha: bool = False) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = np.where(pixels[..., 3] < 60, 0, 255)
    image = Image.fromarray(pixels)
    return image if alpha else image.convert("RGB")


def test_a_detector_and_a_segmenter(editor: Editor, segmenters: str) -> None:
    """They are asked as transformers' own processors ask them."""
    import transformers as hf

    photo, (dino, sam) = photo_of(70, 90), segmenters.split(",")
    device = torch.device("cpu")
    boxes = find_boxes(photo, "Fluffy cat", dino, 0.0, device)
    assert boxes.shape == (5, 4)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(find_boxes(photo, "fluffy cat.", dino, 1.0, device)) == 0
    one = boxes[:1]
    own = getattr(hf, "SamImageProcessorPil", None) or hf.SamImageProcessor
    processor = hf.SamProcessor(own.from_pretrained(sam))
    inputs = processor(photo, input_boxes=[one.tolist()], return_tensors="pt")
    model = hf.SamModel.from_pretrained(sam)
    with torch.no_grad():
        out = model(**inputs, multimask_output=False).pred_masks
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    want = processor.image_processor.post_process_masks(out, *sizes)[0][0, 0]
    assert np.array_equal(outline(photo, one, sam, device), want.numpy().astype(np.float32))

    asked = {"models": segmenters, "box_threshold": 0.0}
    found = editor.mask(photo, "segment:fluffy cat", **asked)
    assert (found.size, found.is_hard) == ((90, 70), True)
    assert (found.values >= want.numpy()).all()
    with pytest.raises(EmptyMask, match="'segment:cat' is empty: it found nothing"):
        editor.mask(photo, "segment:cat", models=segmenters, box_threshold=1.0)
    with pytest.raises(MaskError, match="holds a 'sam' model where 'grounding-dino' belongs"):
        editor.mask(photo, "segment:cat", models=f"{sam},{dino}")
    (Path(sam) / "model.safetensors").rename(Path(sam) / "away")
    try:
        with pytest.raises(MaskError, match=r"cannot load .*: is the folder complete"):
            editor.mask(photo, "segment:cat", **asked)
    finally:
        (Path(sam) / "away").rename(Path(sam) / "model.safetensors")


@pytest.mark.parametrize(
    ("spec", "size", "fit"),
    [
        ("words:cat", (61, 83), "resize"),
        ("words:cat & box:0.1,0,1,0.9", (97, 64), "pad"),
        ("diffedit", (83, 61), "crop"),
        ("box:5,7,40,31", (61, 83), "crop"),
        ("file", (64, 64), "resize"),
        ("segment:cat & box:0.2,0.1,0.9,0.8", (70, 45), "pad"),
    ],
)
def test_outside_any_mask_the_photo_stays(
    editor: Editor, segmenters: str, tmp_path: Path, spec: str, size: tuple[int, int], fit: str
) -> None:
    """Bit for bit, at its own size, with its alpha; the mask that is shown is that which acted."""
    image = photo_of(*size, alpha=True)
    settings: dict[str, Any] = {}
    if spec == "file":
        Image.fromarray((box(*size, 9, 9, 40, 50) * 255).astype(np.uint8)).save(tmp_path / "m.png")
        spec = f"file:{tmp_path / 'm.png'}"
    if spec.startswith("segment"):
        settings = {"models": segmenters, "box_threshold": 0.0}
    elif spec == "diffedit":
        settings = {"ratio": 1.0}
    result = editor.edit(
        image,
        source=PROMPTS[0],
        swap={"cat": "dog"},
        method="ddim",
        steps=3,
        guidance_scale=3.0,
        fit=fit,
        mask_from=spec,
        mask_options=settings,
        feather=2,
        paste_back=True,
    )
    kept = open_photo(image)
    want = np.array(kept.finish(kept.image))
    got, shown = np.array(result.image), np.array(result.mask)
    assert got.shape == (*size, 4)
    assert np.array_equal(got[..., 3], np.array(image)[..., 3])
    assert shown.shape == size
    assert 0 < (shown > 0).mean() < 1
    assert np.array_equal(got[shown == 0], want[shown == 0])
    assert (got != want).any()
    assert ((shown > 0) & (shown < 255)).any()  # the feather
    coverage = result.report["mask_coverage"]
    assert coverage == pytest.approx(shown.mean() / 255, abs=3e-3)


def test_a_mask_of_editor_is_a_mask_for_editor(editor: Editor) -> None:
    photo = photo_of(96, 104)  # as large as the model wants: not resampled
    inversion = editor.invert(photo, PROMPTS[0], method="ddim", steps=3, verify=False)
    mask = editor.mask(inversion, "words:cat - box:0,0,20,20", grow=1)
    assert mask.size == (104, 96)
    assert not mask.values[:19, :19].any()
    by_hand = editor.edit(inversion, swap={"cat": "dog"}, mask=mask, paste_back=True)
    in_words = editor.edit(
        inversion,
        swap={"cat": "dog"},
        mask_from="words:cat - box:0,0,20,20",
        grow=1,
        paste_back=True,
    )
    assert np.array_equal(np.array(by_hand.image), np.array(in_words.image))
    assert by_hand.report["mask_coverage"] == round(mask.coverage, 4)
    assert by_hand.report["settings"]["mask"] == "words:cat - box:0,0,20,20"
    soft = editor.mask(inversion, "words:cat", soft=True)
    assert not soft.is_hard
    assert (soft.values[editor.mask(inversion, "words:cat").values == 1] > 0.5 - 1e-3).all()
    with pytest.raises(ValueError, match="no word 'hat'"):
        editor.mask(inversion, "words:hat")
    with pytest.raises(EmptyMask, match=r"'diffedit:.*' is empty"):
        editor.mask(inversion, f"diffedit:{PROMPTS[0].upper()}")


def test_a_drawn_picture_has_masks_too(editor: Editor) -> None:
    asked = {"steps": 3, "guidance_scale": 3.0, "paste_back": True}
    for spec in ("words:cat", "diffedit", "box:0,0,0.5,1"):
        result = editor.generate(PROMPTS[0], swap={"cat": "dog"}, mask_from=spec, **asked)
        shown = np.array(result.mask)
        same = np.array(result.image) == np.array(result.source)
        assert same[shown == 0].all()
        assert not same[shown > 0].all()
        assert 0 < result.report["mask_coverage"] < 1


def test_words_are_found_where_the_finest_maps_are_coarse(tmp_path: Path) -> None:
    """SDXL has no attention at the latents' own scale, where small pictures would be read."""
    xl = Editor(load_backbone(str(small_sdxl(tmp_path / "xl")), device="cpu", dtype="float32"))
    inversion = xl.invert(photo_of(61, 83), PROMPTS[0], method="ddim", steps=2, verify=False)
    found = xl.mask(inversion, "words:fluffy cat | diffedit", "a dog on a mat", ratio=1.0)
    assert found.size == (83, 61)
    assert 0 < found.coverage < 1


def test_looking_leaves_no_trace(editor: Editor) -> None:
    before = dict(editor.backbone.unet.attn_processors)
    inversion = editor.invert(photo_of(64, 64), PROMPTS[0], method="ddim", steps=3, verify=False)
    asked = (inversion, "words:fluffy | diffedit", "a dog on a mat")
    first, again = (editor.mask(*asked, ratio=1.0).values for _ in range(2))
    assert np.array_equal(first, again)
    assert dict(editor.backbone.unet.attn_processors) == before


# Against the truth -----------------------------------------------------------------------------

FLOORS = {"plain": 0.5, "refined": 0.55, "diffedit": 0.55}


@pytest.fixture(scope="module")
def tabletop() -> Editor:
    return Editor.load("tabletop", cache=False)


def test_masks_are_where_the_change_is(tabletop: Editor) -> None:
    """Mean overlap with the true changed region of rendered pairs, at few steps.

    A mask of the same area anywhere else has an overlap near 0.1.
    """
    rng = held_out_rng(7)
    found: dict[str, list[float]] = {name: [] for name in FLOORS}
    for _ in range(3):
        scene = sample_scene(rng, two=0)
        pair = truth_pair(scene, sample_edit(scene, rng, "color"))
        inversion = tabletop.invert(
            Image.fromarray(pair.source.numpy()),
            pair.source_caption,
            method="ddim",
            steps=6,
            verify=False,
        )
        words = " | ".join(f"words:{w}" for w in pair.source_words[-1:])
        masks = {
            "plain": tabletop.mask(inversion, words, refine=0, levels=3),
            "refined": tabletop.mask(inversion, words, levels=3),
            "diffedit": tabletop.mask(inversion, "diffedit", pair.target_caption, maps=3),
        }
        true = pair.changed.numpy()
        for name, mask in masks.items():
            inside = mask.values > 0.5
            found[name].append(float((inside & true).sum() / (inside | true).sum()))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    assert all(means[name] > floor for name, floor in FLOORS.items()), means


def test_every_source_says_what_it_is() -> None:
    assert set(mask_sources) == {"box", "diffedit", "file", "segment", "words"}
    for name in mask_sources:
        assert mask_sources[name].paper
        assert mask_sources[name].about
