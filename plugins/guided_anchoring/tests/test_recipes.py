"""The recipes of Guided Anchoring: the published rows, their settings, names of weights, and the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.data.data_config import CocoConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.load import load_recipe
from det_core.model.loss_config import BinaryCrossEntropyConfig, BoundedIoUConfig, FocalConfig, SmoothL1Config
from det_core.plugins import plugin_manager
from det_core.slots import AssignerConfig, CoderConfig, SamplerConfig
from det_core.specs import ProposalLimits
from det_core.structures import Key
from det_core.weights.translate_names import translate
from det_plugin_fpn.config import FPNConfig
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, GARPNConfig, GuidedAnchorsConfig
from det_plugin_guided_anchoring.recipes import ROWS
from det_plugin_rcnn.config import RCNNHeadConfig
from det_plugin_resnet.config import ResNetConfig

CASES = Path(__file__).parents[3] / "tests" / "parity" / "cases"

# Name: AR1000 or AP of 2019, memory, seconds per step, images per second; AR1000 or AP and memory of later re-runs.
PUBLISHED = {
    "ga-rpn/r50-caffe-fpn-1x": (68.5, 5.0, 0.55, 13.3, 68.4, 5.3),
    "ga-rpn/r101-caffe-fpn-1x": (69.6, 7.1, 0.66, 9.8, 69.5, 7.3),
    "ga-rpn/x101-32x4d-fpn-1x": (70.0, 8.5, 0.88, 8.5, 70.6, 8.5),
    "ga-rpn/x101-64x4d-fpn-1x": (70.5, 11.4, 1.24, 6.5, 70.6, None),
    "ga-fast-rcnn/r50-caffe-fpn-1x": (39.5, 3.3, 0.23, 14.9, None, None),
    "ga-faster-rcnn/r50-caffe-fpn-1x": (39.9, 5.1, 0.64, 9.6, 39.6, 5.5),
    "ga-faster-rcnn/r101-caffe-fpn-1x": (41.5, 7.3, 0.75, 8.0, 41.5, 7.5),
    "ga-faster-rcnn/x101-32x4d-fpn-1x": (42.9, 8.7, 0.97, 7.1, 43.0, 8.7),
    "ga-faster-rcnn/x101-64x4d-fpn-1x": (43.9, 11.6, 1.33, 5.7, 43.9, 11.8),
    "ga-retinanet/r50-caffe-fpn-1x": (37.0, 3.2, 0.5, 10.7, 36.9, 3.5),
    "ga-retinanet/r101-caffe-fpn-1x": (38.9, 5.3, 0.63, 8.5, 39.0, 5.5),
    "ga-retinanet/x101-32x4d-fpn-1x": (40.3, 6.7, 0.87, 7.5, 40.5, 6.9),
    "ga-retinanet/x101-64x4d-fpn-1x": (40.8, 9.6, 1.22, 5.8, 41.3, 9.9),
}


def test_every_published_row_and_no_other() -> None:
    assert [row.name for row in ROWS] == list(PUBLISHED)
    for row in ROWS:
        p = row.published
        proposes = row.model == "ga-rpn"
        quality, modern = (p.ar1000, p.modern_ar1000) if proposes else (p.box_ap, p.modern_box_ap)
        assert (p.box_ap if proposes else p.ar1000) is None
        found = (quality, p.memory_gb, p.train_s_per_iter, p.inference_fps, modern, p.modern_memory_gb)
        assert found == PUBLISHED[row.name]
    assert set(PUBLISHED) <= set(plugin_manager().recipes())


def test_notes_give_the_figures_of_test_dev() -> None:
    notes = {row.name: row.published.note for row in ROWS if "test-dev" in row.published.note}
    assert list(notes) == ["ga-faster-rcnn/r101-caffe-fpn-1x", "ga-retinanet/r101-caffe-fpn-1x"]
    assert "41.8" in notes["ga-faster-rcnn/r101-caffe-fpn-1x"]
    assert "41.1" in notes["ga-faster-rcnn/r101-caffe-fpn-1x"]
    assert "39.2" in notes["ga-retinanet/r101-caffe-fpn-1x"]
    assert "41.9" in notes["ga-retinanet/r101-caffe-fpn-1x"]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_backbone_and_schedule(name: str) -> None:
    recipe = load_recipe(name)
    backbone, caffe = recipe.detector.backbone, "caffe" in name
    assert isinstance(backbone, ResNetConfig)
    assert (backbone.style, recipe.detector.preprocess.order) == (("caffe", "bgr") if caffe else ("pytorch", "rgb"))
    assert backbone.norm.type == ("frozen_batch_norm" if caffe else "batch_norm")
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch) == (0.01 if "retinanet" in name else 0.02, 16)
    assert (recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == (12, (8, 11))
    assert recipe.schedule.clip_norm == 35.0
    strides = (8, 16, 32, 64, 128) if "retinanet" in name else (4, 8, 16, 32, 64)
    assert recipe.detector.feature_spec().strides == strides
    evaluators = recipe.evaluation.evaluators
    kinds = ("proposal",) if name.startswith("ga-rpn") else ("box",)
    assert [e.kinds for e in evaluators if isinstance(e, CocoEvaluatorConfig)] == [kinds]
    assert recipe.evaluation.best == ("ar1000" if name.startswith("ga-rpn") else "box_ap")


def thresholds(config: AssignerConfig) -> tuple[float, float, float, bool]:
    assert isinstance(config, MaxIoUAssignerConfig)
    return config.positive, config.negative, config.min_positive, config.low_quality


def stds(config: CoderConfig) -> tuple[float, ...]:
    assert isinstance(config, DeltaCoderConfig)
    assert config.means == (0.0,) * 4
    return config.stds


def drawn(config: SamplerConfig) -> tuple[int, float]:
    assert isinstance(config, RandomSamplerConfig)
    return config.count, config.positive_fraction


def check_guided(guided: GuidedAnchorsConfig) -> None:
    """What both heads share."""
    assert (guided.scales_per_octave, guided.ratios) == (3, (0.5, 1.0, 2.0))
    assert (guided.offset_groups, guided.allowed_border) == (4, -1)
    assert (guided.location_prior, guided.location_threshold, guided.location_labels) == (0.01, 0.01, "centre")
    assert (guided.centre_ratio, guided.ignore_ratio, guided.negative_weight) == (0.2, 0.5, 0.1)
    assert (guided.location_cells, guided.location_loss) == (200, FocalConfig(gamma=2.0, alpha=0.25, weight=1.0))
    assert guided.shape_loss == BoundedIoUConfig(beta=0.2, eps=1e-3, weight=1.0)
    assert drawn(guided.shape_sampler) == (256, 0.5)
    assert isinstance(guided.coder, DeltaCoderConfig)
    assert guided.coder.max_ratio == 1e-6


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith(("ga-rpn/", "ga-faster-rcnn/"))])
def test_settings_of_the_rpn(name: str) -> None:
    head = load_recipe(name).detector.dense_head
    assert isinstance(head, GARPNConfig)
    check_guided(head.guided)
    assert head.guided.base_scale == 8.0
    assert stds(head.guided.coder) == (0.07, 0.07, 0.14, 0.14)
    assert thresholds(head.guided.shape_assigner) == (0.7, 0.3, 0.3, True)
    assert stds(head.coder) == (0.07, 0.07, 0.11, 0.11)
    assert thresholds(head.assigner) == (0.7, 0.3, 0.3, True)
    assert drawn(head.sampler) == (256, 0.5)
    assert (head.cls_loss, head.box_loss) == (BinaryCrossEntropyConfig(), SmoothL1Config(beta=1.0))
    assert (head.channels, head.nms_threshold) == (256, 0.7)
    few = ProposalLimits(before_nms=2000, after_nms=300)
    alone = ProposalLimits(before_nms=2000, after_nms=1000)
    assert (head.train_limits, head.test_limits) == (few, alone if name.startswith("ga-rpn") else few)


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith(("ga-fast-rcnn/", "ga-faster-rcnn/"))])
def test_settings_of_the_second_stage(name: str) -> None:
    head = load_recipe(name).detector.roi_head
    assert isinstance(head, RCNNHeadConfig)
    assert thresholds(head.assigner) == (0.6, 0.6, 0.6, False)
    assert drawn(head.sampler) == (256, 0.25)
    assert stds(head.coder) == (0.05, 0.05, 0.1, 0.1)
    assert (head.score_threshold, head.nms_threshold, head.max_detections) == (0.001, 0.5, 100)


def test_the_fast_recipe_takes_300_given_proposals() -> None:
    recipe = load_recipe("ga-fast-rcnn/r50-caffe-fpn-1x")
    assert recipe.detector.dense_head is None
    for data in (recipe.data.train, recipe.data.val):
        assert isinstance(data, CocoConfig)
        assert data.max_proposals == 300


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith("ga-retinanet/")])
def test_settings_of_retinanet(name: str) -> None:
    recipe = load_recipe(name)
    head, neck = recipe.detector.dense_head, recipe.detector.neck
    assert isinstance(head, GARetinaNetHeadConfig)
    assert isinstance(neck, FPNConfig)
    assert (neck.extra, neck.extra_relu) == ("conv_input", False)
    check_guided(head.guided)
    assert head.guided.base_scale == 4.0
    assert stds(head.guided.coder) == stds(head.coder) == (1.0,) * 4
    assert thresholds(head.guided.shape_assigner) == (0.5, 0.4, 0.4, True)
    assert thresholds(head.assigner) == (0.5, 0.5, 0.0, True)
    assert (head.cls_loss, head.box_loss) == (FocalConfig(gamma=2.0, alpha=0.25), SmoothL1Config(beta=0.04))
    assert (head.channels, head.num_convs, head.prior) == (256, 4, 0.01)
    assert (head.before_nms, head.score_threshold, head.nms_threshold, head.max_detections) == (1000, 0.05, 0.5, 100)


@pytest.mark.parametrize("model", ["ga_rpn", "ga_faster_rcnn", "ga_retinanet"])
def test_parameters_are_the_reference_s(model: str) -> None:
    weights = json.loads((CASES / f"{model}_r50_fpn.json").read_text())["weights"]
    theirs = sum(torch.Size(w["shape"]).numel() for n, w in weights.items() if not n.endswith("num_batches_tracked"))
    recipe = load_recipe(f"{model.replace('_', '-')}/r50-caffe-fpn-1x")
    state = recipe.detector.build(num_classes=80).state_dict()
    assert sum(v.numel() for n, v in state.items() if not n.endswith("num_batches_tracked")) == theirs


def test_names_of_others() -> None:
    rpn, retinanet = GARPNConfig(), GARetinaNetHeadConfig()
    for ours, theirs in {
        "conv.bias": "rpn_conv.bias",
        "prediction.location.weight": "conv_loc.weight",
        "prediction.shape.bias": "conv_shape.bias",
        "adaption.offset.weight": "feature_adaption.conv_offset.weight",
        "adaption.weight": "feature_adaption.conv_adaption.weight",
        "scores.weight": "conv_cls.weight",
        "deltas.bias": "conv_reg.bias",
    }.items():
        assert translate("mmdet", rpn, ours) == theirs
    for ours, theirs in {
        "cls_tower.3.conv.weight": "cls_convs.3.conv.weight",
        "box_tower.0.conv.bias": "reg_convs.0.conv.bias",
        "cls_adaption.weight": "feature_adaption_cls.conv_adaption.weight",
        "box_adaption.offset.weight": "feature_adaption_reg.conv_offset.weight",
        "scores.bias": "retina_cls.bias",
        "deltas.weight": "retina_reg.weight",
    }.items():
        assert translate("mmdet", retinanet, ours) == theirs


def test_the_demo_trains() -> None:
    recipe = load_recipe("ga-retinanet/r18-fpn-demo")
    detector = recipe.detector.build(num_classes=1)
    data = recipe.open_train()
    loaded = [prepare(data.load(i), [t.build() for t in recipe.data.train_transforms], Key(index=i)) for i in range(2)]
    batch = to_batch(detector, loaded)
    terms = detector.train().losses(batch, to_targets(batch, loaded))
    assert set(terms) == {"retina_cls", "retina_box", "retina_shape", "retina_location"}
    sum(term.value() for term in terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)
