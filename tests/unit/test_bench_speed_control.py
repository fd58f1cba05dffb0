"""The bench of control: its ways give one edit, and what it says of networks and maps is so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from p2p_real.bench import control, plainly
from p2p_real.bench.control import EDIT, LOCAL, PUBLISHED, ControlWays, measure, run, table
from p2p_real.bench.subjects import FULL, XL, sdxl_blocks, tabletop
from p2p_real.bench.swaps import PLAIN, EditWays
from p2p_real.bench.timing import Disagreement


def test_ways_agree_and_the_edit_acts() -> None:
    ways = ControlWays(sdxl_blocks("cpu", 16))
    gave = {name: way() for name, way in ways.controlled().items()}
    gave[PUBLISHED] = ways.published()
    told = ways.agreement(gave)
    assert told["edit: ours and the published"] < 1e-5
    assert told["source: edit and plain sampling"] < 1e-6
    assert told["target: edit and plain sampling"] > 1e-3
    assert torch.equal(gave[LOCAL][:1], gave[EDIT][:1])
    with pytest.raises(Disagreement, match="edit: off by"):
        ways.agreement({**gave, PUBLISHED: gave[PUBLISHED] + 1})
    with pytest.raises(Disagreement, match="source: off by"):
        ways.agreement({**gave, PLAIN: gave[PLAIN] + 1})
    with pytest.raises(Disagreement, match="changed nothing"):
        ways.agreement({**gave, EDIT: gave[PLAIN]})


def test_sdxl_is_told_its_pooled_text_and_size() -> None:
    """The pooled text and time ids of each row reach the network by both loops."""
    subject = sdxl_blocks("cpu", 16)
    ways = EditWays(subject, 2)
    plain = ways.diffusers()
    assert torch.allclose(ways.uncontrolled(), plain, atol=1e-5)
    assert subject.pooled is not None
    subject.pooled[2] += 1
    changed = ways.diffusers()
    assert torch.equal(changed[0], plain[0])
    assert not torch.allclose(changed[1], plain[1], atol=1e-5)
    assert torch.allclose(ways.uncontrolled(), changed, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: sdxl_blocks("cpu", 16), lambda: tabletop("cpu")])
def test_maps_are_counted_as_they_are_made(make: Any) -> None:
    ways = ControlWays(make())
    seen: list[torch.Size] = []

    def look(p: torch.Tensor, cross: bool, place: str) -> torch.Tensor:
        seen.append(p.shape)
        return p

    with plainly.explicit_attention(ways.subject.unet, look):
        ways.diffusers()
    limit = ways._stored()
    largest = 2 * max(s.numel() for s in seen) * 4
    stored = sum(s.numel() // 2 for s in seen if s[1] <= limit) * 4
    assert ways.map_bytes() == (largest, stored)
    twice = EditWays(ways.subject, 2)
    assert twice.map_bytes() == (largest, 2 * stored)


def test_maps_without_room_are_told_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ControlWays(sdxl_blocks("cpu", 16))
    monkeypatch.setattr(control, "ROOM", sum(ways.map_bytes()) - 1)
    ticks: list[str] = []
    rows, told = measure(ways, 1, ticks.append)
    assert [r["way"] for r in rows] == [PLAIN, EDIT, LOCAL, PUBLISHED]
    assert rows[-1]["seconds"] is None
    assert (rows[-1]["maps_bytes"], rows[-1]["stored_bytes"]) == ways.map_bytes()
    assert len(ticks) == 3 * 2 + 2
    assert "edit: ours and the published" not in told
    said = table(
        {"measurements": rows, "subjects": {}, "unet_rows": 4, "device": "cpu", "threads": 1}
    )
    assert f"| {PUBLISHED} | does not fit |" in said


def test_a_quick_run_writes_its_table(tmp_path: Path) -> None:
    found = run(tmp_path, quick=True)
    assert [r["way"] for r in found["measurements"]] == [PLAIN, EDIT, LOCAL, PUBLISHED] * 2
    with (tmp_path / "results.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["network"] for r in rows] == ["tabletop, 16 x 16"] * 4 + ["sdxl-blocks, 16 x 16"] * 4
    assert all(float(r["of_plain_memory"]) == 1 for r in rows if r["way"] == PLAIN)
    kept = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert set(kept["agreement"]) == set(kept["subjects"]) == {r["network"] for r in rows}
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table(kept)


@pytest.mark.parametrize(("settings", "millions", "layers"), [(FULL, 859.5, 32), (XL, 2567.5, 140)])
def test_shapes_are_those_of_the_models(
    settings: dict[str, Any], millions: float, layers: int
) -> None:
    """At their own width, the networks have the parameters and attention layers of the models."""
    wide = dict(settings)
    if settings is XL:
        wide["block_out_channels"] = tuple(2 * c for c in XL["block_out_channels"])
    with torch.device("meta"):
        unet = UNet2DConditionModel(**wide)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert len(unet.attn_processors) == layers
