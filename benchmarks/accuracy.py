"""What recipes reach on the data they name, over seeds: each is trained in full, with det_core.train, and evaluated.

    python benchmarks/accuracy.py --recipes rpn/r18-fpn-demo fast-rcnn/r18-fpn-demo --seeds 0 1 [--set K=V]
                                  [--data ROOT] [--work-dir runs/accuracy] [--threads N] [--json FILE]

A recipe of Fast R-CNN takes the proposals of the RPN recipe of the same backbone and seed (`fast-rcnn/x` those of
`rpn/x`), which is trained first if it is not listed itself. Runs that are in the work folder already go on where they
left off, or are only read. Numbers are percent, of the last evaluation; the spread is over seeds. Exit status 1 if a
seed stays below a number that is stated here for its recipe: then it has not learned what it should.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from attrs import evolve, frozen
from rich.console import Console
from rich.table import Table

from det_core import Recipe, load_recipe, train
from det_core.data.proposals import write_proposals
from det_core.engine.propose import propose

SHOWN = ("ar100", "ar300", "ar1000", "box_ap", "box_ap50", "mask_ap", "mask_ap50")

FLOORS = {  # percent that every seed should reach; seed 0 reached 46.0 and 83.0
    ("rpn/r18-fpn-demo", "ar100"): 35.0,
    ("fast-rcnn/r18-fpn-demo", "box_ap50"): 70.0,
}


@frozen
class Options:
    """What all runs share."""

    work_dir: Path
    data: str | None
    overrides: tuple[str, ...]


@frozen
class Outcome:
    """A trained run: metrics as fractions, and the seconds that this process spent on it."""

    metrics: dict[str, float]
    seconds: float


def run(name: str, seed: int, options: Options) -> Outcome:
    """Train a recipe with a seed, or go on with the run that is there."""
    recipe = load_recipe(name, options.overrides)
    recipe = evolve(recipe, schedule=evolve(recipe.schedule, seed=seed))
    recipe = recipe if options.data is None else recipe.with_data(options.data)
    started = time.perf_counter()
    if recipe.detector.dense_head is None:
        recipe = with_proposals(recipe, seed, options)
    result = train(recipe, work_dir=folder(name, seed, options), resume=True, quiet=True)
    return Outcome(result.metrics, time.perf_counter() - started)


def folder(name: str, seed: int, options: Options) -> Path:
    """The run folder of a recipe and seed."""
    return options.work_dir / f"{name.replace('/', '-')}-seed{seed}"


def with_proposals(recipe: Recipe, seed: int, options: Options) -> Recipe:
    """The recipe on the proposals of the RPN of the same backbone and seed, which is trained if need be."""
    name = f"rpn/{recipe.name.partition('/')[2]}"
    source = folder(name, seed, options)
    rpn = load_recipe(name, options.overrides)
    rpn = evolve(rpn, schedule=evolve(rpn.schedule, seed=seed))
    rpn = rpn if options.data is None else rpn.with_data(options.data)
    detector = train(rpn, work_dir=source, resume=True, quiet=True).detector
    data = recipe.data
    for split, opened in (("train", rpn.open_train()), ("val", rpn.open_val())):
        file = source / f"proposals-{split}.safetensors"
        found = propose(detector, opened, workers=rpn.data.workers)
        write_proposals(file, found, {"recipe": name, "dataset": opened.name, "split": split})
        data = evolve(data, **{split: evolve(getattr(data, split), proposals=str(file.resolve()))})
    return evolve(recipe, data=data)


def table(outcomes: dict[str, list[Outcome]], seeds: list[int]) -> Table:
    """A row for each recipe and metric."""
    shown = Table("recipe", "metric", "mean", "spread", "by seed", "s per seed", title=f"seeds {seeds}, percent")
    for name, runs in outcomes.items():
        seconds = f"{statistics.mean(run.seconds for run in runs):.0f}"
        for metric in (m for m in SHOWN if m in runs[0].metrics):
            values = [100 * run.metrics[metric] for run in runs]
            spread = f"{max(values) - min(values):.1f}" if len(values) > 1 else "-"
            each = " ".join(f"{value:.1f}" for value in values)
            shown.add_row(name, metric, f"{statistics.mean(values):.1f}", spread, each, seconds)
    return shown


def below(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """A line for each run that stays below what is stated for its recipe."""
    return [
        f"{name}: {metric} is {100 * run.metrics[metric]:.1f}, expected at least {floor:.1f}"
        for (name, metric), floor in FLOORS.items()
        for run in outcomes.get(name, [])
        if 100 * run.metrics[metric] < floor
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", metavar="ROOT", help="root folder of the data set, by default the recipe's own")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all metrics of all runs to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = Options(given.work_dir, given.data, tuple(given.overrides))
    console = Console()
    outcomes: dict[str, list[Outcome]] = {}
    for name in given.recipes:
        for seed in given.seeds:
            outcome = run(name, seed, options)
            outcomes.setdefault(name, []).append(outcome)
            console.print(f"{name} seed {seed}: {outcome.seconds:.0f} s")
    console.print(table(outcomes, given.seeds))
    if given.json is not None:
        plain = {name: [run.metrics for run in runs] for name, runs in outcomes.items()}
        given.json.write_text(json.dumps({"seeds": given.seeds, "metrics": plain}, indent=2) + "\n", encoding="utf8")
    if problems := below(outcomes):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
