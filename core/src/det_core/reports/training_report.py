"""What a training run shows and leaves: terminal, metrics file, TensorBoard events, pictures, calls of run hooks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from det_core.contracts import BadSample
from det_core.engine.checkpoint import CheckpointError, best_checkpoint, last_checkpoint
from det_core.engine.distributed import GlobalLosses, World
from det_core.engine.evaluate import Evaluation
from det_core.engine.history import History
from det_core.engine.train_options import TrainOptions
from det_core.engine.training_setup import TrainingSetup
from det_core.plugins import plugin_manager
from det_core.reports.loggers import MetricsFile, TensorBoard, Terminal
from det_core.reports.run_pictures import leave_pictures
from det_core.reports.run_summary import facts, greeting
from det_core.safe_write import write_text


class TrainingReport:
    """The report of one run; only the main rank prints, writes and calls hooks."""

    setup: TrainingSetup  # from `begin` on
    tensorboard: TensorBoard
    history: History

    def __init__(self, options: TrainOptions, world: World) -> None:
        self.world = world
        self.terminal = Terminal(quiet=options.quiet or not world.main)
        self._failed_plugins: set[int] = set()
        self._saved = 0

    def say(self, text: str) -> None:
        """A line (or several) for the user."""
        self.terminal.say(text)

    def begin(self, setup: TrainingSetup) -> None:
        """Record the recipe and the facts of the run, and say what will be trained."""
        self.setup = setup
        metrics = MetricsFile(setup.run)
        self.history = History(setup.run, metrics, setup.recipe.evaluation)
        if not self.world.main:
            return
        metrics.rewind(setup.step)  # rows after the checkpoint, or of a run killed before its first, are written again
        self._announce()
        self.tensorboard = TensorBoard(setup.run, self.say)
        self._notify("det_run_started", recipe=setup.recipe, work_dir=setup.run, step=setup.step, say=self.say)

    def _announce(self) -> None:
        setup = self.setup
        record = facts(setup.recipe, setup.trained.detector, self.world)
        write_text(setup.run / "recipe.yaml", setup.recipe.to_yaml())
        write_text(setup.run / "run.json", json.dumps(record, indent=2) + "\n")
        data = (setup.train_data, setup.val_data)
        self.say(greeting(setup.recipe, setup.trained, data, setup.rate, setup.total_batch, self.world))
        if setup.step:
            self.say("\n".join([f"resumed at step {setup.step}", *(f"  changed: {line}" for line in setup.changed)]))

    def end(self, step: int, reason: str) -> None:
        """The run has ended, in whatever way. If it ended well, curves, pictures and analysis precede the hooks."""
        self.terminal.stop()
        if not self.world.main:
            return
        self.tensorboard.close()
        try:
            if reason != "failed":
                self._draw()
            if reason == "finished" and self.setup.options.analyze:
                self._analyze()
        finally:
            self._notify("det_run_finished", step=step, reason=reason, best=self._best())

    def _draw(self) -> None:
        setup = self.setup
        shown = setup.train_data if setup.val_data is None else setup.val_data
        for note in leave_pictures(setup.run, setup.trained.judged, shown, self.history.file.rows()):
            self.say(note)

    def _analyze(self) -> None:
        from det_core.analysis.after_training import analyze_training

        setup = self.setup
        if self.world.size > 1:
            # The other ranks would wait for longer than they do for a rank that has hung.
            run = shlex.quote(str(setup.run))
            self.say(f"a run of several processes is not analyzed; run `det-core analyze --checkpoint {run}`")
            return
        assert setup.val_data is not None  # `check_analysis` has seen to it
        analyze_training(setup.run, setup.recipe, setup.val_data, str(self.world.device), self.say)

    def _best(self) -> Path | None:
        try:
            return best_checkpoint(self.setup.run)
        except CheckpointError as error:
            self.say(str(error))
            return None

    def leave(self, step: int, reason: str) -> None:
        """Say how a run ended, and where everything is."""
        if not self.world.main:
            return
        self.say(f"{reason} after step {step} of {self.setup.total_steps}: {self.setup.run}")
        self.say(self._outcome(step, reason))

    def _outcome(self, step: int, reason: str) -> str:
        """The best evaluation with its checkpoint, and the next command."""
        run = shlex.quote(str(self.setup.run))
        if reason == "stopped":
            return f"continue: det-core train --resume --work-dir {run}"
        best, checkpoint = self.history.best(step), best_checkpoint(self.setup.run)
        if best is None or checkpoint is None:
            return f"next: det-core predict --checkpoint {run} IMAGES"
        name = self.setup.recipe.evaluation.best
        return (
            f"best {name} {100 * best[1]:.1f} % after step {best[0]}: {checkpoint.name}; "
            f"next: det-core analyze --checkpoint {run}"
        )

    def start_epoch(self, epoch: int, done: int) -> None:
        """Begin the progress bar of an epoch (from 0), of which some steps are done."""
        self.terminal.start(f"epoch {epoch + 1}/{self.setup.recipe.schedule.epochs}", self.setup.steps_per_epoch, done)

    def log_step(self, step: int, losses: GlobalLosses, *, waiting: float, whole: float) -> None:
        """Show a step, and write it if its turn has come.

        Args:
            step: from 1.
            losses: of the global batch.
            waiting: seconds spent waiting for data.
            whole: seconds of the step.
        """
        if not self.world.main:
            return
        parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.values.items())
        text = f"loss {losses.total:.3f} ({parts})  {1 / whole:.1f} steps/s  data {100 * waiting / whole:.0f}%"
        self.terminal.advance((step - 1) % self.setup.steps_per_epoch + 1, text)
        if step % self.setup.options.log_every and step != 1:
            return
        values = {f"loss/{name}": value for name, value in losses.values.items()}
        values |= {"loss/total": losses.total, "lr": self.setup.rate.at(step - 1)}
        values |= {"time/step": whole, "time/data": waiting}
        if self.world.device.type == "cuda":
            values["memory/peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.history.file.write(step, values)
        self.tensorboard.write(step, values)
        self._notify("det_step_finished", step=step, metrics=values)

    def saved(self, step: int) -> None:
        """A checkpoint was saved after this step; one step may save it twice."""
        if self.world.main and step != self._saved:
            self._saved = step
            self._notify("det_checkpoint_saved", step=step, checkpoint=last_checkpoint(self.setup.run))

    def show_skipped(self, skipped: Sequence[BadSample]) -> None:
        """Name the images that any rank left out while loading this epoch."""
        for bad in dict.fromkeys(skipped):
            self.say(f"left out: {bad}")

    def start_evaluation(self, images: int) -> None:
        """Begin the progress bar of an evaluation on this many images."""
        self.terminal.start("evaluating", -(-images // self.world.size))

    def show_evaluation(self, step: int, result: Evaluation, losses: Mapping[str, float]) -> None:
        """Show and record an evaluation, and the losses on the validation data."""
        self.terminal.stop()
        if not self.world.main:
            return
        self.say("\n".join(result.tables))
        if losses:
            self.say("validation " + "  ".join(f"{name.partition('/')[2]} {v:.3f}" for name, v in losses.items()))
        metrics = {**result.by_name(), **losses}
        self.history.add(step, metrics)
        self.tensorboard.write(step, {f"metrics/{k}": v for k, v in metrics.items()})
        self._notify("det_evaluated", step=step, metrics=metrics)

    def _notify(self, hook: str, **values: object) -> None:
        plugin_manager().notify(hook, self._failed_plugins, self.say, **values)
