"""Eight processes that build the native kernels at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, ended

PROCESSES = 8
SMALL = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

torch::stable::Tensor doubled(torch::stable::Tensor x) {
  torch::stable::Tensor out = torch::stable::empty_like(x);
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(out.data_ptr());
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = 2 * from[i];
  return out;
}

STABLE_TORCH_LIBRARY(det_faults, m) { m.def("doubled(Tensor x) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(det_faults, CPU, m) { m.impl("doubled", TORCH_BOX(&doubled)); }
"""
FLAGS = ("-O1", "-DTORCH_TARGET_VERSION=0x020b000000000000")


def kernels(sizes: Sizes) -> Iterator[Found]:
    """From an empty cache, one process builds, all load the same file and compute with it, and nothing else is left."""
    failures = []
    for number in range(sizes.rounds):
        with tempfile.TemporaryDirectory() as name:
            problem = _round(Path(name), small=sizes.small)
            failures += [f"round {number + 1}: {problem}"] if problem else []
    which = "a small library" if sizes.small else "the CPU kernels"
    yield f"{PROCESSES} processes that build {which} at once", sizes.rounds, failures


def _round(folder: Path, *, small: bool) -> str:
    """All processes of a round; returns what is wrong, or an empty text."""
    cache = folder / "cache"
    (folder / "tmp").mkdir()
    (folder / "det_faults.cpp").write_text(SMALL)
    children = [Child(_builder(folder, small=small), folder / f"out{number}") for number in range(PROCESSES)]
    with ended(*children):
        statuses = [child.end(600) for child in children]
    if any(statuses):
        return f"statuses {statuses}: {next(child.errors[-300:] for child in children if child.process.exitcode)}"
    answers = [json.loads(child.said) for child in children]
    if not all(answer["right"] for answer in answers):
        return f"wrong results: {answers}"
    origins = sorted(answer["origin"] for answer in answers)
    paths = {answer["path"] for answer in answers}
    if origins != ["build"] + ["cache"] * (PROCESSES - 1) or len(paths) > 1:
        return f"origins {origins}, files {sorted(paths)}"
    entry = Path(paths.pop()).parent
    left = [path.name for path in cache.iterdir() if path != entry and path.suffix != ".lock"]
    return f"left behind: {left}" if left or entry.parent != cache else ""


def _builder(folder: Path, *, small: bool) -> Callable[[], int]:
    """Load the library, and print where it came from and whether it computes what it should."""

    def call() -> int:
        for name in [name for name in os.environ if name.startswith("DET_OPS_")]:
            del os.environ[name]
        os.environ |= {"DET_OPS_CACHE": str(folder / "cache"), "HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        os.environ |= {"XDG_CACHE_HOME": str(folder / "home-cache")}
        tempfile.tempdir = None
        from det_ops import libraries, native

        library = libraries.CPU
        if small:
            library = native.NativeLibrary("det_faults", (folder / "det_faults.cpp",), flags=FLAGS)
        outcome = native.load(library)
        right = outcome.loaded and (_small_is_right() if small else _kernels_are_right())
        print(json.dumps({"right": right, "origin": outcome.origin, "path": str(outcome.path)}))
        return 0

    return call


def _small_is_right() -> bool:
    import torch

    return bool(torch.ops.det_faults.doubled(torch.ones(3)).tolist() == [2.0, 2.0, 2.0])


def _kernels_are_right() -> bool:
    """Whether the built kernel keeps the boxes that the reference keeps."""
    import torch

    from det_ops.nms import nms
    from det_ops.reference import boxes as reference

    corners = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 50
    boxes, scores = torch.cat([corners, corners + 20], dim=1), torch.linspace(1, 0.1, 200)
    return nms(boxes, scores, 0.5).tolist() == reference.nms(boxes, scores, 0.5, 0).tolist()
