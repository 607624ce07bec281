"""Private names of torch: all are in `det_ops.torch_internals`, and results are right without each of them."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from op_samples import arguments, assert_close, maps, offsets, reference

import det_ops
from det_ops import dispatch, torch_internals

pytestmark = pytest.mark.cpu
SOURCES = sorted(Path(det_ops.__file__).parent.rglob("*.py"))
AUTOCAST = ("_ExcludeDispatchKeyGuard", "DispatchKeySet", "DispatchKey")
AUTOGRAD = (
    "_ForceDispatchKeyGuard",
    "_dispatch_tls_local_include_set",
    "_dispatch_tls_local_exclude_set",
    "DispatchKey",
)
TORCHVISION = ("roi_align", "deform_conv2d")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_accesses(source: str) -> list[str]:
    """Private attributes of anything but `self` and `cls`, private imports, and both by getattr or as a string."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if any(map(private, a.name.split(".")))]
        elif isinstance(node, ast.ImportFrom):
            found += [a.name for a in node.names if any(map(private, [*(node.module or "").split("."), a.name]))]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            strings = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
            found += [ast.unparse(node)] if any(map(private, strings)) else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_other_file_uses_private_names(path):
    if path.name != "torch_internals.py":
        assert private_accesses(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "torch._C.DispatchKey",
        "call(torch.ops.torchvision._roi_align_backward(x))",
        "c = torch._C\nc.DispatchKey",
        "ops = torch.ops.torchvision\nops._deform_conv2d_backward",
        "x._version",
        "import torch._dynamo",
        "import torch._dynamo as dynamo",
        "from torch import _C",
        "from torch._library import infer_schema",
        "from torch.utils import _pytree as pytree",
        "getattr(torch, '_C')",
        "getattr(torch.ops.torchvision, f'_{name}_backward')",
        "hasattr(torch, '_dynamo')",
    ],
)
def test_a_private_access_is_found(text):
    source = (Path(det_ops.__file__).parent / "dispatch.py").read_text()
    assert private_accesses(source) == []
    assert len(private_accesses(f"{source}\n{text}\n")) == 1


def test_every_private_name_has_a_test():
    found = private_accesses(Path(torch_internals.__file__).read_text())
    names = {text.removeprefix("torch._C.") for text in found} - {"torch._C"}
    gradient = "getattr(torch.ops.torchvision, f'_{name}_backward', None)"
    assert names == {name for name in (*AUTOCAST, *AUTOGRAD) if private(name)} | {gradient}


@pytest.mark.parametrize("name", AUTOCAST)
def test_autocast_without_the_guard(monkeypatch, name):
    x, weight, bias, shift = maps(2, 4, 7, 9), maps(6, 4, 3, 3), maps(6), offsets(2, 18, 7, 9).float()

    def results():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            deformed = det_ops.deform_conv2d(x, shift, weight, bias=bias, padding=1)
            masked = det_ops.masked_conv2d(x, torch.ones(2, 5, 7), weight)
            assert (x[0, 0] @ x[0, 0].T).dtype == torch.bfloat16  # autocast is enabled again
        return deformed, masked

    expected = results()
    assert all(result.dtype == torch.bfloat16 for result in expected)
    monkeypatch.delattr(torch._C, name)
    assert_close(results(), expected, 0)


@pytest.mark.parametrize("name", AUTOGRAD)
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_of_the_reference_without_the_guard(monkeypatch, name, autocast):
    operators = (
        "roi_align_backward",
        "deform_roi_pool_backward",
        "deform_conv2d_backward",
        "sigmoid_focal_loss_backward",
    )
    fallbacks = [(operator, arguments(operator)) for operator in operators]

    def results():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), torch.no_grad():
            return [gradients(operator, *given) for operator, given in fallbacks]

    def gradients(operator, *given):
        return kernel(lambda: reference(operator, *given))

    expected = results()
    calls = []
    in_thread = torch_internals._call_in_thread
    monkeypatch.setattr(torch_internals, "_call_in_thread", lambda *a: calls.append(a) or in_thread(*a))
    monkeypatch.delattr(torch._C, name)
    assert_close(results(), expected, 0)
    assert len(calls) == len(operators)


def kernel(function):
    """The result of a function that runs as the kernel of an operator, where autograd is disabled."""
    results = []
    library = torch.library.Library("det_test", "FRAGMENT")
    library.define("run(Tensor x) -> Tensor")
    library.impl("run", lambda x: results.append(function()) or x.clone(), "CompositeExplicitAutograd")
    torch.ops.det_test.run(torch.zeros(1))
    library._destroy()
    return results[0]


def test_an_error_in_the_thread_is_raised(monkeypatch):
    monkeypatch.delattr(torch._C, "_ForceDispatchKeyGuard")
    with pytest.raises(ZeroDivisionError):
        torch_internals.call_with_autograd(lambda: 1 / 0, torch.device("cpu"))


@pytest.mark.parametrize("name", TORCHVISION)
def test_gradients_without_those_of_torchvision(monkeypatch, name):
    pytest.importorskip("torchvision", reason="the gradients of torchvision are taken away")
    given = arguments(f"{name}_backward", torch.float64)
    if name == "roi_align":  # an average, which torchvision supports
        given = (*given[:6], 2, "aligned", "avg", False)
    expected = dispatch.call_fallback(f"{name}_backward", *given)
    assert torch_internals.torchvision_gradient(name) is not None
    monkeypatch.setattr(torch.ops, "torchvision", SimpleNamespace())
    assert torch_internals.torchvision_gradient(name) is None
    assert_close(dispatch.call_fallback(f"{name}_backward", *given), expected, 1e-10)
