"""Networks and a photo that all laws share, made once."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from p2p_real.backbones import load_backbone
from p2p_real.editor import Editor
from tests.small import small_sd, small_sdxl
from tests.walks import SMALL, TABLE, Walker


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Walker]:
    """Random networks that predict noise or velocity, one like SDXL, and the embedded one."""
    folder = tmp_path_factory.mktemp("laws")
    models = {
        "epsilon": str(small_sd(folder / "epsilon")),
        "v": str(small_sd(folder / "v", "v_prediction", zero_snr=True, seed=5)),
        "sdxl": str(small_sdxl(folder / "sdxl")),
        "tabletop": "tabletop",
    }
    return {
        kind: Walker(
            load_backbone(name, device="cpu", dtype="float32"),
            TABLE if kind == "tabletop" else SMALL,
        )
        for kind, name in models.items()
    }


@pytest.fixture(scope="session")
def editors(walkers: dict[str, Walker]) -> dict[str, Editor]:
    return {kind: Editor(w.backbone, cache=None) for kind, w in walkers.items()}


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return coarse.resize((128, 128), Image.Resampling.BICUBIC)
