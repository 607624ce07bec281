"""The training loop: epochs, steps, evaluations and checkpoints, until the schedule ends or somebody asks to stop.

A run is a function of its recipe, seed and total batch. The images, augmentations and samples of a step come from
keys and the learning rate from the step, so a run that is resumed, or spread over more ranks, trains the same way.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from types import FrameType

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from det_core.contracts import DetectionDataset
from det_core.data.loader import train_loader
from det_core.data.loader_watch import worker_errors
from det_core.engine import training_state
from det_core.engine.checkpoint import checkpoints, step_of
from det_core.engine.device_batches import Loaded, sent_ahead, streams_of
from det_core.engine.distributed import GlobalLosses, barrier, exchange, gather, reduce_losses
from det_core.engine.evaluate import EvaluationStopped, evaluate
from det_core.engine.parameter_groups import set_learning_rate
from det_core.engine.predict import autocast, to_batch, to_targets
from det_core.engine.training_setup import TrainingError, TrainingSetup
from det_core.engine.validation_loss import validation_losses
from det_core.reports.training_report import TrainingReport
from det_core.structures import Batch


class TrainingLoop:
    """One run on one rank: `run` trains to the end, or until somebody asks to stop."""

    def __init__(self, setup: TrainingSetup, report: TrainingReport) -> None:
        self.setup, self.report = setup, report
        self.recipe, self.world, self.trained = setup.recipe, setup.world, setup.trained
        self.step = setup.step
        self.stop_asked = False
        self.batches = self._load()

    def run(self) -> tuple[dict[str, float], str]:
        """The metrics of the last evaluation (fractions of 1), and why the run ended: `finished` or `stopped`."""
        with self._stop_on_signals(), worker_errors(), closing(self.batches):
            return self._epochs(self.report.history.last_metrics(self.step))

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Inside, SIGTERM and the first Ctrl-C ask to save and leave after the current step; the second leaves at once.

        Only in the main thread, which alone can handle signals.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.stop_asked:
                raise KeyboardInterrupt
            self.stop_asked = True
            if number == signal.SIGINT:
                self.report.say("stopping after this step; press Ctrl-C again to leave at once")

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _epochs(self, metrics: dict[str, float]) -> tuple[dict[str, float], str]:
        """Train and evaluate in turn; the last metrics, and why it ended."""
        setup = self.setup
        try:
            while True:
                if self._evaluation_is_due():
                    metrics = self._evaluate()
                    if self._patience_ends():
                        return metrics, "finished"
                if self.step >= setup.last_step:
                    return metrics, "finished" if self.step == setup.total_steps else "stopped"
                self._epoch()
                # SIGTERM may reach a rank after the step's exchange: all ranks leave together, or none does.
                if any(gather(self.stop_asked, self.world, "the end of an epoch")):
                    return metrics, "stopped"
        except EvaluationStopped:
            return metrics, "stopped"

    # Training

    def _epoch(self) -> None:
        """The rest of the current epoch, then a checkpoint; ends early if asked to stop."""
        setup = self.setup
        epoch, done = divmod(self.step, setup.steps_per_epoch)
        self.report.start_epoch(epoch, done)
        known = len(setup.train_data.skipped)
        while self.step < min((epoch + 1) * setup.steps_per_epoch, setup.last_step):
            started = time.perf_counter()
            micro = list(islice(self.batches, self._micro_batches()))
            loaded = time.perf_counter()
            losses = self._train_step(micro)
            self.step += 1
            self.report.log_step(self.step, losses, waiting=loaded - started, whole=time.perf_counter() - started)
            if losses.stop:  # some rank was asked to: all know it after the same step
                self.stop_asked = True
                break
            if setup.options.save_every and self.step % setup.options.save_every == 0:
                self._save()
        skipped = [
            bad
            for part in gather(setup.train_data.skipped[known:], self.world, "the bad samples of an epoch")
            for bad in part
        ]
        self.report.show_skipped(skipped)
        self._save()

    def _micro_batches(self) -> int:
        """The micro-batches of the next step: the last step of an epoch may have fewer."""
        accumulate, done = self.recipe.schedule.accumulate, self.step % self.setup.steps_per_epoch
        return min(accumulate, self.setup.sampler.steps_per_epoch - done * accumulate)

    def _load(self) -> Generator[Loaded]:
        """The batches of all steps that are left, loaded ahead by processes that live as long as the run, and sent
        ahead to a GPU.
        """
        setup, recipe = self.setup, self.recipe
        epoch, done = divmod(self.step, setup.steps_per_epoch)
        transforms = [t.build() for t in recipe.data.train_transforms]
        start, workers = done * recipe.schedule.accumulate, recipe.data.workers
        left = recipe.schedule.epochs - epoch
        loader = train_loader(
            setup.train_data, transforms, setup.sampler, epoch, start, workers, self.world.timeout, epochs=left
        )
        yield from sent_ahead(loader, self.trained.detector.preprocess, streams_of(self.world.device), targets=True)

    def _save(self) -> None:
        setup = self.setup
        training_state.save(setup.run, self.recipe, self.trained, self.step, setup.total_batch, self.world)
        self.report.saved(self.step)

    def _train_step(self, micro: Sequence[Loaded]) -> GlobalLosses:
        """Forward and backward of each micro-batch, then one update; the losses are means over micro-batches."""
        schedule, trained, model = self.recipe.schedule, self.trained, self.setup.model
        rate = self.setup.rate.at(self.step)
        set_learning_rate(trained.optimizer, rate)
        trained.train()
        parts = []
        for number, images in enumerate(micro):
            last = number == len(micro) - 1
            with nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync():
                parts.append(self._forward_backward(images, len(micro), rate))
        if schedule.clip_norm is not None:
            trained.scaler.unscale_(trained.optimizer)
            nn.utils.clip_grad_norm_(trained.detector.parameters(), schedule.clip_norm)
        trained.scaler.step(trained.optimizer)
        trained.scaler.update()
        trained.optimizer.zero_grad(set_to_none=True)
        if trained.average is not None:
            trained.average.update_parameters(trained.detector)
        values = {name: sum(p.values[name] for p in parts) / len(parts) for name in parts[0].values}
        return GlobalLosses(parts[-1].backward.detach(), values, any(p.stop for p in parts))

    def _forward_backward(self, images: Loaded, count: int, rate: float) -> GlobalLosses:
        batch = to_batch(self.trained.detector, images)
        with autocast(self.world.device, self.recipe.schedule.precision):
            terms = self.setup.model(batch, to_targets(batch, images))
        losses = reduce_losses(terms, self.world, stop=self.stop_asked)
        if not math.isfinite(losses.total):
            self._raise_not_finite(losses, batch, rate)
        with exchange("the gradients of a step", self.world):
            self.trained.scaler.scale(losses.backward / count).backward()
        return losses

    def _raise_not_finite(self, losses: GlobalLosses, batch: Batch, rate: float) -> None:
        """End the run; all ranks have the same losses, so all of them call this."""
        ids = [
            i
            for part in gather([i.image_id for i in batch.infos], self.world, "a loss that is not finite")
            for i in part
        ]
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.values.items())
        # What was saved after the last step has not been confirmed by a finite loss: it may be ruined already.
        confirmed = [p for p in checkpoints(self.setup.run) if step_of(p) < self.step]
        kept = f"the last good checkpoint is {confirmed[-1]}" if confirmed else "there is no good checkpoint yet"
        raise TrainingError(
            f"the loss is not finite at step {self.step}: {values}; learning rate {rate:.3g}; image ids {ids}; {kept}. "
            "A smaller learning rate (--set optimizer.lr=...), a longer warm-up, gradient clipping "
            "(--set schedule.clip_norm=35) or fp32 often helps; check these images with `det-core data`"
        )

    # Evaluating

    def _evaluation_is_due(self) -> bool:
        """Whether the epoch that has just ended is still to be evaluated; all ranks agree."""
        epoch, rest = divmod(self.step, self.setup.steps_per_epoch)
        wanted = epoch % self.recipe.evaluation.every_epochs == 0 or epoch == self.recipe.schedule.epochs
        possible = self.setup.val_data is not None and bool(self.recipe.evaluation.evaluators)
        if rest or epoch == 0 or not wanted or not possible:
            return False
        return not gather(self.world.main and self.report.history.evaluated(self.step), self.world, "the history")[0]

    def _evaluate(self) -> dict[str, float]:
        """Evaluate the state after this step; the main rank records it."""
        assert self.setup.val_data is not None  # otherwise no evaluation is due
        self.report.start_evaluation(len(self.setup.val_data))
        result = evaluate(
            self.trained.judged,
            self.setup.val_data,
            evaluators=self.recipe.evaluation.evaluators,
            transforms=self.recipe.data.test_transforms,
            workers=self.recipe.data.workers,
            precision=self.recipe.schedule.precision,
            world=self.world,
            progress=lambda done, total: self.report.terminal.advance(done),
            should_stop=lambda: self.stop_asked,
        )
        losses = self._validation_losses(self.setup.val_data)
        self.report.show_evaluation(self.step, result, losses)
        barrier(self.world, "the metrics of an evaluation")
        return result.metrics

    def _validation_losses(self, data: DetectionDataset) -> dict[str, float]:
        """The losses on the validation data, if the recipe asks for them."""
        if not self.recipe.evaluation.losses:
            return {}
        return validation_losses(
            self.trained.judged,
            data,
            self.recipe.data.test_transforms,
            workers=self.recipe.data.workers,
            precision=self.recipe.schedule.precision,
            world=self.world,
            should_stop=lambda: self.stop_asked,
        )

    def _patience_ends(self) -> bool:
        """Whether the best evaluation is too many evaluations ago; all ranks agree."""
        patience = self.recipe.evaluation.patience
        if patience is None:
            return False
        since = gather(self.report.history.without_gain(self.step), self.world, "the history")[0]
        if since >= patience:
            self.report.say(f"no better {self.recipe.evaluation.best} in {since} evaluations: stopping early")
        return since >= patience
