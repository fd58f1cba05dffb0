"""Records, captions and edits of the embedded world."""

import copy

import pytest

from p2p_real.tabletop.scene import (
    EDITS,
    apply_edit,
    caption,
    held_out_rng,
    noun_phrase,
    parse_caption,
    sample_edit,
    sample_scene,
    train_rng,
)


@pytest.mark.parametrize("seed", range(5))
def test_caption_is_read_back_as_the_record_says(seed: int) -> None:
    rng = held_out_rng(seed)
    for _ in range(100):
        record = sample_scene(rng)
        things = sorted(record["objects"], key=lambda thing: thing["x"])
        read = parse_caption(caption(record))
        assert [noun_phrase(thing) for thing in read["objects"]] == [
            noun_phrase(thing) for thing in things
        ]
        assert (read["ground"], read["light"]) == (record["ground"], record["light"])


def test_caption_may_leave_ground_and_light_unsaid() -> None:
    record = sample_scene(held_out_rng(0), two=0)
    assert caption(record, omit=("ground", "light")) == noun_phrase(record["objects"][0])
    assert parse_caption(caption(record, omit=("light",)))["light"] is None


@pytest.mark.parametrize("text", ["a photo of a cat", "a red dog on the sand", "red ball"])
def test_other_texts_are_not_captions(text: str) -> None:
    with pytest.raises(ValueError, match="no "):
        parse_caption(text)


def test_streams_are_repeatable_and_apart() -> None:
    assert sample_scene(train_rng(3)) == sample_scene(train_rng(3))
    assert sample_scene(train_rng(3)) != sample_scene(held_out_rng(3))


@pytest.mark.parametrize("op", EDITS)
def test_edits_change_the_caption_and_not_what_came_in(op: str) -> None:
    rng = held_out_rng(1)
    for _ in range(20):
        record = sample_scene(rng, two=0 if op == "add" else 1)
        before = copy.deepcopy(record)
        edited = apply_edit(record, sample_edit(record, rng, op))
        assert record == before
        assert caption(edited) != caption(record)


def test_edits_say_what_is_possible() -> None:
    record = sample_scene(held_out_rng(0), two=1)
    with pytest.raises(ValueError, match="no ground 'mud'; there are: wood"):
        apply_edit(record, {"op": "ground", "to": "mud"})
    with pytest.raises(ValueError, match="no edit 'melt'"):
        apply_edit(record, {"op": "melt"})
    with pytest.raises(ValueError, match="scene of one"):
        sample_edit(record, held_out_rng(0), "add")
