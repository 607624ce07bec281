"""Which implementation runs in each state, the single warning, and `det_ops.status`; mostly in new processes."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from op_samples import FORWARD

from det_ops import dispatch, libraries, native

pytestmark = pytest.mark.cpu
# Runs one operator of each kind twice, and prints status before and after, warnings, and whether kernels are there.
CODE = """
import sys, json, warnings
hidden = {hidden!r}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            if hidden == "missing":
                raise ModuleNotFoundError(name)
            raise RuntimeError("operator torchvision::nms does not exist")
if hidden:
    sys.meta_path.insert(0, Hide())
import torch
before = set(sys.modules)
import det_ops
light = not ((set(sys.modules) - before) & {{"torchvision", "numpy"}})
def rows():
    return [[s.name, s.served_by, s.remedy] for s in det_ops.status()]
first = rows()
boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
x = torch.arange(32.0).reshape(1, 2, 4, 4).requires_grad_()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        results = [
            det_ops.nms(boxes, torch.tensor([0.8, 0.9, 0.1]), 0.5).tolist(),
            det_ops.soft_nms(boxes, torch.tensor([0.8, 0.9, 0.1]), 0.5)[0].tolist(),
            det_ops.max_iou_assign(boxes, boxes[:1], 0.5, 0.4)[0].tolist(),
        ]
        pooled = det_ops.roi_align(x, torch.tensor([[0, 0.5, 0.5, 2.5, 2.5]]), (1, 1), 1.0)
        (grad,) = torch.autograd.grad(pooled.sum(), x)
        results += [pooled.flatten().tolist(), float(grad.sum())]
kernels = torch._C._dispatch_has_kernel_for_dispatch_key("det::nms", "CPU")
print(json.dumps(dict(first=first, last=rows(), warned=[[w.category.__name__, str(w.message)] for w in caught],
    results=results, native=kernels, torchvision="torchvision" in sys.modules, light=light)))
"""


@pytest.fixture
def state(run_python):
    """Starts a process whose torchvision is installed, "missing" or "broken"; returns what it printed."""

    def start(hidden="", **environment):
        return json.loads(run_python(CODE.format(hidden=hidden), **environment).splitlines()[-1])

    return start


@pytest.fixture(scope="module")
def compiler():
    found = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++")
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


def nothing_built(folder):
    """An environment without a compiler and without built libraries."""
    places = ("DET_OPS_CACHE", "HOME", "XDG_CACHE_HOME", "TMPDIR")
    return {"CXX": "/nowhere/c++", **{name: str(folder) for name in places}}


def check_results(found):
    nms, soft, assigned, pooled, slope = found["results"]
    assert nms == [1, 2]
    assert sorted(soft) == [0, 1, 2]
    assert assigned == [1, 1, 0]
    assert pooled == pytest.approx([5.0, 21.0])
    assert slope == pytest.approx(2.0)


def by_name(rows):
    assert [name for name, _, _ in rows] == list(FORWARD)
    return {name: (served, remedy) for name, served, remedy in rows}


def test_with_a_compiler_the_native_library_is_loaded(compiler):
    if os.environ.get("DET_OPS_NATIVE") == "off":
        pytest.skip("DET_OPS_NATIVE=off: the fallbacks are tested alone")
    outcome = native.load(libraries.CPU)
    assert outcome.loaded, f"{outcome.reason}\n{outcome.log}"


def test_native_kernels_serve_all(state, compiler):
    found = state()
    assert found["native"]
    assert found["light"]
    assert found["warned"] == []
    assert all(row == ("native (compiled here)", "") for row in by_name(found["last"]).values())
    assert all(served.startswith("native") and not remedy for served, remedy in by_name(found["first"]).values())
    check_results(found)


def test_switched_off_torchvision_serves_where_it_agrees_and_nothing_is_wrong(state):
    pytest.importorskip("torchvision", reason="torchvision is to serve here")
    found = state(DET_OPS_NATIVE="off")
    assert not found["native"]
    assert found["torchvision"]
    assert found["warned"] == []
    for name, row in by_name(found["last"]).items():
        assert row == ("torchvision" if dispatch.FALLBACKS[name].torchvision else "reference (plain PyTorch)", "")
    assert found["first"] == found["last"]
    check_results(found)


@pytest.mark.parametrize("hidden", ["missing", "broken"])
def test_without_torchvision_the_reference_serves(state, hidden):
    found = state(hidden, DET_OPS_NATIVE="off")
    assert not found["torchvision"]
    assert found["warned"] == []
    assert set(by_name(found["last"]).values()) == {("reference (plain PyTorch)", "")}
    check_results(found)


def test_without_a_compiler_there_is_one_warning_with_reason_and_remedy(state, tmp_path):
    found = state("missing", **nothing_built(tmp_path))
    assert not found["native"]
    ((category, text),) = found["warned"]
    assert category == "RuntimeWarning"
    assert text.startswith("the native library det_ops_cpu is not in use: ")
    assert "/nowhere/c++" in text
    assert " Cost: " in text
    assert " Remedy: " in text
    for served, remedy in by_name(found["last"]).values():
        assert served == "reference (plain PyTorch)"
        assert "/nowhere/c++" in remedy
    check_results(found)


def test_a_library_that_is_required_is_named_where_it_cannot_be_had(run_python, tmp_path):
    code = """
import torch, det_ops
from det_ops.native import NativeError
try:
    det_ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except NativeError as error:
    print(error)
"""
    text = run_python(code, DET_OPS_NATIVE="require", **nothing_built(tmp_path))
    assert text.startswith("DET_OPS_NATIVE=require, but the native library det_ops_cpu cannot be loaded: ")


def test_torchvision_is_imported_only_for_operators_that_it_has(run_python):
    code = """
import sys, torch
from det_ops import dispatch
from op_samples import BACKWARD, COMPOSED, FORWARD, arguments, native
others = [name for name in FORWARD + BACKWARD if dispatch.FALLBACKS[name].torchvision is None and name not in COMPOSED]
for name in others:
    native(name, *arguments(name))
print(len(others), "torchvision" in sys.modules)
"""
    assert run_python(code, DET_OPS_NATIVE="off").split() == ["18", "False"]


def test_an_operator_that_the_library_lacks_falls_back(run_python):
    code = """
import torch
from det_ops import dispatch
from op_samples import BACKWARD, COMPOSED, FORWARD, arguments, assert_close, native, reference
asked = []
dispatch.native_loaded = lambda device: asked.append(device) or True
for name in sorted(set(FORWARD + BACKWARD) - set(COMPOSED)):
    for _ in range(2):
        given = arguments(name)
        asked.clear()
        found = native(name, *given)
        assert asked == ["cpu"], (name, asked)  # asked once, although the call arrived twice
        assert_close(found, reference(name, *given), 1e-4)
print("right")
"""
    assert run_python(code, DET_OPS_NATIVE="off").strip() == "right"


def test_an_error_of_a_native_kernel_leaves_the_next_call_alone(monkeypatch):
    boxes, scores = torch.tensor([[0.0, 0, 4, 4]]).repeat(2, 1), torch.ones(2)

    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(dispatch, "native_loaded", lambda device: True)
    monkeypatch.setattr(torch.ops, "det", SimpleNamespace(nms=SimpleNamespace(default=lambda *_: fail())))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            dispatch.call("nms", boxes, scores, 0.5, 0)
