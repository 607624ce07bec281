"""Training: the loop, and what it keeps so that nothing is lost.

A run is a function of its recipe, seed and the total batch. A step's images, augmentations and samples come from
keys, the learning rate from the step, so a run that is resumed, or spread over more ranks, goes the same way.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType

import torch
from attrs import frozen
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from det_core.data.categories import check_same_categories
from det_core.data.loader import LoadedImage, TrainSampler, train_loader
from det_core.engine import training_state
from det_core.engine.checkpoint import initialise, last_checkpoint, write_text
from det_core.engine.distributed import GlobalLosses, World, barrier, gather, join, leave, reduce_losses
from det_core.engine.evaluate import EvaluationStopped, evaluate
from det_core.engine.history import History
from det_core.engine.predict import autocast, to_batch, to_targets
from det_core.engine.schedule import build_optimizer, learning_rate
from det_core.engine.training_state import Trained
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.model.memory_layout import to_channels_last
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.reports.loggers import MetricsFile, TensorBoard, Terminal
from det_core.reports.run_pictures import leave_pictures
from det_core.reports.run_summary import facts, greeting


class TrainingError(DetError):
    """Training cannot go on."""


@frozen(kw_only=True)
class TrainResult:
    """How a run ended. reason: `finished` or `stopped`. metrics: of the last evaluation, fractions of 1."""

    reason: str
    step: int
    metrics: dict[str, float]
    work_dir: Path
    detector: Detector


@frozen(kw_only=True)
class TrainOptions:
    """What a run is told beside its recipe.

    init: a checkpoint to start from. resume: go on where `work_dir` left off. max_steps: leave after so many steps.
    log_every: steps between rows of the metrics file. save_every: steps between checkpoints, beside those at the end of
    each epoch.
    """

    work_dir: Path
    init: Path | None = None
    resume: bool = False
    device: str | None = None
    max_steps: int | None = None
    log_every: int = 10
    save_every: int | None = None
    quiet: bool = False


def train(
    recipe: Recipe,
    *,
    work_dir: str | Path,
    data: str | Path | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    max_steps: int | None = None,
    log_every: int = 10,
    save_every: int | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train a recipe, evaluate it as it says, and leave everything in `work_dir`.

    Args:
        recipe: what to train; `load_recipe` reads one.
        work_dir: the run folder; made if need be. One that holds a run already is only taken with `resume`.
        data: root of the data set; by default the recipe's. In place of the bundled sample it is a COCO-format folder.
        init: checkpoint whose weights to start from (fine-tuning); class-dependent layers stay fresh where the
            classes differ.
        resume: go on from the last checkpoint in `work_dir`, bit for bit; from the start if there is none.
        device: by default the GPU if there is one.
        max_steps: save and leave after this step.
        log_every: steps between rows of `metrics.jsonl`.
        save_every: steps between checkpoints, beside those at the end of each epoch.
        quiet: print nothing.

    Raises:
        DetError: for bad data, a folder in use, weights that do not fit, or a loss that is not finite.
    """
    if data is not None:
        recipe = recipe.with_data(data)
    options = TrainOptions(
        work_dir=Path(work_dir),
        init=None if init is None else Path(init),
        resume=resume,
        device=device,
        max_steps=max_steps,
        log_every=log_every,
        save_every=save_every,
        quiet=quiet,
    )
    world = join(device)
    try:
        return _Run(recipe, options, world).go()
    finally:
        leave()


class _Run:
    """One run on one rank: everything is built in `__init__`, `go` trains."""

    def __init__(self, recipe: Recipe, options: TrainOptions, world: World) -> None:
        self.recipe, self.options, self.world = recipe, options, world
        self.terminal = Terminal(quiet=options.quiet or not world.main)
        self.stop_asked = False
        self.switched_off: set[int] = set()
        begin = self._starting_point()
        self.train_data, self.val_data = recipe.open_train(), recipe.open_val()
        check_same_categories(self.train_data, self.val_data)
        torch.manual_seed(recipe.schedule.seed)
        self.trained = self._build(fresh=begin is None)
        self.detector = self.trained.detector
        self.sampler = TrainSampler(
            sizes=self.train_data.sizes,
            images_per_rank=recipe.data.images_per_rank,
            seed=recipe.schedule.seed,
            rank=world.rank,
            world=world.size,
            repeat=recipe.data.repeat,
            group_by_aspect=recipe.data.group_by_aspect,
        )
        accumulate = recipe.schedule.accumulate
        self.total_batch = self.sampler.global_batch * accumulate
        self.steps_per_epoch = -(-self.sampler.steps_per_epoch // accumulate)
        self.total_steps = self.steps_per_epoch * recipe.schedule.epochs
        self.last_step = min(self.total_steps, options.max_steps or self.total_steps)
        self.rate = learning_rate(recipe.optimizer, recipe.schedule, self.total_batch, self.steps_per_epoch)
        metrics = MetricsFile(options.work_dir)
        self.history = History(options.work_dir, metrics, recipe.evaluation)
        torch.manual_seed(recipe.schedule.seed + 1 + world.rank)
        self.step = 0
        if begin is not None:
            self.step = training_state.restore(begin, recipe, self.trained, self.total_batch, world)
        if world.main:  # rows after the checkpoint, or of a run killed before its first, are written again
            metrics.rewind(self.step)
        barrier(world)
        self.model = self._wrap()

    # Building

    def _starting_point(self) -> Path | None:
        """The checkpoint to resume from, if any; TrainingError for a folder that is in use."""
        run = self.options.work_dir
        last = last_checkpoint(run)
        if last is not None and not self.options.resume:
            raise TrainingError(
                f"{run} already holds a run (last checkpoint {last.name}); go on with --resume, or choose another "
                "--work-dir"
            )
        if self.options.resume and last is None:
            self.terminal.say(f"nothing to resume in {run}: starting from the beginning")
        return last

    def _build(self, *, fresh: bool) -> Trained:
        """The detector with its first weights (unless a checkpoint is to fill it), and what trains it."""
        schedule, device = self.recipe.schedule, self.world.device
        detector = self.recipe.detector.build(classes=self.train_data.classes)
        to_channels_last(detector)
        detector.test_transforms = self.recipe.data.test_transforms
        if fresh and self.options.init is not None:
            report = initialise(detector, self.options.init)
            self.terminal.say(f"init: {len(report.loaded)} tensors from {self.options.init}")
            if report.fresh:
                self.terminal.say(f"newly initialised, because the classes differ: {', '.join(report.fresh)}")
        elif fresh:
            detector.load_initial_weights()
        detector = detector.to(device)
        average = None
        if schedule.ema_decay is not None:
            average = AveragedModel(detector, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema_decay), use_buffers=True)
        return Trained(
            detector=detector,
            optimizer=build_optimizer(self.recipe.optimizer, detector),
            scaler=torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16"),
            average=average,
        )

    def _wrap(self) -> nn.Module:
        """The detector compiled and distributed, as the recipe and the world want it."""
        if self.recipe.schedule.compile:
            self.detector.backbone.compile()
            if self.detector.neck is not None:
                self.detector.neck.compile()
        if self.world.size == 1:
            return self.detector
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        return DistributedDataParallel(self.detector, device_ids=devices, broadcast_buffers=False)

    # Running

    def go(self) -> TrainResult:
        """Train to the end, or until somebody asks to stop."""
        metrics = self.history.last_metrics(self.step)
        reason = "failed"
        if self.world.main:
            self._announce()
            self.tensorboard = TensorBoard(self.options.work_dir)
            if self.tensorboard.writer is None:
                self.terminal.say("no TensorBoard events: the package is not installed (pip install tensorboard)")
            self._notify("det_run_started", recipe=self.recipe, work_dir=self.options.work_dir)
        try:
            with self._sigterm_asks():
                metrics, reason = self._epochs(metrics)
        finally:
            self.terminal.stop()
            if self.world.main:
                self.tensorboard.close()
                self._notify("det_run_finished", step=self.step, reason=reason)
        if self.world.main:
            rows = self.history.file.rows()
            for note in leave_pictures(self.options.work_dir, self.trained.judged, self.val_data, rows):
                self.terminal.say(note)
            self.terminal.say(f"{reason} after step {self.step} of {self.total_steps}: {self.options.work_dir}")
        barrier(self.world)
        return TrainResult(
            reason=reason,
            step=self.step,
            metrics=metrics,
            work_dir=self.options.work_dir,
            detector=self.trained.judged,
        )

    @contextmanager
    def _sigterm_asks(self) -> Iterator[None]:
        """Inside, SIGTERM asks to save and leave after the step at hand (where this is the main thread)."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.stop_asked = True

        try:
            before = signal.signal(signal.SIGTERM, ask)
        except ValueError:  # signals are for the main thread; elsewhere there is nothing to catch
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _epochs(self, metrics: dict[str, float]) -> tuple[dict[str, float], str]:
        """Train and evaluate in turn; the last metrics, and why it ended."""
        try:
            while True:
                if self._evaluation_is_due():
                    metrics = self._evaluate()
                    if self._patience_ends():
                        return metrics, "finished"
                if self.step >= self.last_step:
                    return metrics, "finished" if self.step == self.total_steps else "stopped"
                self._epoch()
                # SIGTERM may reach a rank after the step's exchange: all ranks leave together, or none does.
                if any(gather(self.stop_asked, self.world)):
                    return metrics, "stopped"
        except EvaluationStopped:
            return metrics, "stopped"

    def _epoch(self) -> None:
        """The rest of the current epoch, then a checkpoint; ends early if asked to stop."""
        schedule = self.recipe.schedule
        epoch, done = divmod(self.step, self.steps_per_epoch)
        transforms = [t.build() for t in self.recipe.data.train_transforms]
        start = done * schedule.accumulate
        loader = train_loader(self.train_data, transforms, self.sampler, epoch, start, self.recipe.data.workers)
        self.terminal.start(f"epoch {epoch + 1}/{schedule.epochs}", self.steps_per_epoch, done)
        batches = iter(loader)
        known = len(self.train_data.skipped)
        while self.step < min((epoch + 1) * self.steps_per_epoch, self.last_step):
            started = time.perf_counter()
            micro = list(islice(batches, schedule.accumulate))
            loaded = time.perf_counter()
            losses = self._train_step(micro)
            self.step += 1
            self._log(losses, loaded - started, time.perf_counter() - started)
            if losses.stop:  # some rank was asked to: all know it after the same step
                self.stop_asked = True
                break
            if self.options.save_every and self.step % self.options.save_every == 0:
                self._save()
        self._tell_skipped(known)
        self._save()

    def _tell_skipped(self, known: int) -> None:
        """Name the images that any rank left out while loading this epoch, beyond those known before it."""
        found = [bad for part in gather(self.train_data.skipped[known:], self.world) for bad in part]
        for bad in dict.fromkeys(found):
            self.terminal.say(f"left out: {bad}")

    def _save(self) -> None:
        training_state.save(self.options.work_dir, self.recipe, self.trained, self.step, self.total_batch, self.world)

    def _train_step(self, micro: Sequence[Sequence[LoadedImage]]) -> GlobalLosses:
        """Forward and backward of each micro-batch, then one update; the losses are means over micro-batches."""
        schedule, trained = self.recipe.schedule, self.trained
        rate = self.rate.at(self.step)
        for group in trained.optimizer.param_groups:
            group["lr"] = rate
        self.detector.train()
        parts = []
        for number, images in enumerate(micro):
            last = number == len(micro) - 1
            quiet = isinstance(self.model, DistributedDataParallel) and not last
            with self.model.no_sync() if quiet else nullcontext():  # type: ignore[operator]
                parts.append(self._forward_backward(images, len(micro), rate))
        if schedule.clip_norm is not None:
            trained.scaler.unscale_(trained.optimizer)
            nn.utils.clip_grad_norm_(self.detector.parameters(), schedule.clip_norm)
        trained.scaler.step(trained.optimizer)
        trained.scaler.update()
        trained.optimizer.zero_grad(set_to_none=True)
        if trained.average is not None:
            trained.average.update_parameters(self.detector)
        values = {name: sum(p.values[name] for p in parts) / len(parts) for name in parts[0].values}
        return GlobalLosses(parts[-1].backward.detach(), values, any(p.stop for p in parts))

    def _forward_backward(self, images: Sequence[LoadedImage], count: int, rate: float) -> GlobalLosses:
        batch = to_batch(self.detector, images)
        with autocast(self.world.device, self.recipe.schedule.precision):
            terms = self.model(batch, to_targets(batch, images))
        losses = reduce_losses(terms, self.world, stop=self.stop_asked)
        if not math.isfinite(losses.total):
            self._not_finite(losses, images, rate)
        self.trained.scaler.scale(losses.backward / count).backward()
        return losses

    def _not_finite(self, losses: GlobalLosses, images: Sequence[LoadedImage], rate: float) -> None:
        """End the run: every rank knows the same losses, so all come here together."""
        ids = [i for part in gather([i.info.image_id for i in images], self.world) for i in part]
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.values.items())
        last = last_checkpoint(self.options.work_dir)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise TrainingError(
            f"the loss is not finite at step {self.step}: {values}; learning rate {rate:.3g}; image ids {ids}; {kept}. "
            "A smaller learning rate (--set optimizer.lr=...), a longer warm-up, gradient clipping "
            "(--set schedule.clip_norm=35) or fp32 often helps; check these images with `det-core data`"
        )

    # Evaluating

    def _evaluation_is_due(self) -> bool:
        """Whether an epoch that is to be evaluated has just ended, and was not evaluated; all ranks answer alike."""
        epoch, rest = divmod(self.step, self.steps_per_epoch)
        wanted = epoch % self.recipe.evaluation.every_epochs == 0 or epoch == self.recipe.schedule.epochs
        if rest or epoch == 0 or not wanted or not self.recipe.evaluation.evaluators:
            return False
        return not gather(self.world.main and self.history.evaluated(self.step), self.world)[0]

    def _evaluate(self) -> dict[str, float]:
        """Evaluate the state after this step; the main rank records it."""
        self.terminal.start("evaluating", -(-len(self.val_data) // self.world.size))
        result = evaluate(
            self.trained.judged,
            self.val_data,
            evaluators=self.recipe.evaluation.evaluators,
            transforms=self.recipe.data.test_transforms,
            workers=self.recipe.data.workers,
            precision=self.recipe.schedule.precision,
            world=self.world,
            progress=lambda done, total: self.terminal.advance(done),
            should_stop=lambda: self.stop_asked,
        )
        self.terminal.stop()
        if self.world.main:
            self.terminal.say("\n".join(result.tables))
            self.history.add(self.step, result.metrics)
            self.tensorboard.write(self.step, {f"metrics/{k}": v for k, v in result.metrics.items()})
            self._notify("det_evaluated", step=self.step, metrics=result.metrics)
        barrier(self.world)
        return result.metrics

    def _patience_ends(self) -> bool:
        """Whether the best evaluation is too many evaluations ago; all ranks answer alike."""
        patience = self.recipe.evaluation.patience
        if patience is None:
            return False
        since = gather(self.history.without_gain(self.step), self.world)[0]
        if since >= patience:
            self.terminal.say(f"no better {self.recipe.evaluation.best} in {since} evaluations: stopping early")
        return since >= patience

    # Telling

    def _announce(self) -> None:
        folder = self.options.work_dir
        write_text(folder / "recipe.yaml", self.recipe.to_yaml())
        write_text(folder / "run.json", json.dumps(facts(self.recipe, self.detector, self.world), indent=2) + "\n")
        data = (self.train_data, self.val_data)
        self.terminal.say(greeting(self.recipe, self.detector, data, self.rate, self.total_batch, self.world))
        if self.step:
            self.terminal.say(f"resumed at step {self.step}")

    def _log(self, losses: GlobalLosses, waiting: float, whole: float) -> None:
        if not self.world.main:
            return
        parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.values.items())
        text = f"loss {losses.total:.3f} ({parts})  {1 / whole:.1f} steps/s  data {100 * waiting / whole:.0f}%"
        self.terminal.advance((self.step - 1) % self.steps_per_epoch + 1, text)
        if self.step % self.options.log_every == 0 or self.step == 1:
            values = {f"loss/{name}": value for name, value in losses.values.items()}
            values |= {"loss/total": losses.total, "lr": self.rate.at(self.step - 1)}
            values |= {"time/step": whole, "time/data": waiting}
            if self.world.device.type == "cuda":
                values["memory/peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            self.history.file.write(self.step, values)
            self.tensorboard.write(self.step, values)
            self._notify("det_step_finished", step=self.step, metrics=values)

    def _notify(self, hook: str, **values: object) -> None:
        plugin_manager().notify(hook, self.switched_off, self.terminal.say, **values)
