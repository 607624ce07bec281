"""Comparison of recipe, data and versions of all ranks, before the first step."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from det_core.contracts import DetectionDataset
from det_core.engine.distributed import World, gather
from det_core.errors import DetError
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe

SHOWN = 5
OWN = ("data.root", "data.workers")  # settings that may differ between machines


def check_agreement(
    recipe: Recipe, datasets: tuple[DetectionDataset, DetectionDataset | None], step: int, world: World
) -> None:
    """Compare recipe, data, step and versions of all ranks.

    Raises:
        DetError: on every rank, with the rank that differs from rank 0 and what differs.
    """
    if world.size == 1:
        return
    first, *others = gather(_facts(recipe, datasets, step), world, "the comparison of all ranks")
    for rank, facts in enumerate(others, 1):
        different = [name for name in first | facts if first.get(name) != facts.get(name)]
        if different:
            shown = "; ".join(f"{name}: {first.get(name)} on rank 0, {facts.get(name)}" for name in different[:SHOWN])
            more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
            raise DetError(
                f"rank {rank} differs from rank 0 ({shown}{more}); start all ranks with the same command, "
                "data and environment"
            )


def _facts(recipe: Recipe, datasets: tuple[DetectionDataset, DetectionDataset | None], step: int) -> dict[str, str]:
    """The facts that must be equal on all ranks, as short texts by name."""
    facts = {f"setting {path}": text for path, text in _flat(recipe.to_plain(), "") if path not in OWN}
    for split, data in zip(("training", "validation"), datasets, strict=True):
        if data is None:
            facts[f"{split} images"] = "none"
            continue
        facts[f"{split} classes"] = _digest(json.dumps([data.classes.names, data.classes.ids]).encode())
        facts[f"{split} images"] = str(len(data))
        content = np.concatenate([data.image_ids[:, None], data.sizes], axis=1)
        facts[f"{split} images' ids and sizes"] = _digest(np.ascontiguousarray(content).tobytes())
    versions = plugin_manager().versions() | {"torch": torch.__version__, "Python": platform.python_version()}
    return facts | {f"version of {name}": version for name, version in versions.items()} | {"step": str(step)}


def _flat(plain: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(plain, dict):
        for name, value in plain.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(plain, list):
        for number, value in enumerate(plain):
            yield from _flat(value, f"{path}[{number}]")
    else:
        yield path, json.dumps(plain)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
