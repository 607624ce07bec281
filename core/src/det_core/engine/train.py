"""Training: the loop, and what it keeps so that nothing is lost.

A run is a function of its recipe, seed and the total batch. A step's images, augmentations and samples come from
keys, the learning rate from the step, so a run that is resumed, or spread over more ranks, goes the same way.
"""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from det_core.config.base import DetError
from det_core.data.dataset import DetectionDataset, check_same_categories
from det_core.data.loader import LoadedImage, TrainSampler, train_loader
from det_core.engine import checkpoint as checkpoints
from det_core.engine.checkpoint import Header, initialise, last_checkpoint
from det_core.engine.distributed import GlobalLosses, World, barrier, gather, join, leave, reduce_losses
from det_core.engine.evaluate import Evaluation, EvaluationStopped, evaluate
from det_core.engine.loggers import MetricsFile, TensorBoard, Terminal
from det_core.engine.predict import autocast, to_batch, to_targets
from det_core.engine.schedule import build_optimizer, learning_rate
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe

KEEP_CHECKPOINTS = 2


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
        work_dir=Path(work_dir), init=None if init is None else Path(init), resume=resume, device=device,
        max_steps=max_steps, log_every=log_every, save_every=save_every, quiet=quiet,
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
        self.start_from = self._starting_point()
        self.train_data, self.val_data = self._open_data()
        torch.manual_seed(recipe.schedule.seed)
        detector = recipe.detector.build(classes=self.train_data.classes)
        detector.test_transforms = recipe.data.test_transforms
        self.detector = detector.to(world.device)
        self._initial_weights()
        self.sampler = TrainSampler(
            sizes=self.train_data.sizes, images_per_rank=recipe.data.images_per_rank, seed=recipe.schedule.seed,
            rank=world.rank, world=world.size, repeat=recipe.data.repeat, group_by_aspect=recipe.data.group_by_aspect,
        )
        accumulate = recipe.schedule.accumulate
        self.steps_per_epoch = -(-self.sampler.steps_per_epoch // accumulate)
        self.total_steps = self.steps_per_epoch * recipe.schedule.epochs
        self.last_step = min(self.total_steps, options.max_steps or self.total_steps)
        self.rate = learning_rate(
            recipe.optimizer, recipe.schedule, self.sampler.global_batch * accumulate, self.steps_per_epoch
        )
        self.optimizer = build_optimizer(recipe.optimizer, self.detector)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.schedule.precision == "fp16")
        self.average = self._moving_average()
        self.step = 0
        self.metrics_file = MetricsFile(options.work_dir)
        torch.manual_seed(recipe.schedule.seed + 1 + world.rank)
        if self.start_from is not None:
            self._restore(self.start_from)
        if recipe.schedule.compile:
            self.detector.backbone.compile()
            if self.detector.neck is not None:
                self.detector.neck.compile()
        self.model: nn.Module = self._distribute()

    # Building

    def _starting_point(self) -> Path | None:
        """The checkpoint to resume from; errors for a folder that is in use."""
        run = self.options.work_dir
        last = last_checkpoint(run)
        if last is not None and not self.options.resume:
            raise TrainingError(
                f"{run} already holds a run (last checkpoint {last.name}); go on with --resume, or choose another "
                "--work-dir"
            )
        if self.options.resume and last is None:
            self.terminal.say(f"nothing to resume in {run}: starting from the beginning")
        return last if self.options.resume else None

    def _open_data(self) -> tuple[DetectionDataset, DetectionDataset]:
        data = self.recipe.data
        judged = any(e.needs_masks() for e in self.recipe.evaluation.evaluators)
        train_data = data.train.build(
            data.root, masks=self.recipe.detector.needs_masks(), on_bad_sample=data.on_bad_sample
        )
        val_data = data.val.build(data.root, masks=judged, on_bad_sample=data.on_bad_sample)
        check_same_categories(train_data, val_data)
        for dataset in (train_data, val_data):
            for bad in dataset.skipped:
                self.terminal.say(f"left out: {bad}")
        return train_data, val_data

    def _initial_weights(self) -> None:
        if self.start_from is not None:
            return
        if self.options.init is not None:
            report = initialise(self.detector, self.options.init)
            self.terminal.say(f"init: {len(report.loaded)} tensors from {self.options.init}")
            if report.fresh:
                names = ", ".join(report.fresh)
                self.terminal.say(f"newly initialised, because the classes differ: {names}")
            return
        self.detector.load_initial_weights()

    def _moving_average(self) -> AveragedModel | None:
        decay = self.recipe.schedule.ema_decay
        if decay is None:
            return None
        return AveragedModel(self.detector, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def _distribute(self) -> nn.Module:
        if self.world.size == 1:
            return self.detector
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        return DistributedDataParallel(self.detector, device_ids=devices, broadcast_buffers=False)

    # Running

    def go(self) -> TrainResult:
        """Train to the end, or until somebody asks to stop."""
        metrics = self._last_evaluation()
        reason = "failed"
        self.tensorboard = TensorBoard(self.options.work_dir) if self.world.main else None
        if self.world.main:
            self._announce()
            self._notify("det_run_started", recipe=self.recipe, work_dir=self.options.work_dir)
        try:
            with self._sigterm_asks():
                metrics, reason = self._epochs(metrics)
        finally:
            self.terminal.stop()
            if self.tensorboard is not None:
                self.tensorboard.close()
            if self.world.main:
                self._notify("det_run_finished", step=self.step, reason=reason)
        if self.world.main:
            self._leave_pictures()
            self.terminal.say(f"{reason} after step {self.step} of {self.total_steps}: {self.options.work_dir}")
        barrier(self.world)
        return TrainResult(
            reason=reason, step=self.step, metrics=metrics, work_dir=self.options.work_dir, detector=self._judged()
        )

    def _epochs(self, metrics: dict[str, float]) -> tuple[dict[str, float], str]:
        """Train and evaluate in turn; the last metrics, and why it ended."""
        try:
            while True:
                if self._epoch_is_unevaluated():
                    metrics = self._evaluate()
                    if not self._goes_on():
                        return metrics, "finished"
                if self.step >= self.last_step:
                    return metrics, "finished" if self.step == self.total_steps else "stopped"
                self._epoch()
                if self.stop_asked:
                    return metrics, "stopped"
        except EvaluationStopped:
            return metrics, "stopped"

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

    def _epoch(self) -> None:
        """The rest of the current epoch, then a checkpoint; ends early if asked to stop."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        accumulate = self.recipe.schedule.accumulate
        transforms = [t.build() for t in self.recipe.data.train_transforms]
        loader = train_loader(
            self.train_data, transforms, self.sampler, epoch, done * accumulate, self.recipe.data.workers
        )
        self.terminal.start(f"epoch {epoch + 1}/{self.recipe.schedule.epochs}", self.steps_per_epoch, done)
        batches = iter(loader)
        while self.step < min((epoch + 1) * self.steps_per_epoch, self.last_step):
            started = time.perf_counter()
            micro = list(islice(batches, accumulate))
            loaded = time.perf_counter()
            losses = self._train_step(micro)
            self.step += 1
            self._log(losses, loaded - started, time.perf_counter() - started)
            if losses.stop:  # some rank was asked to: all know it after the same step
                self.stop_asked = True
                break
            if self.options.save_every and self.step % self.options.save_every == 0:
                self._save()
        self._save()

    def _train_step(self, micro: Sequence[Sequence[LoadedImage]]) -> GlobalLosses:
        """Forward and backward of each micro-batch, then one update; the losses are means over micro-batches."""
        rate = self.rate.at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.detector.train()
        parts = []
        for number, images in enumerate(micro):
            last = number == len(micro) - 1
            with nullcontext() if last or self.world.size == 1 else self.model.no_sync():  # type: ignore[operator]
                parts.append(self._forward_backward(images, len(micro), rate))
        if self.recipe.schedule.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.detector.parameters(), self.recipe.schedule.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.detector)
        values = {name: sum(p.values[name] for p in parts) / len(parts) for name in parts[0].values}
        return GlobalLosses(parts[-1].backward.detach(), values, any(p.stop for p in parts))

    def _forward_backward(self, images: Sequence[LoadedImage], count: int, rate: float) -> GlobalLosses:
        batch = to_batch(self.detector, images)
        with autocast(self.world.device, self.recipe.schedule.precision):
            terms = self.model(batch, to_targets(batch, images))
        losses = reduce_losses(terms, self.world, stop=self.stop_asked)
        if not math.isfinite(losses.total):
            self._not_finite(losses, images, rate)
        self.scaler.scale(losses.backward / count).backward()  # type: ignore[no-untyped-call]
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

    # Logging and evaluating

    def _announce(self) -> None:
        recipe, count = self.recipe, sum(p.numel() for p in self.detector.parameters())
        self.options.work_dir.mkdir(parents=True, exist_ok=True)
        checkpoints.write_text(self.options.work_dir / "recipe.yaml", recipe.to_yaml())
        plugins = ", ".join(f"{name} {version}" for name, version in plugin_manager().versions().items())
        batch = self.sampler.global_batch * recipe.schedule.accumulate
        self.terminal.say(
            f"recipe {recipe.name}: {count / 1e6:.1f} M parameters, {len(self.detector.classes)} classes\n"
            f"data: {len(self.train_data)} training and {len(self.val_data)} validation images ({self.train_data.name})\n"
            f"schedule: {recipe.schedule.epochs} epochs of {self.steps_per_epoch} steps of {batch} images, seed "
            f"{recipe.schedule.seed}, {recipe.schedule.precision} on {self.world.device} x {self.world.size}\n"
            f"learning rate: base {self.rate.base:g}, effective {self.rate.effective:g} (batch {batch}"
            + (f" / {recipe.optimizer.lr_batch})" if recipe.optimizer.lr_batch else ", not scaled)")
            + f"\nplugins: {plugins}"
            + (f"\nresumed at step {self.step}" if self.step else "")
        )

    def _log(self, losses: GlobalLosses, waiting: float, whole: float) -> None:
        if not self.world.main:
            return
        parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.values.items())
        text = f"loss {losses.total:.3f} ({parts})  {1 / whole:.1f} steps/s  data {100 * waiting / whole:.0f}%"
        self.terminal.advance(self.step - (self.step - 1) // self.steps_per_epoch * self.steps_per_epoch, text)
        if self.step % self.options.log_every == 0 or self.step == 1:
            values = {f"loss/{name}": value for name, value in losses.values.items()}
            values |= {"loss/total": losses.total, "lr": self.rate.at(self.step - 1), "time/step": whole,
                       "time/data": waiting}
            if self.world.device.type == "cuda":
                values["memory/peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            self.metrics_file.write(self.step, values)
            assert self.tensorboard is not None
            self.tensorboard.write(self.step, values)
            self._notify("det_step_finished", step=self.step, metrics=values)

    def _notify(self, hook: str, **values: object) -> None:
        plugin_manager().notify(hook, self.switched_off, self.terminal.say, **values)

    def _evaluations(self) -> list[dict[str, Any]]:
        """The rows of evaluations up to now; they alone decide what is best and when to lose patience."""
        return [r for r in self.metrics_file.rows() if "evaluated" in r and r["step"] <= self.step]

    def _last_evaluation(self) -> dict[str, float]:
        rows = self._evaluations()
        skip = ("step", "evaluated")
        return {k: math.nan if v is None else v for k, v in rows[-1].items() if k not in skip} if rows else {}

    def _epoch_is_unevaluated(self) -> bool:
        """Whether an epoch that is to be evaluated has just ended without that; all ranks answer alike."""
        epoch, rest = divmod(self.step, self.steps_per_epoch)
        due = rest == 0 and epoch > 0 and (
            epoch % self.recipe.evaluation.every_epochs == 0 or epoch == self.recipe.schedule.epochs)
        if not due:
            return False
        done = self.world.main and any(r["step"] == self.step for r in self._evaluations())
        return not gather(done, self.world)[0]

    def _judged(self) -> Detector:
        """The detector that is evaluated and saved: the moving average where there is one."""
        return self.detector if self.average is None else self.average.module

    def _evaluate(self) -> dict[str, float]:
        """Evaluate, log, and mark the checkpoint of this step if it is the best so far."""
        self.terminal.start("evaluating", -(-len(self.val_data) // self.world.size))
        result = evaluate(
            self._judged(), self.val_data, evaluators=self.recipe.evaluation.evaluators,
            transforms=self.recipe.data.test_transforms, workers=self.recipe.data.workers,
            precision=self.recipe.schedule.precision, world=self.world,
            progress=lambda done, total: self.terminal.advance(done), should_stop=lambda: self.stop_asked,
        )
        self.terminal.stop()
        if self.world.main:
            self._keep(result)
        barrier(self.world)
        return result.metrics

    def _keep(self, result: Evaluation) -> None:
        self.terminal.say("\n".join(result.tables))
        name = self.recipe.evaluation.best
        if name not in result.metrics:
            known = ", ".join(result.metrics)
            raise TrainingError(f"evaluation.best: no metric {name!r} was measured; there are: {known}")
        value = result.metrics[name]
        before = [r[name] for r in self._evaluations() if r.get(name) is not None]
        if math.isfinite(value) and value > max(before, default=-math.inf):
            last = last_checkpoint(self.options.work_dir)
            if last is not None:
                checkpoints.mark_best(self.options.work_dir, last, name, value)
        self.metrics_file.write(self.step, {"evaluated": 1.0, **result.metrics})
        assert self.tensorboard is not None
        self.tensorboard.write(self.step, {f"metrics/{k}": v for k, v in result.metrics.items()})
        self._notify("det_evaluated", step=self.step, metrics=result.metrics)

    def _goes_on(self) -> bool:
        """Whether patience lasts: the best evaluation is not too many evaluations ago."""
        patience = self.recipe.evaluation.patience
        if patience is None:
            return True
        name = self.recipe.evaluation.best
        values = gather([r.get(name) or -math.inf for r in self._evaluations()], self.world)[0]
        since = len(values) - 1 - int(np.argmax(values))
        if since >= patience:
            self.terminal.say(f"no better {name} in {since} evaluations: stopping early")
        return since < patience

    def _leave_pictures(self) -> None:
        """Curves, and detections on a few validation images, beside the checkpoints."""
        from det_core.engine.pictures import leave_pictures

        for note in leave_pictures(self.options.work_dir, self._judged(), self.val_data, self.metrics_file.rows()):
            self.terminal.say(note)

    # Saving and restoring

    def _save(self) -> None:
        """A checkpoint of this step, written by the main rank; all ranks give their random states."""
        states = gather(_random_states(self.world.device), self.world)
        if self.world.main:
            header = Header(
                recipe=self.recipe, classes=self.detector.classes, plugins=plugin_manager().versions(), step=self.step
            )
            training = {
                "step": self.step,
                "total_batch": self.sampler.global_batch * self.recipe.schedule.accumulate,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": states,
                "averaged": None if self.average is None else int(self.average.n_averaged),
            }
            raw = None if self.average is None else self.detector.state_dict()
            checkpoints.save_checkpoint(
                self.options.work_dir, header, self._judged().state_dict(), training, raw
            )
            checkpoints.prune(self.options.work_dir, KEEP_CHECKPOINTS)
        barrier(self.world)

    def _restore(self, folder: Path) -> None:
        """Everything as it was after the step of a checkpoint."""
        header = checkpoints.read_header(folder / checkpoints.WEIGHTS)
        self._check_same_run(header)
        training = torch.load(folder / checkpoints.TRAINING, map_location="cpu", weights_only=True)
        batch = self.sampler.global_batch * self.recipe.schedule.accumulate
        if training["total_batch"] != batch:
            raise TrainingError(
                f"{folder}: trained with {training['total_batch']} images per step, but this run has {batch}; resume "
                "with as many processes (torchrun --nproc-per-node), or set data.images_per_rank or "
                "schedule.accumulate so that the total is the same"
            )
        raw = folder / checkpoints.RAW_WEIGHTS
        weights = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        if self.average is not None:
            self.average.module.load_state_dict(weights)
            self.average.n_averaged.fill_(training["averaged"])
            weights = checkpoints.read_weights(raw)
        self.detector.load_state_dict(weights)
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        self.step = training["step"]
        if self.world.rank < len(training["random"]):
            _restore_random_states(training["random"][self.world.rank], self.world.device)
        if self.world.main:
            self.metrics_file.rewind(self.step)
        barrier(self.world)

    def _check_same_run(self, header: Header) -> None:
        """A run is resumed with its own recipe; where the data lie and who loads them may change."""
        def essence(recipe: Recipe) -> dict[str, Any]:
            plain = recipe.to_plain()
            for name in ("root", "workers", "images_per_rank"):
                plain["data"].pop(name)
            plain["schedule"].pop("accumulate")
            return plain

        ours, theirs = essence(self.recipe), essence(header.recipe)
        if ours != theirs:
            changed = [name for name in ours if ours[name] != theirs.get(name)]
            raise TrainingError(
                f"{self.options.work_dir} was trained with another recipe (differs in: {', '.join(changed)}); resume "
                f"with --config {self.options.work_dir}/recipe.yaml, or start anew with --init and another --work-dir"
            )
        if header.classes != self.detector.classes:
            raise TrainingError(f"{self.options.work_dir} was trained on other classes; resume with the same data")


def _random_states(device: torch.device) -> dict[str, Any]:
    """The states of all random generators, as tensors and plain numbers."""
    kind, words, position, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(words).astype(np.int64)), int(position), int(has_gauss),
                  float(gauss)),
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


