"""`benchmarks/faults.py` runs every kind, in the smallest size, and says what fails."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "faults.py"
SMALLEST = "--count 1 --rounds 1 --steps 12 --small-kernels --readers header --seconds 0.1"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_every_kind_runs(run_python) -> None:
    lines = run_python(str(SCRIPT), *SMALLEST.split()).stdout.splitlines()
    what = [line for line in lines if not line.startswith("  ")]
    begins = (
        *("fuzz header", "damaged files of a run folder (1 ", "kills with resume (1 ", "full disks ("),
        *("two processes in one run folder", *["ranks that differ in "] * 6, "8 processes that build a small library"),
        *("12 training steps (memory ", "12 predictions (memory "),
    )
    assert len(what) == len(begins), what
    for line, begin in zip(what, begins, strict=True):
        assert line.startswith(begin)
        assert line.endswith(" tries, 0 failures")


def test_failures_are_shown_and_counted(run_python) -> None:
    program = (
        "import sys, faults\n"
        "def bad(sizes): yield 'bad', 2, ['one', 'two']\n"
        "faults.KINDS['kill'] = bad\n"
        "sys.exit(faults.main())"
    )
    done = run_python("-c", program, "--only", "kill", check=False, PYTHONPATH=path_with(SCRIPT.parent))
    assert done.returncode == 1
    assert done.stdout.startswith("bad: 2 tries, 2 failures\n  one\n  two\n")


def path_with(folder: Path) -> str:
    """PYTHONPATH with this folder in front."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
