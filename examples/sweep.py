"""Search hyperparameters with Optuna, by any number of processes on machines that share a folder.

pip install optuna
python examples/sweep.py --config my.yaml --data my_data --sweep runs/sweep --trials 20   # as often as there are GPUs

Each process takes the next trial, trains it with det-core, and stops it early if it is worse than the median of the
others. If a process is killed, another one continues its trial from the last checkpoint.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

FOLDER = "folder"  # the user attribute with the run folder, which a trial that is taken over inherits
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def space(trial: optuna.Trial) -> list[str]:
    """What is searched: overrides as for `det-core train --set`. Change this function."""
    rate = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    decay = trial.suggest_float("weight_decay", 1e-5, 1e-3, log=True)
    flip = trial.suggest_categorical("flip", [0.0, 0.5])
    return [f"optimizer.lr={rate}", f"optimizer.weight_decay={decay}", f"data.train_transforms[1].probability={flip}"]


def main() -> None:
    """Work on the trials of a sweep until enough of them are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a recipe file")
    parser.add_argument("--data", help="the data set")
    parser.add_argument("--sweep", required=True, type=Path, help="a folder that all processes see")
    parser.add_argument("--trials", type=int, default=20, help="trials of the whole sweep")
    parser.add_argument("--metric", default="box_ap", help="what is maximised: a key of metrics.jsonl")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="for all trials")
    options = parser.parse_args()
    options.sweep.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(options.sweep / "journal.log"))),
        direction="maximize",
        load_if_exists=True,
    )
    while sum(trial.state in DONE for trial in study.get_trials(deepcopy=False)) < options.trials:
        take_over_lost_trials(study, options.sweep)
        study.optimize(lambda trial: objective(trial, options), n_trials=1)
    best = study.best_trial
    print(f"best: {options.metric} {best.value} in {options.sweep / best.user_attrs[FOLDER]}: {best.params}")


def objective(trial: optuna.Trial, options: argparse.Namespace) -> float:
    """Train a trial in its folder, or continue it there; its best metric."""
    name = trial.user_attrs.get(FOLDER, f"trial-{trial.number}")
    trial.set_user_attr(FOLDER, name)
    run = options.sweep / name
    command = [
        sys.executable,
        "-m",
        "det_core",
        "train",
        "--config",
        options.config,
        "--work-dir",
        str(run),
        "--resume",
    ]
    command += ["--data", options.data] if options.data else []
    for override in (*options.set, *space(trial)):
        command += ["--set", override]
    with (options.sweep / f"{name}.lock").open("w") as lock, (options.sweep / f"{name}.log").open("a") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The training holds the lock too: it ends with the last of this process and the training.
        training = subprocess.Popen(  # noqa: S603 - the command is made here
            command, pass_fds=[lock.fileno()], stdout=log, stderr=subprocess.STDOUT
        )
        reported = 0
        while training.poll() is None:
            time.sleep(0.5)
            reported = report(trial, run / "metrics.jsonl", options.metric, reported)
            if trial.should_prune():
                training.terminate()  # which saves a checkpoint
                training.wait()
                raise optuna.TrialPruned
    if training.returncode:
        raise RuntimeError(f"{name} ended with exit code {training.returncode}; see {options.sweep / name}.log")
    values = evaluations(run / "metrics.jsonl", options.metric)
    if not values:
        raise RuntimeError(f"{name} has no {options.metric}; give the metric of its evaluation with --metric")
    return max(value for _, value in values)


def report(trial: optuna.Trial, metrics: Path, metric: str, reported: int) -> int:
    """Report new evaluations to Optuna; the number of all."""
    values = evaluations(metrics, metric)
    for step, value in values[reported:]:
        trial.report(value, step)
    return len(values)


def evaluations(metrics: Path, metric: str) -> list[tuple[int, float]]:
    """Steps and values of a metric in a metrics.jsonl, whose last line may be incomplete."""
    if not metrics.is_file():
        return []
    lines = metrics.read_text(encoding="utf8").splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]


def take_over_lost_trials(study: optuna.Study, sweep: Path) -> None:
    """Queue trials whose process has ended; their run folders are continued."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        name = trial.user_attrs.get(FOLDER)
        if name is None or not (sweep / f"{name}.lock").exists():
            continue  # it is about to start
        with (sweep / f"{name}.lock").open("r+") as lock:
            if is_free(lock):
                try:
                    study.tell(trial.number, state=TrialState.FAIL)
                except ValueError:  # another process was faster
                    continue
                study.enqueue_trial(trial.params, user_attrs={FOLDER: name})
                print(f"process {os.getpid()} continues {name}, whose process has ended")


def is_free(lock: IO[str]) -> bool:
    """Whether no process holds a lock. It is released when the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main()
