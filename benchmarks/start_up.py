"""Time what needs no torch: help, listings and configuration errors, beside another checkout's in turns.

    python benchmarks/start_up.py                     # this checkout
    git worktree add /tmp/before REVISION
    python benchmarks/start_up.py --other /tmp/before

Prints processor time (the least and the median of the runs) and the ratio of the medians, this checkout to the other.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    ["--help"],
    ["plugins"],
    ["recipes"],
    ["recipes", "show", "htc/r50-fpn-1x"],
    ["train", "--recipe", "mask-rcnn/r50-fpn-1x", "--set", "detector.backbone.depth=35"],
    ["train", "--recipe", "mask-rcnn/r50-fpn-1x", "--set", "detector.neck=null"],
)


def environment(checkout: Path) -> dict[str, str]:
    """The environment in which a checkout's packages are imported."""
    folders = [checkout / "ops/src", checkout / "core/src", *sorted(checkout.glob("plugins/*/src"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def processor_time(command: list[str], checkout: Path) -> float:
    """Seconds of processor time of one run of det-core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "det_core", *command], env=environment(checkout), capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--other", type=Path, help="another checkout to compare with")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    checkouts = {"here": ROOT, **({"other": options.other.resolve()} if options.other else {})}
    for command in COMMANDS:
        times: dict[str, list[float]] = {name: [] for name in checkouts}
        for _ in range(options.runs):
            for name, checkout in checkouts.items():
                times[name].append(processor_time(command, checkout))
        shown = "  ".join(f"{n} {min(t):.3f} {statistics.median(t):.3f} s" for n, t in times.items())
        medians = [statistics.median(t) for t in times.values()]
        ratio = f"  ratio {medians[0] / medians[1]:.2f}" if len(medians) > 1 else ""
        print(f"det-core {' '.join(command)}: {shown}{ratio}", flush=True)


if __name__ == "__main__":
    main()
