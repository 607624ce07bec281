"""Every golden case: the detectors here are the functions of the reference whose checkpoints people own."""

from __future__ import annotations

import copy
import json
import math
from functools import partial
from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from attrs import evolve

from det_core.engine.detector_cost import measure_cost
from det_core.engine.prepare_inference import for_inference
from det_core.load import load_recipe

HERE = Path(__file__).parent


SYNTHETIC = [name for name in golden.RECIPES if not name.startswith("pipeline_")]
PIPELINES = [name for name in golden.RECIPES if name.startswith("pipeline_")]


@pytest.fixture(scope="session")
def load_case(chosen_device):
    """`golden.load_case` on the device of `--device`."""
    return partial(golden.load_case, device=chosen_device)


@pytest.fixture(scope="module", params=SYNTHETIC)
def case(request, load_case):
    return load_case(request.param)


@pytest.fixture(scope="module")
def features(case):
    """Computed once, with gradient, for losses and detections: the statistics of all norms are frozen."""
    return case.detector.train().features(golden.synthetic_batch(case))


@pytest.fixture(scope="module")
def losses(case, features):
    with golden.given_features(case.detector.train(), features) as detector:
        terms = detector.losses(golden.synthetic_batch(case), golden.synthetic_targets(case))
    values = {name: term.value() for name, term in terms.items()}
    case.detector.zero_grad()
    sum(values.values()).backward()
    return values


def test_every_weight_is_imported_and_none_is_left_over(case):
    used = set(case.report.filled.values())
    assert used | set(case.report.ignored) == set(case.facts["weights"])
    assert all(key.endswith("num_batches_tracked") for key in case.report.ignored)
    assert set(case.report.filled) == set(case.detector.state_dict())


def test_features(case, features):
    for i, x in enumerate(x.detach().cpu() for x in features):
        assert list(x.shape) == case.golden[f"feat{i}.shape"].tolist(), golden.explain(case)
        stats = np.array([x.mean(), x.std(), x.abs().sum()])
        assert np.allclose(stats, case.golden[f"feat{i}.stats"], rtol=1e-5), golden.explain(case)
        values = golden.sample_of(x, 512)
        assert np.allclose(values, case.golden[f"feat{i}.sample"], rtol=1e-5, atol=1e-8), golden.explain(case)


def test_losses(case, losses):
    names = golden.loss_names(case)
    expected = {names[k]: v for k, v in case.facts["losses"].items() if k in names}
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), f"{name}; {golden.explain(case)}"
    assert sum(losses.values()).item() == pytest.approx(case.facts["losses"]["total"], rel=1e-4)


def test_gradients(case, losses):
    parameters = dict(case.detector.named_parameters())
    gradients = {case.report.filled[k]: p.grad for k, p in parameters.items() if p.grad is not None}
    assert set(gradients) == set(case.facts["grads"])
    for key, (norm, total) in case.facts["grads"].items():
        gradient = gradients[key]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3), f"{key}; {golden.explain(case)}"
        # A sum cancels, so it is held to the size of what is summed.
        assert gradient.sum().item() == pytest.approx(total, rel=1e-3, abs=1e-3 * gradient.abs().sum().item()), key


def test_detections(case, features):
    with golden.given_features(case.detector.eval(), features) as detector:
        detections = golden.detections(detector, golden.synthetic_batch(case))
    for i, found in enumerate(detections):
        wanted = golden.golden_detections(case, i)
        assert len(found) == len(wanted), golden.explain(case)
        assert found.labels.tolist() == wanted.labels.tolist(), golden.explain(case)
        assert (found.boxes - wanted.boxes).abs().max() < 0.01, golden.explain(case)
        assert (found.scores - wanted.scores).abs().max() < 1e-5, golden.explain(case)
        if wanted.masks is not None:
            differing = (found.masks[: len(wanted.masks)] != wanted.masks).float().mean((1, 2))
            assert differing.max() <= 1e-3, golden.explain(case)
            areas = found.masks.flatten(1).sum(1).numpy()
            assert np.abs(areas - case.golden[f"det{i}.mask_area"]).max() <= 1e-3 * wanted.masks[0].numel()


def test_float32_comes_as_close_as_the_reference_does(case):
    case = evolve(case, detector=copy.deepcopy(case.detector).float())
    batch = golden.synthetic_batch(case)
    with torch.no_grad():
        features = case.detector.train().features(batch)
        with golden.given_features(case.detector, features) as detector:
            terms = detector.losses(batch, golden.synthetic_targets(case))
    names = golden.loss_names(case)
    for theirs, value in case.facts["losses"].items():
        if theirs in names:
            assert terms[names[theirs]].value().item() == pytest.approx(value, rel=1e-4), golden.explain(case)
    with golden.given_features(case.detector.eval(), features) as detector:
        plain = golden.detections(detector, batch)
    for detections in (plain, golden.detections(for_inference(case.detector), batch)):
        for i, found in enumerate(detections):
            wanted = golden.golden_detections(case, i)
            pairs = golden.matched(found, wanted, iou=0.99, score=1e-3)
            assert len(pairs) >= 0.98 * len(wanted), f"{len(pairs)} of {len(wanted)}; {golden.explain(case)}"


@pytest.mark.parametrize("name", PIPELINES)
def test_from_files_to_detections(load_case, name):
    case = load_case(name, torch.float32)
    batch = golden.file_batch(case)
    facts = case.facts
    assert [list(i.original_size) for i in batch.infos] == facts["ori_shapes"]
    assert [list(i.size) for i in batch.infos] == facts["img_shapes"]
    for info, (x, y) in zip(batch.infos, facts["scale_factors"], strict=True):
        assert info.scale == pytest.approx((y, x))
    assert list(batch.images.shape) == case.golden["input.shape"].tolist()
    difference = np.abs(golden.sample_of(batch.images, 2048) - case.golden["input.sample"])
    assert difference.max() <= 1e-5, golden.explain(case)  # the 8-bit resize is the reference's to the last bit
    case.detector.eval()
    for i, found in enumerate(golden.detections(case.detector, batch)):
        wanted = golden.golden_detections(case, i)
        pairs = golden.matched(found, wanted, iou=0.95, score=0.02)
        assert len(pairs) >= 0.95 * len(wanted), f"{len(pairs)} of {len(wanted)}; {golden.explain(case)}"
        assert abs(len(found) - len(wanted)) <= 0.05 * len(wanted) + 1, golden.explain(case)
        if wanted.masks is not None:
            shown = [(a, b) for a, b in pairs if b < len(wanted.masks)]
            overlaps = [_mask_iou(found.masks[a], wanted.masks[b]) for a, b in shown]
            assert np.mean(np.array(overlaps) > 0.9) >= 0.95, f"{overlaps}; {golden.explain(case)}"


@pytest.mark.parametrize("name", PIPELINES)
def test_in_float64_files_give_the_very_same_detections(load_case, name):
    case = load_case(name)
    case.detector.eval()
    for i, found in enumerate(golden.detections(case.detector, golden.file_batch(case))):
        wanted = golden.golden_detections(case, i)
        pairs = golden.matched(found, wanted, iou=0.999, score=1e-5)
        assert len(pairs) == len(found) == len(wanted), golden.explain(case)
        for a, b in pairs:
            assert (found.boxes[a] - wanted.boxes[b]).abs().max() < 0.01
            if wanted.masks is not None and b < len(wanted.masks):
                assert torch.equal(found.masks[a], wanted.masks[b])


def _mask_iou(a, b):
    both, either = (a & b).sum().item(), (a | b).sum().item()
    return both / either if either else 1.0


@pytest.fixture(scope="module")
def mask_case(load_case):
    return load_case("mask_rcnn_r50_fpn")


@pytest.mark.parametrize(
    ("parameter", "stage"),
    [
        ("backbone.layer3.0.conv2.weight", "backbone"),
        ("neck.output.1.conv.weight", "neck"),
        ("dense_head.scores.bias", "dense outputs"),
        ("roi_head.box_head.fcs.1.weight", "head outputs"),
        ("roi_head.mask_head.logits.weight", "head outputs"),
    ],
)
def test_a_departure_is_traced_to_the_stage_where_it_begins(mask_case, parameter, stage):
    value = mask_case.detector.get_parameter(parameter)
    kept = value.detach().clone()
    with torch.no_grad():
        value += 0.05 * (1 + value.abs())
        explained = golden.explain(mask_case)
        value.copy_(kept)
    assert explained.startswith(f"first departure: {stage}")


def test_wrong_pooling_and_wrong_proposals_are_traced_too(mask_case):
    """And of a case that passes nothing departs."""
    detector = mask_case.detector
    assert golden.explain(mask_case) == "first departure: none"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector.roi_head.roi_pool, "level_of", lambda rois: rois.new_zeros(len(rois)).long())
        assert golden.explain(mask_case).startswith("first departure: RoI features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector.dense_head.coder, "limit", 0.01)
        assert golden.explain(mask_case).startswith("first departure: proposals")


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_recipe_has_as_many_parameters_as_the_reference(name):
    facts = json.loads((HERE / "cases" / f"{name}.json").read_text(encoding="utf8"))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    expected = sum(math.prod(w["shape"]) for key, w in facts["weights"].items() if not key.endswith(buffers))
    with torch.device("meta"):
        detector = load_recipe(golden.RECIPES[name]).detector.build(num_classes=facts["num_classes"])
    assert sum(p.numel() for p in detector.parameters()) == expected


def test_the_cost_of_a_detector_counts_these_parameters():
    config = load_recipe("retinanet/r50-fpn-1x").detector
    with torch.device("meta"):
        detector = config.build(num_classes=80)
    assert measure_cost(config, 80, (320, 320)).parameters == sum(p.numel() for p in detector.parameters())
