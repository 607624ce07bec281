"""A training run as a run of Weights & Biases."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import wandb

from det_core.recipe import Recipe
from det_core.run_folder import RunFolder, checkpoints_to_log, finite, flat_settings, weights_of

TRACKER = "wandb"
CHECKPOINTS = "DET_WANDB_CHECKPOINTS"
PROJECT = "det"  # unless WANDB_PROJECT names another
STEP = "step"  # the axis of all curves

# wandb waits longer by itself, and training would wait. In seconds; used where the user has set none.
PATIENCE = {"init_timeout": 30, "finish_timeout": 600}


class TrackedRun:
    """Logs a training run. wandb sends what is logged from a process of its own, so that a step does not wait.

    Args:
        recipe: of the run; its settings become the configuration.
        work_dir: the run folder, which has wandb's files in `wandb/` and remembers the id of its run.
        step: steps already trained; if there are some, wandb's run is continued.
        say: prints a line for the user.

    Raises:
        wandb.errors.Error: if the server cannot be reached, or nobody is signed in.
    """

    def __init__(self, recipe: Recipe, work_dir: Path, step: int, say: Callable[[str], None]) -> None:
        self.folder, self.name = RunFolder(work_dir), recipe.name
        self.checkpoints = checkpoints_to_log(CHECKPOINTS)
        mode: Any = os.environ.get("WANDB_MODE")  # which wandb checks
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        before = self.folder.remembered(TRACKER)
        continued = bool(step) and before.get("project") == project and "run_id" in before
        self.run = wandb.init(
            project=project,
            id=before["run_id"] if continued else None,
            resume="allow" if continued else None,
            name=os.environ.get("WANDB_NAME") or recipe.name,
            job_type="train",
            dir=str(work_dir.absolute()),
            mode=mode,
            config={**flat_settings(recipe.to_plain()), "run": self._facts(recipe)},
            settings=wandb.Settings(console="off", **_patience()),
            reinit="create_new",  # a run that the user has begun goes on
        )
        self.folder.remember(TRACKER, {"run_id": self.run.id, "project": project})
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)
        self.run.define_metric(recipe.evaluation.best, step_metric=STEP, summary="max")
        for file in self.folder.documents():
            self.run.save(str(file.absolute()), base_path=str(work_dir.absolute()), policy="now")
        where = self.run.dir if self.run.offline else self.run.url
        say(f"wandb: run {self.run.id}, {where}" + (f", continued at step {step}" if continued else ""))

    def _facts(self, recipe: Recipe) -> dict[str, Any]:
        facts = self.folder.facts()
        names = ("recipe", "plugins", "torch", "device", "processes")
        kept: dict[str, Any] = {name: facts[name] for name in names if name in facts}
        classes = facts.get("classes", {}).get("names", ())
        return {**kept, "classes": list(classes), "data": f"{recipe.data.train.type} {recipe.data.root}".strip()}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of a step."""
        self.run.log({**finite(metrics), STEP: step})

    def log_checkpoint(self, checkpoint: Path) -> None:
        """Upload the weights of a checkpoint, if all are asked for."""
        if self.checkpoints == "all":
            self._log_weights(checkpoint, checkpoint.name)

    def _log_weights(self, checkpoint: Path, alias: str) -> None:
        artifact = wandb.Artifact(_artifact_name(self.name), type="model", metadata={"checkpoint": checkpoint.name})
        artifact.add_file(str(weights_of(checkpoint)))
        self.run.log_artifact(artifact, aliases=[alias])

    def end(self, step: int, reason: str, best: Path | None) -> None:
        """Log curves, pictures, the page of an analysis and the best checkpoint, and wait until all is sent."""
        shown: dict[str, Any] = {}
        if (curves := self.folder.curves()) is not None:
            shown["curves"] = wandb.Image(str(curves))
        if pictures := self.folder.pictures():
            shown["pictures"] = [wandb.Image(str(file), caption=file.stem) for file in pictures]
        if (analysis := self.folder.analysis()) is not None:
            shown |= _analysis(self.run, analysis)
        if shown:
            self.run.log({**shown, STEP: step})
        if (found := self.folder.best()) is not None:
            self.run.summary[f"best/{found[0]}"] = found[1]
        if best is not None:
            self.run.summary["best/checkpoint"] = best.name
            if self.checkpoints == "best":
                self._log_weights(best, "best")
        self.run.summary["reason"] = reason
        self.run.finish(exit_code=1 if reason == "failed" else 0)


def log_analysis(work_dir: str | Path) -> None:
    """Add an analysis that was made after training to wandb's run of a run folder.

    Raises:
        DetError: if the run was not analysed, or not logged.
        wandb.errors.Error: if the server cannot be reached, or nobody is signed in.
    """
    work_dir = Path(work_dir)
    analysis, before = RunFolder(work_dir).analysis_to_log(TRACKER)
    run = wandb.init(
        project=before.get("project"),
        id=before["run_id"],
        resume="allow",
        dir=str(work_dir.absolute()),
        settings=wandb.Settings(console="off", **_patience()),
        reinit="create_new",
    )
    run.log(_analysis(run, analysis))
    run.finish()


def _analysis(run: wandb.Run, folder: Path) -> dict[str, Any]:
    """The page of an analysis, to be logged; its folder becomes an artifact."""
    artifact = wandb.Artifact(f"analysis-{run.id}", type="analysis")
    artifact.add_dir(str(folder))
    run.log_artifact(artifact)
    return {"analysis": wandb.Html(str(folder / "index.html"))}


def _patience() -> dict[str, Any]:
    """The time limits that the user has not set by wandb's own variables."""
    return {name: seconds for name, seconds in PATIENCE.items() if f"WANDB_{name.upper()}" not in os.environ}


def _artifact_name(recipe: str) -> str:
    """The recipe's name with the characters that names of artifacts may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", recipe)
