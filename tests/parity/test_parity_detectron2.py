"""Golden cases of detectron2: under the presets `detectron2-...` detectors are the functions that detectron2 has."""

from __future__ import annotations

import sys
from functools import partial

import golden
import golden_detectron2 as theirs
import numpy as np
import pytest
import torch

SYNTHETIC = [name for name in theirs.RECIPES if "_pipeline_" not in name]
# A cascade samples again at each stage here, and not there.
SECOND_STAGE = [name for name in SYNTHETIC if "rcnn" in name and "cascade" not in name]
PIPELINES = [name for name in theirs.RECIPES if "_pipeline_" in name]


@pytest.fixture(scope="session")
def load_case(chosen_device):
    """`load_case` on the device of `--device`."""
    return partial(theirs.load_case, device=chosen_device)


@pytest.fixture(scope="module", params=SYNTHETIC)
def case(request, load_case):
    return load_case(request.param)


@pytest.fixture(scope="module")
def features(case):
    with torch.no_grad():
        return case.detector.train().features(golden.synthetic_batch(case))


def test_every_weight_is_imported_and_none_is_left_over(case):
    assert set(case.report.filled.values()) == set(case.facts["weights"])
    assert set(case.report.filled) | set(case.report.derived) == {
        key for key in case.detector.state_dict() if not key.endswith("num_batches_tracked")
    }


def test_features(case, features):
    for i, x in enumerate(x.detach().cpu() for x in features):
        assert list(x.shape) == case.golden[f"feat{i}.shape"].tolist()
        stats = np.array([x.mean(), x.std(), x.abs().sum()])
        assert np.allclose(stats, case.golden[f"feat{i}.stats"], rtol=1e-5)
        assert np.allclose(golden.sample_of(x, 512), case.golden[f"feat{i}.sample"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", SECOND_STAGE, indirect=True)
def test_losses_of_the_second_stage(case, features):
    with golden.given_features(case.detector.train(), features) as detector, torch.no_grad():
        terms = detector.losses(golden.synthetic_batch(case), golden.synthetic_targets(case))
    for name, ours in theirs.LOSSES.items():
        if name in case.facts["losses"]:
            assert terms[ours].value().item() == pytest.approx(case.facts["losses"][name], rel=1e-4), name


def test_detections(case, features):
    with golden.given_features(case.detector.eval(), features) as detector:
        detections = golden.detections(detector, golden.synthetic_batch(case))
    for i, found in enumerate(detections):
        _check(case, i, found)


def _check(case, i, found):
    wanted = golden.golden_detections(case, i)
    assert len(found) == len(wanted)
    assert found.labels.tolist() == wanted.labels.tolist()
    assert (found.boxes - wanted.boxes).abs().max() < 0.01
    assert (found.scores - wanted.scores).abs().max() < 1e-5
    if wanted.masks is not None:
        assert (found.masks[: len(wanted.masks)] != wanted.masks).float().mean((1, 2)).max() <= 1e-3


@pytest.mark.parametrize("name", PIPELINES)
def test_from_files_to_detections(load_case, name):
    case = load_case(name)
    batch = theirs.file_batch(case)
    assert [list(info.size) for info in batch.infos] == case.facts["img_shapes"]
    assert list(batch.images.shape) == case.golden["input.shape"].tolist()
    assert np.abs(golden.sample_of(batch.images, 2048) - case.golden["input.sample"]).max() <= 1e-5
    for i, found in enumerate(golden.detections(case.detector.eval(), batch)):
        _check(case, i, found)


@pytest.mark.parametrize("name", ["d2_faster_rcnn_R_50_C4", "d2_retinanet_R_50_FPN"])
def test_without_the_order_of_anchors_it_is_another_detector(load_case, name, monkeypatch):
    for module in ("det_plugin_rcnn.weights", "det_plugin_retinanet.weights"):
        monkeypatch.setattr(sys.modules[module], "sorted_by_ratio", lambda anchors: ())
    case = load_case(name)
    found = golden.detections(case.detector.eval(), golden.synthetic_batch(case))
    with pytest.raises(AssertionError):
        _check(case, 0, found[0])
