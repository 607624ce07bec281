"""Saving and restoring the state of a run between two steps, so that it continues bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from det_core.engine import checkpoint as checkpoints
from det_core.engine.checkpoint import Header
from det_core.engine.distributed import World, barrier, gather
from det_core.errors import DetError, first_few
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import show

KEEP = 2  # newest checkpoints to keep, besides the best


@frozen(eq=False, kw_only=True)
class Trained:
    """All objects that training changes.

    average: a moving average of the weights, if the recipe uses one. frozen_norms: batch norms of the detector that
    keep their running statistics.
    """

    detector: Detector
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    frozen_norms: tuple[nn.Module, ...] = ()

    def train(self) -> None:
        """Put the detector into training mode."""
        self.detector.train()
        for norm in self.frozen_norms:
            norm.eval()

    @property
    def judged(self) -> Detector:
        """The detector to evaluate and save: the moving average, if there is one."""
        if self.average is None:
            return self.detector
        averaged = self.average.module
        assert isinstance(averaged, Detector)
        return averaged


def save(run: Path, recipe: Recipe, trained: Trained, step: int, total_batch: int, world: World) -> None:
    """Save a checkpoint after this step. The main rank writes it, with the random states of all ranks."""
    states = gather(_random_states(world.device), world, "a checkpoint")
    if world.main:
        manager = plugin_manager()
        header = Header(
            recipe=recipe,
            classes=trained.detector.classes,
            plugins=manager.versions(),
            step=step,
            registered=manager.unpackaged(recipe),
        )
        training = {
            "step": step,
            "total_batch": total_batch,
            "optimizer": trained.optimizer.state_dict(),
            "scaler": trained.scaler.state_dict(),
            "random": states,
            "averaged": None if trained.average is None else int(trained.average.n_averaged),
        }
        raw = None if trained.average is None else trained.detector.state_dict()
        checkpoints.save_checkpoint(run, header, trained.judged.state_dict(), training, raw)
        checkpoints.prune(run, KEEP)
    barrier(world, "a checkpoint")


@frozen
class Resumed:
    """step: of the checkpoint. changed: settings that differ from its recipe, a line each."""

    step: int = 0
    changed: tuple[str, ...] = ()


def restore(folder: Path, recipe: Recipe, trained: Trained, total_batch: int, world: World) -> Resumed:
    """Restore the state of a checkpoint.

    Raises DetError if the classes, the total batch, or settings that are not in `CHANGEABLE` differ from those of the
    checkpoint.
    """
    checkpoints.check_checkpoint(folder)
    header = checkpoints.read_header(folder / checkpoints.WEIGHTS)
    changed = _changes(folder, header, recipe, trained.detector)
    training = torch.load(folder / checkpoints.TRAINING, map_location="cpu", weights_only=True)
    if training["total_batch"] != total_batch:
        raise DetError(
            f"{folder}: trained with {training['total_batch']} images per step, but this run has {total_batch}; resume "
            "with the same number of processes (torchrun --nproc-per-node), or set data.images_per_rank or "
            "schedule.accumulate so that the total is equal"
        )
    weights = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
    if trained.average is not None:
        trained.judged.load_state_dict(weights)
        trained.average.n_averaged.fill_(training["averaged"])
        weights = checkpoints.read_weights(folder / checkpoints.RAW_WEIGHTS)
    trained.detector.load_state_dict(weights)
    trained.optimizer.load_state_dict(training["optimizer"])
    trained.scaler.load_state_dict(training["scaler"])
    if world.rank < len(training["random"]):
        _restore_random_states(training["random"][world.rank], world.device)
    return Resumed(int(training["step"]), changed)


# What may change when a run is resumed: where and how data are loaded, how long and with what schedule it trains, and
# how it is evaluated. `images_per_rank` and `accumulate` must give the same total batch.
CHANGEABLE = (
    "data.root",
    "data.workers",
    "data.images_per_rank",
    "schedule.accumulate",
    "schedule.epochs",
    "schedule.learning_rate",
    "evaluation",
)


def _changes(folder: Path, header: Header, recipe: Recipe, detector: Detector) -> tuple[str, ...]:
    """The settings that differ from a checkpoint's, a line each; DetError if one may not, or for other classes."""
    run = folder.parent.parent
    differences = list(_differences(header.recipe.to_plain(), recipe.to_plain()))
    fixed = [path for path, _ in differences if not f"{path}.".startswith(tuple(f"{name}." for name in CHANGEABLE))]
    if fixed:
        raise DetError(
            f"{run} was trained with another recipe (differs in: {first_few(fixed)}); continue with --config "
            f"{run}/recipe.yaml, or start a new run with --init and another --work-dir; may change: "
            f"{', '.join(CHANGEABLE)}"
        )
    if header.classes != detector.classes:
        raise DetError(
            f"{folder} was trained on other classes ({', '.join(header.classes.names)}); resume with its data"
        )
    return tuple(f"{path}: {change}" for path, change in differences)


def _differences(before: object, now: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and both values of each setting that differs. A part of another type, or a list, is one setting."""
    if isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type"):
        for name in {**before, **now}:
            yield from _differences(before.get(name), now.get(name), f"{path}.{name}".removeprefix("."))
    elif before != now:
        yield path, f"{show(before)} became {show(now)}"


def _random_states(device: torch.device) -> dict[str, Any]:
    """The states of all random generators, as tensors and plain numbers."""
    kind, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (
            str(kind),
            torch.from_numpy(np.asarray(words).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, words, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), position, has_gauss, cached))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
