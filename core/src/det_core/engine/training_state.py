"""Saving and restoring the state of a run between two steps, so that it continues bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from det_core.engine import checkpoint as checkpoints
from det_core.engine.checkpoint import Header
from det_core.engine.distributed import World, barrier, gather
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe

KEEP = 2  # newest checkpoints to keep, besides the best


@frozen(eq=False, kw_only=True)
class Trained:
    """All objects that training changes. average: a moving average of the weights, if the recipe uses one."""

    detector: Detector
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None

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
        header = Header(recipe=recipe, classes=trained.detector.classes, plugins=plugin_manager().versions(), step=step)
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


def restore(folder: Path, recipe: Recipe, trained: Trained, total_batch: int, world: World) -> int:
    """Restore the state of a checkpoint; returns its step.

    Raises DetError if the recipe, the classes or the total batch differ from those of the checkpoint.
    """
    checkpoints.check_checkpoint(folder)
    header = checkpoints.read_header(folder / checkpoints.WEIGHTS)
    _check_same_run(folder, header, recipe, trained.detector)
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
    return int(training["step"])


def _check_same_run(folder: Path, header: Header, recipe: Recipe, detector: Detector) -> None:
    """Raise DetError if recipe or classes differ; the data folder and the loader settings may change."""

    def compared(of: Recipe) -> dict[str, Any]:
        plain = of.to_plain()
        for name in ("root", "workers", "images_per_rank"):
            plain["data"].pop(name)
        plain["schedule"].pop("accumulate")
        return plain

    ours, theirs = compared(recipe), compared(header.recipe)
    if ours != theirs:
        run = folder.parent.parent
        changed = ", ".join(name for name in ours if ours[name] != theirs.get(name))
        raise DetError(
            f"{run} was trained with another recipe (differs in: {changed}); continue with --config {run}/recipe.yaml, "
            "or start a new run with --init and another --work-dir"
        )
    if header.classes != detector.classes:
        raise DetError(
            f"{folder} was trained on other classes ({', '.join(header.classes.names)}); resume with its data"
        )


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
