"""Random weights for LAVIS's caption model, and a vocabulary for them.

Run with the python of a LAVIS environment: FILE WORKER KIND FOLDER, where KIND is `small` (with a
description of its own) or `base` (the size of LAVIS's published one, under its name).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCE = "a picture of the red blue green yellow ball cube cup cone on and with table grass sits"
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "encoder_width": 32,
    "add_cross_attention": True,
    "add_type_embeddings": False,
    "pad_token_id": 0,
}
YAML = """model:
  arch: blip_caption
  vit: {img_size: 64, patch_size: 16, embed_dim: 32, depth: 2, num_heads: 2}
  med_config_path: bert.json
  prompt: "a picture of "
"""


def vocabulary(folder: Path, size: int | None = None) -> int:
    """Writes `bert-base-uncased/vocab.txt`; how many words it has."""
    words = [*SPECIALS, *SENTENCE.split()]
    words += [f"word{n}" for n in range(len(words), size or 0)]
    place = folder / "bert-base-uncased"
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.txt").write_text("\n".join(words) + "\n")
    return len(words)


def build(worker: Any, folder: Path, kind: str) -> Any:
    """The model with loud random weights, so that captions differ."""
    import torch
    from omegaconf import OmegaConf

    words = vocabulary(folder, 30522 if kind == "base" else None)
    own = worker.import_lavis(str(folder / "bert-base-uncased"))
    if kind == "small":
        (folder / "bert.json").write_text(json.dumps({**BERT, "vocab_size": words + 2}))
        (folder / "lavis.yaml").write_text(YAML)
        config = OmegaConf.load(folder / "lavis.yaml").model
        config.med_config_path = str(folder / "bert.json")
    else:
        name = "configs/models/blip_caption_base_coco.yaml"
        config = OmegaConf.load(worker.lavis_folder() / name).model
    torch.manual_seed(0)
    model = worker.build_model(own, config)
    if kind == "small":
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5)
    return model


def main() -> None:
    """Saves a .pth in LAVIS's form and, of the small model, the same as safetensors."""
    path, kind, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    sys.path.append(str(path.parent))
    import lavis_worker
    import torch
    from safetensors.torch import save_file

    state = build(lavis_worker, folder, kind).state_dict()
    name = "model" if kind == "small" else "blip_coco_caption_base"
    torch.save({"model": state}, folder / f"{name}.pth")
    if kind == "small":
        safe = folder.with_name(f"{folder.name}-safetensors")
        vocabulary(safe)
        for file in ("bert.json", "lavis.yaml"):
            (safe / file).write_text((folder / file).read_text())
        tensors = {key: value.clone().contiguous() for key, value in state.items()}
        save_file(tensors, safe / "model.safetensors")


if __name__ == "__main__":
    main()
