"""Two prompts aligned: which word of the target continues which of the source."""

from __future__ import annotations

import pytest
import torch

from edit.align import align
from edit.words import PromptTooLong
from tests.clip_tokens import cut


def taken_from(source: str, target: str, mode: str = "auto") -> dict[int, list[int]]:
    """For each content token of the target, the source tokens it takes its map from."""
    found = align(cut(source), cut(target), mode)
    count = cut(target).count
    return {j: found.matrix[:, j].nonzero().flatten().tolist() for j in range(1, count - 1)}


def test_equal_prompts_are_the_identity() -> None:
    for prompt in ("a cat on a mat", "", "a hippopotamus's 512 photos, at café"):
        for mode in ("auto", "replace", "refine"):
            found = align(cut(prompt), cut(prompt), mode)
            assert torch.equal(found.matrix, torch.eye(77))
            assert found.taken.all()
            assert all(kind == "same" for *_, kind in found.pairs)


def test_swap() -> None:
    assert taken_from("a cat on a mat", "a dog on a mat") == {j: [j] for j in range(1, 6)}
    refined = taken_from("a cat on a mat", "a dog on a mat", "refine")
    assert refined == {1: [1], 2: [], 3: [3], 4: [4], 5: [5]}


def test_swap_of_other_token_counts() -> None:
    longer = taken_from("a cat on a mat", "a hippopotamus on a mat")
    assert longer == {1: [1], 2: [2], 3: [2], 4: [2], 5: [3], 6: [4], 7: [5]}
    shorter = taken_from("a hippopotamus on a mat", "a cat on a mat")
    assert shorter == {1: [1], 2: [2, 3, 4], 3: [5], 4: [6], 5: [7]}
    matrix = align(cut("a hippopotamus on a mat"), cut("a cat on a mat")).matrix
    torch.testing.assert_close(matrix[2:5, 2], torch.full((3,), 1 / 3))


def test_added_words_are_new() -> None:
    found = taken_from("a cat on a mat", "a big fluffy cat on a red mat, at night")
    assert found[2] == found[3] == []
    assert found[4] == [2]
    assert found[7] == []
    assert found[8] == [5]
    assert found[9] == found[10] == found[11] == []


def test_deleted_words_are_not_put_back() -> None:
    source, target = cut("a photo of a house on a mountain at winter"), cut("a photo of a house")
    found = align(source, target)
    used = found.matrix.sum(1) > 0
    assert not used[6:11].any()  # on a mountain at winter: nobody takes their maps
    assert found.matrix[source.count - 1, target.count - 1] == 1  # end to end
    assert found.matrix[source.count, target.count] == 1  # padding to padding
    assert ("on a mountain at winter", "", "dropped") in found.pairs


@pytest.mark.parametrize(
    ("more", "less", "gone"),
    [
        ("a red cube and a blue cube", "a red cube", "and a blue cube"),
        ("a red cube and a blue cube", "a blue cube", "a red cube and"),
        ("a cat with a hat with a bow", "a cat with a bow", "with a hat"),
        ("a cat, a dog, a bird", "a cat, a bird", ", a dog"),
    ],
)
def test_what_comes_or_goes_is_a_whole_phrase(more: str, less: str, gone: str) -> None:
    assert (gone, "", "dropped") in align(cut(more), cut(less)).pairs
    assert ("", gone, "new") in align(cut(less), cut(more)).pairs


def test_case_and_punctuation() -> None:
    found = align(cut("A Cat, on a mat."), cut("a cat on a mat"))
    assert [k for *_, k in found.pairs if k not in ("same", "dropped")] == []
    assert taken_from("A Cat, on a mat.", "a cat on a mat")[2] == [2]


def test_repeated_words_stay_in_order() -> None:
    found = taken_from("a cat and a cat", "a cat and a dog and a cat")
    columns = [v[0] for v in found.values() if v]
    assert columns == sorted(columns)
    assert found[2] == [2]


def test_runs_of_other_lengths_are_one_piece() -> None:
    found = align(cut("a cat on a mat"), cut("a very big dog on a mat"))
    assert ("cat", "very big dog", "swapped") in found.pairs
    assert found.matrix[2, 2:5].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("source", "target"), [("", "a cat"), ("a cat", ""), ("a", "b c d e")])
def test_empty_and_unrelated(source: str, target: str) -> None:
    found = align(cut(source), cut(target))
    sums = found.matrix.sum(0)
    torch.testing.assert_close(sums[found.taken > 0], torch.ones(int(found.taken.sum())))
    assert found.matrix[0, 0] == 1


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match="replace needs prompts of equally many words, got 2 and 3"
    ):
        align(cut("a cat"), cut("a big cat"), "replace")
    with pytest.raises(ValueError, match="unknown alignment 'best'"):
        align(cut("a cat"), cut("a cat"), "best")
    long = cut(" ".join(["cat"] * 80))
    for pair in ((long, cut("a cat")), (cut("a cat"), long)):
        with pytest.raises(PromptTooLong, match="80 tokens"):
            align(*pair)


def test_words_as_long_as_the_encoder_reads() -> None:
    source, target = cut(" ".join(["cat"] * 75)), cut(" ".join(["cat"] * 74 + ["dog"]))
    found = align(source, target)
    assert torch.equal(found.matrix, torch.eye(77))
