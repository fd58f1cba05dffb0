"""The renderer and the true edits it makes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from p2p_real.tabletop import PHOTOS
from p2p_real.tabletop.render import render, render_with_ids
from p2p_real.tabletop.scene import EDITS, held_out_rng, sample_edit, sample_scene
from p2p_real.tabletop.truth import VISIBLE, truth_pair


def _records(count: int, seed: int = 0, two: float = 0.5) -> list[dict]:
    rng = held_out_rng(seed)
    return [sample_scene(rng, two) for _ in range(count)]


def test_a_record_gives_the_same_picture_alone_and_in_a_batch() -> None:
    records = _records(4)
    batch = render(records, size=64)
    assert batch.shape == (4, 64, 64, 3)
    assert batch.dtype == torch.uint8
    for record, picture in zip(records, batch, strict=True):
        assert torch.equal(render([record], size=64)[0], picture)


def test_a_record_survives_json() -> None:
    (record,) = _records(1)
    again = json.loads(json.dumps(record))
    assert torch.equal(render([again], size=32), render([record], size=32))


def test_ids_say_which_object_is_where() -> None:
    (record,) = _records(1, seed=4, two=1)
    _, ids = render_with_ids(record, size=64)
    columns = torch.arange(64).expand(64, 64)
    assert set(ids.unique().tolist()) == {-1, 0, 1}
    assert columns[ids == 0].float().mean() < columns[ids == 1].float().mean()


def test_an_unknown_value_is_named() -> None:
    (record,) = _records(1)
    with pytest.raises(ValueError, match="no light 'dawn'; there are: noon, sunset, night"):
        render([{**record, "light": "dawn"}])


@pytest.mark.parametrize("path", sorted(PHOTOS.glob("*.png")), ids=lambda path: path.stem)
def test_shipped_photos_are_their_records(path) -> None:
    record = json.loads(path.with_suffix(".json").read_text())
    photo = torch.from_numpy(np.array(Image.open(path)))
    # another machine may round a float the other way
    assert (render([record])[0].int() - photo.int()).abs().float().mean() < 0.05


@pytest.mark.parametrize("op", EDITS)
def test_an_edit_changes_only_what_it_says(op: str) -> None:
    rng = held_out_rng(6)
    record = sample_scene(rng, two=0 if op == "add" else 1)
    pair = truth_pair(record, sample_edit(record, rng, op), size=64)
    differs = (pair.source.int() - pair.target.int()).abs().amax(-1) > VISIBLE
    assert differs.any()
    assert not differs[~pair.changed].any()
    share = float(pair.changed.float().mean())
    if op == "light":
        assert share > 0.95
    elif op == "ground":
        assert share < 1
        assert pair.changed[-1].all()
    elif op != "several":
        assert 0 < share < 0.4
    for words, caption in (
        (pair.source_words, pair.source_caption),
        (pair.target_words, pair.target_caption),
    ):
        assert set(words) <= set(caption.split())
    assert bool(pair.source_words or pair.target_words) == (op != "light")


def test_edit_words_leave_out_what_another_object_shares() -> None:
    rng = held_out_rng(0)
    record = sample_scene(rng, two=1)
    left, right = record["objects"]
    left.update(shape="mug", color="green", material="plain", x=-1.1)
    right.update(shape="mug", color="red", material="plain", x=1.1)
    pair = truth_pair(record, {"op": "color", "object": 0, "to": "blue"}, size=16)
    assert pair.source_words == ("green",)
    assert pair.target_words == ("blue",)
