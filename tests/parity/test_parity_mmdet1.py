"""Every golden case of 2019: under the presets `mmdet1-...` detectors are the functions that mmdet 0.6 and 1.0 had."""

from __future__ import annotations

import copy
from functools import partial

import golden
import golden_mmdet1 as older
import numpy as np
import pytest
import torch
from attrs import evolve

SYNTHETIC = [name for name in older.RECIPES if "_pipeline_" not in name]
PIPELINES = [name for name in older.RECIPES if "_pipeline_" in name]
UNUSED = "mask_head.0.conv_res.conv."
# The layers of the others have gradients in `test_parity.py`, or here. Those of the old cascades take minutes.
WITH_GRADIENTS = [
    "legacy_faster_rcnn_r50_fpn",
    "legacy_faster_rcnn_dpool_r50_fpn",
    "legacy_retinanet_r50_fpn",
    "legacy_ssd300_coco",
    "legacy_ga_rpn_r50_caffe_fpn",
]


@pytest.fixture(scope="session")
def load_case(chosen_device):
    """`load_case` on the device of `--device`."""
    return partial(older.load_case, device=chosen_device)


@pytest.fixture(scope="module", params=SYNTHETIC)
def case(request, load_case):
    return load_case(request.param)


@pytest.fixture(scope="module")
def features(case):
    """Computed once, for losses and detections: the statistics of all norms are frozen."""
    with torch.set_grad_enabled(case.name in WITH_GRADIENTS):
        return case.detector.train().features(golden.synthetic_batch(case))


@pytest.fixture(scope="module")
def losses(case, features):
    graded = case.name in WITH_GRADIENTS
    with golden.given_features(case.detector.train(), features) as detector, torch.set_grad_enabled(graded):
        terms = detector.losses(golden.synthetic_batch(case), golden.synthetic_targets(case))
    values = {name: term.value() for name, term in terms.items()}
    if graded:
        case.detector.zero_grad()
        sum(values.values()).backward()
    return values


@pytest.fixture
def detector(case, features):
    """The case's detector in evaluation mode, which has computed its features."""
    with golden.given_features(case.detector.eval(), features) as detector:
        yield detector


def test_every_weight_is_imported_and_none_is_left_over(case):
    assert set(case.report.filled.values()) | set(case.report.ignored) == set(case.facts["weights"])
    assert all(key.endswith("num_batches_tracked") or key.startswith(UNUSED) for key in case.report.ignored)
    assert set(case.report.filled) == set(case.detector.state_dict())


def test_features(case, features):
    for i, x in enumerate(x.detach().cpu() for x in features):
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


@pytest.mark.parametrize("case", WITH_GRADIENTS, indirect=True)
def test_gradients(case, losses):
    parameters = dict(case.detector.named_parameters())
    theirs = case.report.filled
    norms = {theirs[key]: p.grad for key, p in parameters.items() if p.grad is not None}
    expected = {key: value for key, value in case.facts["grads"].items() if not key.startswith(UNUSED)}
    assert not set(expected) - set(norms)
    # Here layers of levels without regions have a gradient too, so that no rank waits for it.
    assert not any(norms[key].any() for key in set(norms) - set(expected))
    for key, (norm, _) in expected.items():
        assert norms[key].norm().item() == pytest.approx(norm, rel=1e-3), key


@pytest.mark.parametrize("case", [name for name in SYNTHETIC if "prop0.boxes" in older.golden_of(name)], indirect=True)
def test_proposals(case, detector):
    """A wrong anchor, or box decoded from one, shows here first."""
    batch, head = golden.synthetic_batch(case), detector.dense_head
    with torch.no_grad():
        found = head.scored_proposals(head(detector.features(batch)), batch, head.test_limits)
    for i, proposals in enumerate(found):
        assert len(proposals.boxes) == case.golden[f"prop{i}.count"]
        boxes = torch.from_numpy(case.golden[f"prop{i}.boxes"]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        assert (proposals.boxes[: len(boxes)].cpu() - boxes).abs().max() < 0.01
        scores = torch.from_numpy(case.golden[f"prop{i}.scores"])
        assert (proposals.scores[: len(scores)].cpu() - scores).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["det", "rescaled"])
def test_detections(case, detector, kind):
    """At the network's scale, and as if the image had been resized."""
    batch = golden.synthetic_batch(case) if kind == "det" else older.rescaled_batch(case)
    for i, found in enumerate(golden.detections(detector, batch)):
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


def test_float32(case):
    detector = copy.deepcopy(case.detector).float()
    batch = golden.synthetic_batch(evolve(case, detector=detector))
    with torch.no_grad():
        features = detector.train().features(batch)
        with golden.given_features(detector, features):
            terms = detector.losses(batch, golden.synthetic_targets(evolve(case, detector=detector)))
            found = golden.detections(detector.eval(), batch)
    for theirs, ours in older.loss_names(case).items():
        assert terms[ours].value().item() == pytest.approx(case.facts["losses"][theirs], rel=1e-4), theirs
    for i, detections in enumerate(found):
        wanted = older.golden_detections(case, i)
        assert len(golden.matched(detections, wanted, iou=0.99, score=1e-3)) >= 0.98 * len(wanted)


@pytest.mark.parametrize("name", PIPELINES)
def test_from_files_to_detections(load_case, name):
    case = load_case(name)
    case.detector.eval()
    for i, batch in enumerate(older.file_batches(case)):
        _check_input(case, i, batch)
        (found,) = golden.detections(case.detector, batch)
        wanted = older.golden_detections(case, i)
        pairs = golden.matched(found, wanted, iou=0.999, score=1e-5)
        assert len(pairs) == len(found) == len(wanted)
        for a, b in pairs:
            assert (found.boxes[a] - wanted.boxes[b]).abs().max() < 0.01
            if wanted.masks is not None and b < len(wanted.masks):
                assert (found.masks[a] != wanted.masks[b]).float().mean() <= 1e-3


def _check_input(case, i, batch):
    """Sizes, scale and pixels of image i, which are the reference's to the last bit."""
    (info,), facts = batch.infos, case.facts
    assert list(info.original_size) == facts["ori_shapes"][i]
    assert list(info.size) == facts["img_shapes"][i]
    scale = facts["scale_factors"][i]
    x, y = scale[:2] if isinstance(scale, list) else (scale, scale)
    assert info.scale == pytest.approx((y, x))
    assert info.inclusive
    assert list(batch.images.shape) == case.golden[f"input{i}.shape"].tolist()
    difference = np.abs(golden.sample_of(batch.images, 2048) - case.golden[f"input{i}.sample"])
    assert difference.max() <= 1e-5
