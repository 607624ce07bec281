"""Try long what tests try shortly: damage, kills, full disks, several processes, and runs that must not grow.

    python benchmarks/faults.py                                          # all, some hours
    python benchmarks/faults.py --only damage kill --count 200
    python benchmarks/faults.py --only fuzz --seconds 600 --seed 7

| kind    | what                                                                              | size      |
|---------|-----------------------------------------------------------------------------------|-----------|
| fuzz    | damaged inputs of each reader                                                     | --seconds |
| damage  | damaged files of a run folder: refused, or harmless                               | --count   |
| kill    | SIGKILL at a random moment, then resume: all as without                           | --count   |
| disk    | a full disk in training and predicting: one line, nothing left, all goes on after | --count   |
| two     | two processes in one run folder: the second is refused                            | --count   |
| ranks   | two ranks that differ: both end with one line, in each way                        | --rounds  |
| kernels | eight processes that build the native kernels at once                             | --rounds  |
| steady  | memory, descriptors and threads over many steps and predictions                   | --steps   |

Prints a line for each: tries, failures, and the first failures. The exit status is 1 if anything failed. Needs Linux;
a full disk is a small file system that the process mounts for itself, and is left out where that is not allowed.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a fork loses threads

from fault_kinds.children import Sizes, import_all
from fault_kinds.damage import damage
from fault_kinds.disk import disk
from fault_kinds.fuzz import READERS, fuzz
from fault_kinds.kernels import kernels
from fault_kinds.kill import kill
from fault_kinds.ranks import ranks
from fault_kinds.steady import steady
from fault_kinds.two import two

KINDS = {
    "fuzz": fuzz,
    "damage": damage,
    "kill": kill,
    "disk": disk,
    "two": two,
    "ranks": ranks,
    "kernels": kernels,
    "steady": steady,
}
SHOWN = 3


def main() -> int:
    """Run the chosen kinds, a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--readers", nargs="+", choices=READERS, default=READERS, help="to fuzz")
    parser.add_argument("--seconds", type=float, default=600, help="for each reader")
    parser.add_argument("--count", type=int, default=200, help="damaged files, kills, full disks, pairs of processes")
    parser.add_argument("--rounds", type=int, default=20, help="of each disagreement of ranks, of builds")
    parser.add_argument("--steps", type=int, default=2000, help="of training, and predictions")
    parser.add_argument("--small-kernels", action="store_true", help="build a library of one function instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sizes = Sizes(
        readers=tuple(options.readers),
        seconds=options.seconds,
        seed=options.seed,
        count=options.count,
        rounds=options.rounds,
        steps=options.steps,
        small=options.small_kernels,
    )
    import_all()
    failed = 0
    for kind in options.only:
        began = time.monotonic()
        for what, tries, failures in KINDS[kind](sizes):
            print(f"{what}: {tries} tries, {len(failures)} failures", flush=True)
            for failure in failures[:SHOWN]:
                print(f"  {failure}", flush=True)
            failed += len(failures)
        print(f"  {kind} took {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
