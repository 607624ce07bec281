"""Private names of torch: each stands in one module, and results are right for a torch that does not have it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from det_core import Detector, DetectorConfig, for_inference, torch_internals
from det_core.model.fold_batch_norm import BatchNorm, FixedConv2d, conv_norm
from det_core.structures import Batch, ImageInfo
from det_plugin_rcnn import RPNConfig
from det_plugin_resnet import ResNetConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
NAMES = ["PACK", "CONVOLVE", "HOOKS", "COMPILED", "VERSION", "BF16", "COPY_ALL"]
OVERRIDDEN = {"_apply", "_load_from_state_dict", "_save_to_state_dict", "_call_impl", "_named_members", "_get_name"}


@pytest.fixture(params=NAMES)
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the names is not what this torch calls it."""
    value = getattr(torch_internals, request.param)
    gone = tuple(f"{name}_gone" for name in value) if isinstance(value, tuple) else f"{value}_gone"
    monkeypatch.setattr(torch_internals, request.param, gone)
    return request.param


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(backbone=ResNetConfig(depth=18, stages=(4,)), dense_head=RPNConfig(channels=16))
    return config.build(num_classes=2)


def test_a_detector_for_inference_finds_the_same_without_any_of_the_names(missing: str, detector: Detector) -> None:
    batch = Batch(images=torch.randn(1, 3, 64, 96), infos=(ImageInfo(size=(64, 96), original_size=(64, 96)),))
    (wanted,) = detector.eval().predict(batch)
    fixed = for_inference(detector)
    for _ in range(2):
        (found,) = fixed.predict(batch)
        torch.testing.assert_close(found.boxes, wanted.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.scores, wanted.scores, atol=1e-5, rtol=1e-4)


def test_loaded_weights_take_effect_without_any_of_the_names(missing: str) -> None:
    conv, other, norm = nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(4, 8, 3, bias=False), BatchNorm(8).eval()
    fixed, x = FixedConv2d.of(conv), torch.randn(1, 4, 9, 9)
    with torch.no_grad():
        conv_norm(fixed, norm, x)
        fixed.load_state_dict(other.state_dict())
        norm.running_mean.fill_(3.0)  # type: ignore[union-attr]
        torch.testing.assert_close(conv_norm(fixed, norm, x), norm(other(x)))


def test_hooks_are_called_without_any_of_the_names(missing: str) -> None:
    conv, norm, seen = nn.Conv2d(4, 8, 3, bias=False), BatchNorm(8).eval(), []
    conv.register_forward_hook(lambda *_: seen.append("conv"))
    norm.register_forward_pre_hook(lambda *_: seen.append("norm"))
    with torch.no_grad():
        conv_norm(conv, norm, torch.randn(1, 4, 9, 9))
    assert seen == ["conv", "norm"]


@pytest.mark.parametrize(
    ("known", "told"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)]
)
def test_processors_that_compute_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, bool], told: bool
) -> None:
    ask = torch_internals.computes_in_bfloat16.__wrapped__
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert ask() is told
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, torch_internals.BF16, lambda: told, raising=False)
    assert ask() is told
    monkeypatch.delattr(torch.cpu, torch_internals.BF16)
    assert ask() is False


def test_a_weight_made_in_inference_mode_is_never_taken_to_be_as_it_was() -> None:
    with torch.inference_mode():
        made = torch.ones(2)
    assert torch_internals.state_of(made) != torch_internals.state_of(made)
    plain = torch.ones(2)
    before = torch_internals.state_of(plain)
    assert torch_internals.state_of(plain) == before
    plain.add_(1)
    assert torch_internals.state_of(plain) != before


def private_uses(source: str) -> Iterator[str]:
    """Private names that a module takes from anything but itself, or overrides of a module's."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not own:
                yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.FunctionDef) and node.name in OVERRIDDEN:
            yield f"{node.lineno}: def {node.name}"
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("torch"):
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            if any(part.startswith("_") for part in parts):
                yield f"{node.lineno}: from {node.module}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_other_module_uses_a_private_name(file: Path) -> None:
    if file.name != "torch_internals.py":
        assert list(private_uses(file.read_text(encoding="utf8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.ops.mkldnn._convolution_pointwise(x)",
        "module._modules",
        "from torch.utils._pytree import tree_map",
        "from torch import _C",
        "class A(nn.Module):\n    def _apply(self, f): ...",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert len(list(private_uses(line))) == 1
