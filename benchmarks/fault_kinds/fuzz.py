"""Damaged inputs of every reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fault_kinds.children import Found, Sizes

DRIVER = Path(__file__).resolve().parents[2] / "tests" / "fuzz_readers.py"
READERS = ("coco", "voc", "recipe", "header", "proposals", "image", "command_line")


def fuzz(sizes: Sizes) -> Iterator[Found]:
    """Each reader for so many seconds, in a process of its own."""
    for reader in sizes.readers:
        run = [sys.executable, str(DRIVER), reader, str(sizes.seconds), str(sizes.seed)]
        done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode:
            yield f"fuzz {reader}", 1, [f"the process ended with {done.returncode}: {done.stderr[-300:]}"]
        else:
            found = json.loads(done.stdout.splitlines()[-1])
            yield f"fuzz {reader}", found["tries"], [f"seed {f['seed']}: {f['error']}" for f in found["failures"]]
