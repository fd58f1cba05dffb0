"""Saving and resuming: safetensors files that are whole or not there at all, and no pickles."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes tensors and plain facts as one file, under a temporary name that is then renamed.

    Args:
        path: A `.safetensors` file; a file that is there is replaced in one move.
        tensors: What to keep; copied to the CPU.
        facts: JSON data, kept in the file's own header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # a copy, because safetensors refuses tensors that share memory or lie in channels-last order
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    save_file(plain, beside, metadata={"facts": json.dumps(facts)})
    os.replace(beside, path)


def sweep(folder: Path) -> None:
    """Takes away what a killed process had begun to write."""
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_tensors` wrote."""
    with safe_open(path, "pt") as file:
        names = file.keys()
        facts = json.loads(file.metadata()["facts"])
        return {name: file.get_tensor(name) for name in names}, facts


def read_facts(path: Path) -> dict[str, Any]:
    """Reads only the facts of a file, or {} where there is none.

    The header is read by hand: `safe_open` opens the path twice, and a running stage may put
    another file there in between.
    """
    if not path.exists():
        return {}
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["facts"])


def write_json(path: Path, data: Any) -> None:
    """Writes JSON under a temporary name that is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(beside, path)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Gives an optimiser's state as named tensors: `3.exp_avg` is of its fourth parameter."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Picks the tensors whose name begins with `prefix/`, without it."""
    start = prefix + "/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
