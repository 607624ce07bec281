"""Several processes, and processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from det_ops import native

STABLE = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include "part.h"

using torch::stable::Tensor;

Tensor scaled(Tensor x) {
  Tensor out = torch::stable::empty_like(x);
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(out.data_ptr());
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = PART * from[i];
  return out;
}

STABLE_TORCH_LIBRARY(det_native_test, m) { m.def("scaled(Tensor x) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(det_native_test, CPU, m) { m.impl("scaled", TORCH_BOX(&scaled)); }
"""
FLAGS = ("-O1", "-DTORCH_TARGET_VERSION=0x020b000000000000")

LOAD = """
import json, sys, time
from pathlib import Path
import torch
from det_ops import native
name, source, header, *flags = sys.argv[1:]
outcome = native.load(native.NativeLibrary(name, (Path(source),), (Path(header),), flags=tuple(flags)))
answer = torch.ops.det_native_test.scaled(torch.ones(2)).tolist() if flags and outcome.loaded else None
print(json.dumps({"loaded": outcome.loaded, "origin": outcome.origin, "answer": answer, "reason": outcome.reason,
                  "path": str(outcome.path)}))
"""


def _start(tools, library, **environment):
    files = (str(library.sources[0]), str(library.headers[0]))
    return tools["python"](LOAD, library.name, *files, *library.flags, **environment)


def test_eight_processes_build_once_and_all_call_the_operator(make, tools, cache_folder):
    tools["needs_compiler"]()
    library = make(STABLE, flags=FLAGS)
    runs = [_start(tools, library, RANK=str(rank), OMP_NUM_THREADS="1") for rank in range(8)]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0] * 8, outputs
    answers = [json.loads(out) for out, _ in outputs]
    assert [a["answer"] for a in answers] == [[42.0, 42.0]] * 8, answers
    assert sorted(a["origin"] for a in answers) == ["build"] + ["cache"] * 7
    assert len({a["path"] for a in answers}) == 1


def test_eight_processes_try_a_failing_build_once(make, builds, cache_folder, monkeypatch):
    library = make("nonsense\n")
    children = [_forked(library) for _ in range(8)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [1] * 8
    assert len(builds()) == 1


def _forked(library):
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if native.load(library).loaded else 1
        finally:
            os._exit(code)
    return pid


def test_a_killed_builder_leaves_nothing_that_hurts(make, tools, cache_folder, tmp_path, monkeypatch):
    tools["needs_compiler"]()
    library, pids = make(), tmp_path / "pids"
    text = f'case "$*" in *objects*|*sources*) echo $$ >> {pids}; sleep 60;; esac\nexec c++ "$@"'
    slow = tools["script"](tmp_path / "slow", text)
    victim = _start(tools, library, CXX=str(slow))
    _until(lambda: pids.exists() and pids.read_text(), 60)
    left = next(cache_folder.glob(".building-*"))
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    outcome = native.load(library)  # at once: the lock died with its holder
    assert (outcome.loaded, outcome.origin) == (True, "build"), outcome.reason
    compilers = [int(pid) for pid in pids.read_text().split()]
    _until(lambda: not any(map(_alive, compilers)), 10)  # none continues
    assert not left.exists()
    assert [p.name for p in cache_folder.iterdir() if p.name.startswith(".building")] == []


def _until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("waited too long")
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_threads_load_once(make, builds, cache_folder):
    from concurrent.futures import ThreadPoolExecutor

    library = make()
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(native.load, [library] * 8))
    assert len({id(outcome) for outcome in outcomes}) == 1
    assert outcomes[0].loaded
    assert len(builds()) == 1
