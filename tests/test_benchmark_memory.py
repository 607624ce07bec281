"""`benchmarks/models.py --keep-memory`: what it tells the C library, and what it says where there is none to tell."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

MEASURE = Path(__file__).resolve().parents[1] / "benchmarks" / "measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("det_benchmark_measure", MEASURE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_both_settings_are_made(measure, monkeypatch):
    told = {}
    library = SimpleNamespace(mallopt=lambda name, value: told.update({name: value}) or 1)
    monkeypatch.setattr(measure.ctypes, "CDLL", lambda _: library)
    measure.keep_memory()
    assert told == {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD, M_MMAP_MAX


@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(mallopt=lambda name, value: 0)])
def test_other_libraries_are_refused(measure, monkeypatch, library):
    monkeypatch.setattr(measure.ctypes, "CDLL", lambda _: library)
    with pytest.raises(SystemExit, match="--keep-memory needs the GNU C library, whose malloc can be told so"):
        measure.keep_memory()
