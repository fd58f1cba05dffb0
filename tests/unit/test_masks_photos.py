"""Masks in a walk, read from photos, pasted back, and held to the truth."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from edit import BlendWords, Control, FixedMask, LocalBlend, SelfStore
from edit.blend import nearest
from edit.control import Call
from inversion.denoiser import COND
from p2p_real import Editor
from p2p_real.backbones import load_backbone
from p2p_real.images import open_photo
from p2p_real.masks import (
    EmptyMask,
    MaskError,
    mask_sources,
)
from p2p_real.masks.sources.segment import find_boxes, outline
from p2p_real.masks.sources.words import mutual
from p2p_real.tabletop.scene import held_out_rng, sample_edit, sample_scene
from p2p_real.tabletop.truth import truth_pair
from tests.small import small_sd, small_sdxl
from tests.walks import Walker, off


def box(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    values = np.zeros((height, width), np.float32)
    values[y0:y1, x0:x1] = 1
    return values


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


def test_a_blend_reads_the_nearest_layers_there_are(walker: Walker) -> None:
    """A scale that the network has no attention at, as SDXL at its finest."""
    record = walker.invert("direct")

    def sums(scales: tuple[int, ...]) -> set[tuple[int, int]]:
        words = BlendWords((("cat", "dog"),), scales=scales)
        controls = walker.controls(PROMPTS, 4, blend=words)
        walker.walk(record, PROMPTS, controls)
        return set(controls[-1]._sums)

    assert sums((64,)) == {min(sums((1, 2, 4)))}  # the coarsest there is
    assert nearest({2, 4}, (1,)) == {2}
    assert nearest({1, 2, 4}, (16,)) == {4}


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


def test_a_detector_and_a_segmenter(
    editor: Editor, segmenters: str, caplog: pytest.LogCaptureFixture
) -> None:
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
    never: dict[str, Any] = {"models": segmenters, "box_threshold": 1.0}
    half = editor.mask(photo, "box:0,0,0.5,1")
    with caplog.at_level(logging.WARNING):
        rest = editor.mask(photo, "segment:cat | box:0,0,0.5,1", **never)
    assert np.array_equal(rest.values, half.values)
    assert "the mask 'segment:cat' is empty" in caplog.text
    for spec in (  # what must stay has to be found
        "segment:cat | segment:dog",
        "~(segment:cat | box:0,0,0.5,1)",
        "box:0,0,0.5,1 - (box:0,0,0.1,1 | segment:cat)",
    ):
        with pytest.raises(EmptyMask, match="'segment:cat' is empty"):
            editor.mask(photo, spec, **never)
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
