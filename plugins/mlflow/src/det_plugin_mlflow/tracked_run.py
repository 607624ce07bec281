"""A training run as a run of MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags

from det_core.recipe import Recipe
from det_core.run_folder import RunFolder, checkpoints_to_log, finite, flat_settings, weights_of
from det_plugin_mlflow.names import TAG_LENGTH, VALUE_LENGTH, Names, apart, shortened

TRACKER = "mlflow"
CHECKPOINTS = "DET_MLFLOW_CHECKPOINTS"
ANALYSIS = "analysis"  # the artifact's path
EXPERIMENT = "det"  # unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID says another
SECONDS = 5.0  # at least, between two requests with metrics
MOST_METRICS, MOST_PARAMS = 900, 100  # of one request
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

# MLflow tries again for minutes by itself, and training would wait. These are used where the user has set none.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}

T = TypeVar("T")


class TrackedRun:
    """Logs a training run. Metrics are collected and sent every few seconds, so that a step does not wait for a server.

    Args:
        recipe: of the run; its settings become parameters.
        work_dir: the run folder, which remembers the id of MLflow's run.
        step: steps already trained; if there are some, MLflow's run is continued.
        say: prints a line for the user.

    Raises:
        MlflowException: if the server cannot be reached; of the methods, too.
    """

    def __init__(self, recipe: Recipe, work_dir: Path, step: int, say: Callable[[str], None]) -> None:
        self.folder, self.names = RunFolder(work_dir), Names()
        self.checkpoints = checkpoints_to_log(CHECKPOINTS)
        self._metrics: list[Metric] = []
        self._sent = time.monotonic()
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self.client = MlflowClient()
        resumed = self._resumed() if step else None
        self.run_id = resumed or self._created(recipe)
        self.folder.remember(TRACKER, {"run_id": self.run_id, "uri": str(self.client.tracking_uri)})
        for file in self.folder.documents():
            self.client.log_artifact(self.run_id, str(file))
        continued = f", continued at step {step}" if resumed else ""
        say(f"mlflow: run {self.run_id} at {self.client.tracking_uri}{continued}")

    def _resumed(self) -> str | None:
        """The id of MLflow's run of this folder, which runs again; None if the server has none."""
        before = self.folder.remembered(TRACKER)
        if before.get("uri") != str(self.client.tracking_uri) or not before.get("run_id"):
            return None
        try:
            self.client.update_run(before["run_id"], status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return before["run_id"]

    def _created(self, recipe: Recipe) -> str:
        """The id of a new run with the settings of the recipe as parameters, and the facts of the run as tags."""
        name = os.environ.get("MLFLOW_RUN_NAME") or recipe.name
        tags = {key: shortened(str(value), TAG_LENGTH) for key, value in resolve_tags().items()}
        run_id = str(self.client.create_run(self._experiment(), run_name=name, tags=tags).info.run_id)
        facts = self.folder.facts()
        classes = facts.get("classes", {}).get("names", ())
        described = {
            "det.recipe": recipe.name,
            "det.classes": ", ".join(map(str, classes)),
            "det.plugins": ", ".join(f"{k} {v}" for k, v in facts.get("plugins", {}).items()),
            "det.data": f"{recipe.data.train.type} {recipe.data.root}".strip(),
            "det.torch": str(facts.get("torch", "")),
            "det.device": str(facts.get("device", "")),
        }
        run_tags = [RunTag(key, shortened(value, TAG_LENGTH)) for key, value in described.items()]
        self.client.log_batch(run_id, tags=run_tags)
        names = Names()
        params = [
            Param(names(path), shortened(str(value), VALUE_LENGTH))
            for path, value in flat_settings(recipe.to_plain()).items()
        ]
        for part in _parts(params, MOST_PARAMS):
            self.client.log_batch(run_id, params=part)
        return run_id

    def _experiment(self) -> str:
        """The id of the experiment that MLflow's own variables name, or else of `det`; made if necessary."""
        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        return str(self.client.create_experiment(name) if found is None else found.experiment_id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep metrics of a step, and send all that are kept if the last time was long enough ago."""
        now = int(time.time() * 1000)
        self._metrics += [Metric(self.names(name), value, now, step) for name, value in apart(finite(metrics)).items()]
        if time.monotonic() - self._sent >= SECONDS or len(self._metrics) >= MOST_METRICS:
            self.send()

    def send(self) -> None:
        """Send the metrics that are kept."""
        metrics, self._metrics = self._metrics, []
        for part in _parts(metrics, MOST_METRICS):
            self.client.log_batch(self.run_id, metrics=part)
        self._sent = time.monotonic()

    def log_checkpoint(self, checkpoint: Path) -> None:
        """Upload the weights of a checkpoint, if all are asked for."""
        if self.checkpoints == "all":
            self.client.log_artifact(self.run_id, str(weights_of(checkpoint)), f"checkpoints/{checkpoint.name}")

    def end(self, step: int, reason: str, best: Path | None) -> None:
        """Send what is left: metrics, the best one, curves, pictures, the page of an analysis, the best checkpoint."""
        if (found := self.folder.best()) is not None:
            self.log(step, {f"best/{found[0]}": found[1]})
        self.send()
        if (curves := self.folder.curves()) is not None:
            self.client.log_artifact(self.run_id, str(curves))
        for picture in self.folder.pictures():
            self.client.log_artifact(self.run_id, str(picture), "pictures")
        if (analysis := self.folder.analysis()) is not None:
            self.client.log_artifacts(self.run_id, str(analysis), ANALYSIS)
        if best is not None:
            self.client.set_tag(self.run_id, "det.best_checkpoint", best.name)
            if self.checkpoints == "best":
                self.client.log_artifact(self.run_id, str(weights_of(best)), "checkpoints/best")
        self.client.set_terminated(self.run_id, STATUS.get(reason, "FAILED"))


def log_analysis(work_dir: str | Path) -> None:
    """Add an analysis that was made after training to MLflow's run of a run folder.

    Raises:
        DetError: if the run was not analysed, or not logged.
        MlflowException: if the server cannot be reached.
    """
    analysis, before = RunFolder(Path(work_dir)).analysis_to_log(TRACKER)
    MlflowClient(before.get("uri")).log_artifacts(before["run_id"], str(analysis), ANALYSIS)


def _parts(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]
