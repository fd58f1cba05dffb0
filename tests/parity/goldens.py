"""Where the goldens lie and how close one must come to them (tests/parity/data/README.md)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

DATA = Path(__file__).parent / "data"
FOLDER = Path(os.environ.get("P2P_GOLDENS", DATA))


def model_folder() -> Path:
    """The small random network: where P2P_GOLDEN_MODEL says, beside the goldens, or our copy."""
    if "P2P_GOLDEN_MODEL" in os.environ:
        return Path(os.environ["P2P_GOLDEN_MODEL"])
    beside = FOLDER / "tiny-random-sd"
    return beside if beside.is_dir() else DATA / "tiny-random-sd"


@dataclass(frozen=True)
class Golden:
    """One case: its fields and its arrays."""

    name: str
    fields: dict[str, Any]
    arrays: dict[str, Tensor]

    @classmethod
    def read(cls, name: str) -> Golden:
        fields = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        return cls(name, fields, load_file(FOLDER / f"{name}.safetensors"))

    def has(self, key: str) -> bool:
        return key in self.arrays

    def kind(self) -> str:
        """Which method made it, by what it holds."""
        family = self.name.split("_")[0]
        if family == "a":
            return "p2p"
        if family == "b":
            marks = {
                "out/null_embeds": "null-text",
                "out/offsets": "direct",
                "out/ddim_latents_uncond": "ddim",
                "out/ddim_latents_cfg": "ddim",
            }
            found = [kind for key, kind in marks.items() if self.has(key)]
            return found[0] if found else "negative-prompt"
        if family == "f":
            marks = {"in/pnp_guidance_embeds": "pnp", "in/mask_noise": "diffedit"}
            found = [kind for key, kind in marks.items() if self.has(key)]
            return found[0] if found else "masactrl"
        return family

    def close(self, key: str, ours: Tensor, *, loose: bool = False) -> None:
        """The README's tolerance: 1e-5 of max(10, largest absolute value)."""
        want = self.arrays[key].float()
        ours = ours.float().cpu()
        assert ours.shape == want.shape, (key, tuple(ours.shape), tuple(want.shape))
        worst = float((ours - want).abs().max())
        allowed = 1e-5 * max(10.0, float(want.abs().max()))
        if loose:  # Adam moves elements whose gradient is noise by up to lr either way
            allowed = 0.2
        assert worst <= allowed, f"{key}: off by {worst:.2e}, allowed {allowed:.2e}"

    def same(self, key: str, ours: Tensor) -> None:
        """Masks, counts and tables: exactly equal."""
        want = self.arrays[key]
        assert torch.equal(ours.to(want.dtype).reshape(want.shape), want), key


def names() -> list[str]:
    """All goldens of the folder."""
    return sorted(p.stem for p in FOLDER.glob("*.safetensors"))
