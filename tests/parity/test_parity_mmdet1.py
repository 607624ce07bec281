"""Every golden case of 2019: under the presets `mmdet1-...` the detectors are the functions that mmdet 0.6 and 1.0 had."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent


def _module(name):
    """A file beside this one, as a module (tests are no package)."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name.removeprefix('det_')}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


older = _module("det_golden_mmdet1")
golden = older.golden
SYNTHETIC = [name for name in older.RECIPES if "_pipeline_" not in name]
PIPELINES = [name for name in older.RECIPES if "_pipeline_" in name]
UNUSED = "mask_head.0.conv_res.conv."


@pytest.fixture(scope="module", autouse=True)
def whole_float32():
    """On a GPU, convolutions and products of float32 are computed in float32, not in TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="session")
def load_case(chosen_device):
    """`load_case` on the device of `--device`."""
    return partial(older.load_case, device=chosen_device)


@pytest.fixture(scope="module", params=SYNTHETIC)
def case(request, load_case):
    return load_case(request.param)


@pytest.fixture(scope="module")
def losses(case):
    case.detector.train()
    terms = case.detector.losses(golden.synthetic_batch(case), golden.synthetic_targets(case))
    values = {name: term.value() for name, term in terms.items()}
    case.detector.zero_grad()
    sum(values.values()).backward()
    return values


def test_every_weight_is_imported_and_none_is_left_over(case):
    assert set(case.report.filled.values()) | set(case.report.ignored) == set(case.facts["weights"])
    assert all(key.endswith("num_batches_tracked") or key.startswith(UNUSED) for key in case.report.ignored)
    assert set(case.report.filled) == set(case.detector.state_dict())


def test_features(case):
    case.detector.eval()
    with torch.no_grad():
        features = [x.cpu() for x in case.detector.features(golden.synthetic_batch(case))]
    for i, x in enumerate(features):
        assert list(x.shape) == case.golden[f"feat{i}.shape"].tolist()
        stats = np.array([x.mean(), x.std(), x.abs().sum()])
        assert np.allclose(stats, case.golden[f"feat{i}.stats"], rtol=1e-5)
        assert np.allclose(golden.sample_of(x, 512), case.golden[f"feat{i}.sample"], rtol=1e-5, atol=1e-8)


def test_losses(case, losses):
    names = older.loss_names(case)
    assert set(losses) == set(names.values())
    found = {theirs: losses[ours].item() for theirs, ours in names.items()}
    assert found == {theirs: pytest.approx(case.facts["losses"][theirs], rel=1e-4) for theirs in names}
    assert sum(found.values()) == pytest.approx(case.facts["losses"]["total"], rel=1e-4)


def test_gradients(case, losses):
    parameters = dict(case.detector.named_parameters())
    theirs = case.report.filled
    norms = {theirs[key]: p.grad for key, p in parameters.items() if p.grad is not None}
    expected = {key: value for key, value in case.facts["grads"].items() if not key.startswith(UNUSED)}
    assert set(norms) == set(expected)
    for key, (norm, _) in expected.items():
        assert norms[key].norm().item() == pytest.approx(norm, rel=1e-3), key


def test_proposals(case):
    """A wrong anchor, or box decoded from one, shows here first."""
    if "prop0.boxes" not in case.golden:
        return
    case.detector.eval()
    batch = golden.synthetic_batch(case)
    head = case.detector.dense_head
    with torch.no_grad():
        found = head.scored_proposals(head(case.detector.features(batch)), batch, head.test_limits)
    for i, proposals in enumerate(found):
        assert len(proposals.boxes) == case.golden[f"prop{i}.count"]
        boxes = torch.from_numpy(case.golden[f"prop{i}.boxes"]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        assert (proposals.boxes[: len(boxes)].cpu() - boxes).abs().max() < 0.01
        scores = torch.from_numpy(case.golden[f"prop{i}.scores"])
        assert (proposals.scores[: len(scores)].cpu() - scores).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["det", "rescaled"])
def test_detections(case, kind):
    """At the network's scale, and as if the image had been resized."""
    case.detector.eval()
    batch = golden.synthetic_batch(case) if kind == "det" else older.rescaled_batch(case)
    for i, found in enumerate(golden.detections(case.detector, batch)):
        wanted = older.golden_detections(case, i, kind)
        assert len(found) == len(wanted)
        assert found.labels.tolist() == wanted.labels.tolist()
        assert (found.boxes - wanted.boxes).abs().max() < 0.01
        assert (found.scores - wanted.scores).abs().max() < 1e-5
        if wanted.masks is not None:
            differing = (found.masks[: len(wanted.masks)] != wanted.masks).float().mean((1, 2))
            assert differing.max() <= 1e-3
            areas = found.masks.flatten(1).sum(1).numpy()
            assert np.abs(areas - case.golden[f"{kind}{i}.mask_area"]).max() <= 1e-3 * wanted.masks[0].numel()
