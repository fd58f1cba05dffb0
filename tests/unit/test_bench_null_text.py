"""The bench of null-text inversion: its ways give one text, its table says what was measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from p2p_real.bench.null_text import BASE, NullTextWays, _row, table, text_agreement
from p2p_real.bench.subjects import FULL, QUARTER, tabletop
from p2p_real.bench.timing import Disagreement, Timing, hold, in_turns, off


def test_all_ways_fit_the_same_text() -> None:
    subject = tabletop("cpu")
    every = NullTextWays(subject, 1, 1)
    gave = {name: way() for name, way in (every.ways() | every.more()).items()}
    assert len(gave) == 5
    told = text_agreement("tabletop", gave, gave, subject.text[0])
    assert max(told.values()) < 1e-5
    for name in every.more():
        assert off(gave[name], gave["null-text"]) < 1e-4
    assert all(not p.requires_grad and p.grad is None for p in subject.unet.parameters())
    wrong = {**gave, BASE: gave[BASE] + 1}
    with pytest.raises(Disagreement, match="published null-text: off by"):
        text_agreement("tabletop", wrong, wrong, subject.text[0])
    still = dict.fromkeys(gave, subject.text[:1])
    with pytest.raises(Disagreement, match="fitted nothing"):
        text_agreement("tabletop", still, still, subject.text[0])


def test_photos_and_shares_are_divided_out() -> None:
    times = {BASE: Timing([4.0, 6.0, 5.0], [10.0]), "null-text": Timing([2.0], [4.0])}
    times["null-text, 4 photos together"] = Timing([5.0], [8.0])
    peaks = {BASE: 100, "null-text": 25, "null-text, 4 photos together": 80}
    rows = [_row("net", way, times, peaks) for way in times]
    assert [r["times_as_fast"] for r in rows] == [1.0, 2.5, 4.0]
    assert [r["times_as_fast_cpu"] for r in rows] == [1.0, 2.5, 5.0]
    assert [r["share_of_memory"] for r in rows] == [1.0, 0.25, 0.8]
    net: dict[str, Any] = {"shape": "small", "parameters": 2e6, "steps": 1, "inner_steps": 2}
    manifest = {"measurements": rows, "subjects": {"net": {**net, "rounds": 1}}}
    said = table({**manifest, "device": "cpu", "threads": 1})
    assert "| net | null-text, 4 photos together | 1.25 (2.00) | 4.00 (5.00) |" in said
    assert "- net: small; 2.0 million parameters; 1 timesteps of 2 inner steps" in said


def test_turns_and_agreement() -> None:
    order: list[str] = []
    ways = {n: (lambda n=n: order.append(n) or torch.ones(1)) for n in "ab"}
    times, gave = in_turns(ways, 2, torch.device("cpu"), lambda name: None)
    assert order == ["a", "b"] * 3
    assert len(times["a"].wall) == len(times["a"].cpu) == 2
    assert set(gave) == {"a", "b"}
    in_turns(ways, 1, torch.device("cpu"), lambda name: None, warm=False)
    assert order == ["a", "b"] * 4
    assert hold("it", 0.1, 0.2) == 0.1
    with pytest.raises(Disagreement, match="it: off by"):
        hold("it", float("nan"), 0.2)


def test_a_quarter_is_a_quarter() -> None:
    """Heads of as many channels, a quarter of the channels."""
    wide, narrow = FULL["block_out_channels"], QUARTER["block_out_channels"]
    assert [w / 4 for w in wide] == list(narrow)
    heads = [w / FULL["attention_head_dim"] for w in wide]
    assert heads == [n / QUARTER["attention_head_dim"] for n in narrow]
