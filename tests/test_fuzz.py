"""Every reader ends in a result or a DetError, whatever it is given: see `fuzz_readers.py`.

Each reader runs for some seconds in a process of its own, so that a crash is seen. DET_FUZZ_SECONDS=600 looks longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_readers import READERS

SECONDS = float(os.environ.get("DET_FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("DET_FUZZ_SEED", "0"))


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_ends_in_a_result_or_a_det_error(reader: str) -> None:
    script = Path(__file__).with_name("fuzz_readers.py")
    done = subprocess.run(
        [sys.executable, str(script), reader, str(SECONDS), str(SEED)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tries"] > 0
    assert found["failures"] == [], json.dumps(found["failures"], indent=2)


def test_a_failure_is_seen() -> None:
    """A reader that raises something else, and one that ends its process, are found."""
    program = (
        "import fuzz_readers, os\n"
        "def once(rng): raise KeyError('x')\n"
        "fuzz_readers.READERS['bad'] = lambda folder: once\n"
        "fuzz_readers.READERS['crash'] = lambda folder: lambda rng: os._exit(11)\n"
        "import sys; fuzz_readers.main(sys.argv[1], 0.01, 5)"
    )
    run = [sys.executable, "-c", program]
    folder = str(Path(__file__).parent)
    bad = subprocess.run([*run, "bad"], capture_output=True, text=True, cwd=folder)
    found = json.loads(bad.stdout)
    assert found["failed"] == found["tries"] > 0
    assert found["failures"][0]["seed"] == 5
    assert "KeyError" in found["failures"][0]["error"]
    assert subprocess.run([*run, "crash"], cwd=folder).returncode == 11
