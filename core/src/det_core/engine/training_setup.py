"""Everything that a training run needs, built before its first step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import frozen
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from det_core.contracts import DetectionDataset
from det_core.data.bad_samples import check_objects
from det_core.data.categories import check_same_categories
from det_core.data.epoch_order import TrainSampler
from det_core.data.repeat_factors import factors_of
from det_core.engine import training_state
from det_core.engine.agreement import check_agreement
from det_core.engine.check_features import check_features
from det_core.engine.checkpoint import initialise, last_checkpoint
from det_core.engine.distributed import World
from det_core.engine.learning_rate import LearningRate, learning_rate
from det_core.engine.moving_average import averaging
from det_core.engine.open_data import open_data, shared_images
from det_core.engine.parameter_groups import build_optimizer, freeze
from det_core.engine.published_checkpoint import initial_checkpoint
from det_core.engine.train_options import TrainOptions
from det_core.engine.training_state import Resumed, Trained
from det_core.errors import DetError, counted, first_few
from det_core.model.detector import Detector
from det_core.model.memory_layout import to_channels_last
from det_core.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

Say = Callable[[str], None]


class TrainingError(DetError):
    """Training cannot start or continue."""


@frozen(eq=False, kw_only=True)
class TrainingSetup:
    """One run on one rank, ready to train.

    val_data: None if there are no validation data; training then does not evaluate.
    model: the detector as it is called in training, compiled and distributed if the recipe and the world ask for it.
    step: steps already trained, more than 0 if the run was resumed. changed: settings that differ from those of the
    checkpoint that it was resumed from, a line each.
    """

    recipe: Recipe
    options: TrainOptions
    world: World
    train_data: DetectionDataset
    val_data: DetectionDataset | None
    sampler: TrainSampler
    trained: Trained
    model: nn.Module
    rate: LearningRate
    step: int
    changed: tuple[str, ...] = ()

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.options.work_dir)

    @property
    def total_batch(self) -> int:
        """Images per step, over all ranks and micro-batches."""
        return self.sampler.global_batch * self.recipe.schedule.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return self.rate.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule."""
        return self.steps_per_epoch * self.recipe.schedule.epochs

    @property
    def last_step(self) -> int:
        """The step after which this run ends."""
        return min(self.total_steps, self.options.max_steps or self.total_steps)


def set_up(recipe: Recipe, options: TrainOptions, world: World, say: Say) -> TrainingSetup:
    """Open the data, build the detector and what trains it, and restore a run that is resumed.

    Raises:
        DetError: for bad data, a folder in use, weights that do not fit, or a checkpoint of another run.
    """
    begin = _starting_point(options, say)
    train_data, val_data = open_data(recipe)
    if val_data is not None:
        check_same_categories(train_data, val_data)
        if world.main and begin is None and (warning := shared_images(train_data, val_data)):
            say(warning)
    check_objects(train_data)
    torch.manual_seed(recipe.schedule.seed)
    trained = _build(recipe, options, world, train_data, fresh=begin is None, say=say)
    sampler = TrainSampler(
        sizes=train_data.sizes,
        images_per_rank=recipe.data.images_per_rank,
        seed=recipe.schedule.seed,
        rank=world.rank,
        world=world.size,
        repeat=recipe.data.repeat,
        group_by_aspect=recipe.data.group_by_aspect,
        factors=_factors(recipe, train_data, say),
    )
    accumulate = recipe.schedule.accumulate
    total_batch = sampler.global_batch * accumulate
    rate = learning_rate(recipe.optimizer, recipe.schedule, total_batch, -(-sampler.steps_per_epoch // accumulate))
    torch.manual_seed(recipe.schedule.seed + 1 + world.rank)
    resumed = Resumed() if begin is None else training_state.restore(begin, recipe, trained, total_batch, world)
    check_agreement(recipe, (train_data, val_data), resumed.step, world)
    return TrainingSetup(
        recipe=recipe,
        options=options,
        world=world,
        train_data=train_data,
        val_data=val_data,
        sampler=sampler,
        trained=trained,
        rate=rate,
        step=resumed.step,
        changed=resumed.changed,
        model=_wrap(recipe, trained.detector, world),
    )


def _factors(recipe: Recipe, data: DetectionDataset, say: Say) -> NDArray[np.float64] | None:
    """The repeat factors of class-balanced sampling, if the recipe asks for it."""
    threshold = recipe.data.repeat_threshold
    if threshold is None:
        return None
    factors = factors_of(data, threshold)
    say(
        f"class-balanced sampling: {counted(int((factors > 1).sum()), 'image')} of {len(factors)} repeated, up to "
        f"{factors.max():.2f} times; {factors.sum():.0f} images per pass"
    )
    return factors


def _starting_point(options: TrainOptions, say: Say) -> Path | None:
    """The checkpoint to resume from, if any; TrainingError for a folder that is in use."""
    run = Path(options.work_dir)
    last = last_checkpoint(run)
    if last is not None and not options.resume:
        raise TrainingError(
            f"{run} already holds a run (last checkpoint {last.name}); continue it with --resume, or choose another "
            "--work-dir"
        )
    if options.resume and last is None:
        say(f"nothing to resume in {run}: starting from the beginning")
    return last


def _build(
    recipe: Recipe, options: TrainOptions, world: World, data: DetectionDataset, *, fresh: bool, say: Say
) -> Trained:
    """The detector with its first weights (unless a checkpoint is to fill it), and what trains it."""
    schedule, device = recipe.schedule, world.device
    detector = recipe.detector.build(classes=data.classes)
    to_channels_last(detector)
    check_features(detector)
    detector.test_transforms = recipe.data.test_transforms
    if fresh and options.init is not None:
        report = initialise(detector, initial_checkpoint(options.init, recipe))
        say(f"init: {len(report.loaded)} tensors from {options.init}")
        if report.fresh:
            say(f"re-initialised, because the class lists differ: {', '.join(report.fresh)}")
        if report.kept:
            of = f"{len(report.kept)} of {len(data.classes)} classes"
            say(f"  of these, the weights of {of} are loaded by name: {first_few(report.kept)}")
    elif fresh:
        detector.load_initial_weights()
    detector = detector.to(device)
    frozen_norms = freeze(recipe.optimizer, detector)
    average = None
    if schedule.ema_decay is not None:
        average = AveragedModel(detector, multi_avg_fn=averaging(schedule.ema_decay), use_buffers=True)
    return Trained(
        detector=detector,
        optimizer=build_optimizer(recipe.optimizer, detector),
        scaler=torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16"),
        average=average,
        frozen_norms=frozen_norms,
    )


def _wrap(recipe: Recipe, detector: Detector, world: World) -> nn.Module:
    """The detector compiled and distributed, if the recipe and the world ask for it."""
    if recipe.schedule.compile:
        for part in compiled_parts(detector):
            part.compile()
    if world.size == 1:
        return detector
    devices = [world.device] if world.device.type == "cuda" else None
    # the name of "buffers are each rank's own" since torch 2.15, and before
    names = inspect.signature(DistributedDataParallel).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {"device_ids": devices, own_buffers: False}
    return DistributedDataParallel(detector, **options)


def compiled_parts(detector: Detector) -> list[nn.Module]:
    """The parts whose shapes depend only on the padded size. torch compiles each for a few sizes, then for all sizes.

    RoI heads are not among them: they create their outputs, and the number of regions changes from step to step.
    """
    head = detector.dense_head
    parts = (detector.backbone, detector.neck, head if head is not None and head.compiles else None)
    return [part for part in parts if part is not None]
