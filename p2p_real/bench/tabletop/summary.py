"""Rows made into figures: means with 95 % intervals, by way and by kind of edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .ways import BOUNDS, Row, Way, is_bound

DRAWS = 2000
_NOT_FIGURES = ("id", "kind", "way", "method", "edit", "status", "reason", "source", "target")


def interval(values: Sequence[float], draws: int = DRAWS, seed: int = 0) -> list[float]:
    """Mean of a figure over scenes, and the 95 % interval of the mean by bootstrap.

    Args:
        values: one for each scene, at least one.
        draws: of scenes, with replacement.
        seed: of the draws.

    Returns:
        Mean, and the 2.5 % and 97.5 % quantiles of the means drawn.
    """
    found = np.asarray(values, dtype=np.float64)
    places = np.random.default_rng(seed).integers(len(found), size=(draws, len(found)))
    low, high = np.quantile(found[places].mean(1), (0.025, 0.975))
    return [float(found.mean()), float(low), float(high)]


def best_bound(rows: Sequence[Row], ways: Sequence[Way]) -> str | None:
    """The plain regeneration nearest to the truth, of all guidances there are."""
    means = {}
    for way in ways:
        found = [r["psnr"] for r in rows if r["way"] == way.label and "psnr" in r]
        if is_bound(way) and found:
            means[way.label] = sum(found) / len(found)
    return max(means, key=lambda name: means[name], default=None)


def mark_nearer(rows: Sequence[Row], plain: str | None) -> None:
    """Say of each row whether it is nearer to the truth than plain regeneration is."""
    bound = {r["id"]: r["psnr"] for r in rows if r["way"] == plain and "psnr" in r}
    for row in rows:
        if "psnr" in row and row["id"] in bound and row["way"] not in (plain, *BOUNDS):
            row["nearer"] = row["psnr"] > bound[row["id"]]


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Figures by way: of all edits under ``all``, and of each kind.

    Returns:
        By way, by ``all`` or kind: ``count``, ``failed`` and, by figure, mean, low and high.
        A figure that some rows lack is the mean over those that have it.
    """
    found: dict[str, dict[str, Any]] = {}
    for way in dict.fromkeys(r["way"] for r in rows):
        mine = [r for r in rows if r["way"] == way]
        groups = {"all": mine}
        for row in mine:
            groups.setdefault(row["kind"], []).append(row)
        found[way] = {name: _group(group) for name, group in groups.items()}
    return found


def _group(rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "count": len(rows),
        "failed": sum(r["status"] == "failed" for r in rows),
    }
    for key in dict.fromkeys(k for row in rows for k in row):
        values = [row[key] for row in rows if _is_figure(key, row.get(key))]
        if values:
            found[key] = interval(values)
    return found


def _is_figure(key: str, value: Any) -> bool:
    return key not in _NOT_FIGURES and isinstance(value, bool | int | float)


def in_order(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The ways by how many edits they do right, then by decibels inside; bounds left out."""

    def rank(way: str) -> tuple[float, float]:
        figures = summary[way]["all"]
        return -figures["right"][0], -figures.get("psnr_inside", [-1.0])[0]

    return sorted((way for way in summary if way not in BOUNDS), key=rank)
