"""RetinaNet's recipes: the published rows, torchvision's conventions, and the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from det_core.data.data_config import ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.load import load_recipe
from det_core.model.layer_config import BatchNormConfig
from det_core.optim.optimizer_config import AdamWConfig
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.structures import Key
from det_core.weights.translate_names import translate
from det_plugin_fpn.config import FPNConfig
from det_plugin_resnet.config import ResNetConfig
from det_plugin_retinanet.config import RetinaNetHeadConfig
from det_plugin_retinanet.recipes import ROWS, STRONG_ROWS

CASE = Path(__file__).parents[3] / "tests" / "parity" / "cases" / "retinanet_r50_fpn.json"

# Name: published AP of 2019 and memory, AP and memory of later re-runs.
PUBLISHED = {
    "retinanet/r50-caffe-fpn-1x": (35.8, 3.4, 36.3, 3.5),
    "retinanet/r50-fpn-1x": (35.6, 3.6, 36.5, 3.8),
    "retinanet/r50-fpn-2x": (36.5, None, 37.4, 3.8),
    "retinanet/r101-caffe-fpn-1x": (37.8, 5.3, 38.5, 5.5),
    "retinanet/r101-fpn-1x": (37.7, 5.5, 38.5, 5.7),
    "retinanet/r101-fpn-2x": (38.1, None, 38.9, 5.7),
    "retinanet/x101-32x4d-fpn-1x": (39.0, 6.7, 39.9, 7.0),
    "retinanet/x101-32x4d-fpn-2x": (39.3, None, 40.1, 7.0),
    "retinanet/x101-64x4d-fpn-1x": (40.0, 9.6, 41.0, 10.0),
    "retinanet/x101-64x4d-fpn-2x": (39.6, None, 40.8, 10.0),
}


def head_of(recipe: Recipe) -> RetinaNetHeadConfig:
    head = recipe.detector.dense_head
    assert isinstance(head, RetinaNetHeadConfig)
    return head


def test_every_published_row_and_no_other() -> None:
    assert [row.name for row in ROWS] == list(PUBLISHED)
    for row in ROWS:
        p = row.published
        assert (p.box_ap, p.memory_gb, p.modern_box_ap, p.modern_memory_gb) == PUBLISHED[row.name]
    assert set(PUBLISHED) <= set(plugin_manager().recipes())


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_settings(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.detector.feature_spec().strides == (8, 16, 32, 64, 128)
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch) == (0.01, 16)
    assert recipe.schedule.epochs == (12 if name.endswith("1x") else 24)
    assert recipe.detector.preprocess.order == ("bgr" if "caffe" in name else "rgb")
    head = head_of(recipe)
    assert (head.score_threshold, head.nms_threshold, head.max_detections, head.before_nms) == (0.05, 0.5, 100, 1000)
    neck = recipe.detector.neck
    assert isinstance(neck, FPNConfig)
    assert (neck.extra, neck.extra_relu) == ("conv_input", False)


def test_parameters_are_the_reference_s() -> None:
    weights = json.loads(CASE.read_text())["weights"]
    sizes = (torch.Size(w["shape"]).numel() for name, w in weights.items() if not name.endswith("num_batches_tracked"))
    detector = load_recipe("retinanet/r50-fpn-1x").detector.build(num_classes=80)
    ours = (v.numel() for name, v in detector.state_dict().items() if not name.endswith("num_batches_tracked"))
    assert sum(ours) == sum(sizes)


def test_stronger_training() -> None:
    found = {row.name: row.published.box_ap for row in STRONG_ROWS}
    assert found == {
        "retinanet/r50-fpn-ms-3x": 39.5,
        "retinanet/r101-fpn-ms-3x": 41.0,
        "retinanet/x101-64x4d-fpn-ms-3x": 41.6,
        "retinanet/r50-fpn-rsb-1x": 39.0,
    }
    plain, newer = load_recipe("retinanet/r50-fpn-1x"), load_recipe("retinanet/r50-fpn-rsb-1x")
    sizes = load_recipe("retinanet/r50-fpn-ms-3x")
    assert sizes.detector == plain.detector
    assert sizes.optimizer == plain.optimizer
    assert (sizes.schedule.epochs, sizes.schedule.learning_rate.milestones, sizes.data.repeat) == (12, (9, 11), 3)
    assert newer.optimizer == AdamWConfig(lr=1e-4, lr_batch=16, weight_decay=0.05, norm_weight_decay=0.0)


def test_torchvision_s_second_version_trains_as_its_weights_did() -> None:
    recipe = load_recipe("retinanet/torchvision-r50-fpn-v2")
    resize = recipe.data.train_transforms[0]
    assert isinstance(resize, ResizeConfig)
    assert {long for long, _ in resize.scales} == {1333}
    assert [short for _, short in resize.scales] == [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert (resize.mode, resize.rounding) == ("choice", "down")
    assert recipe.data.test_transforms == (evolve(resize, scales=((1333, 800),)),)
    assert recipe.optimizer.norm_weight_decay == 0
    assert (recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == (26, (16, 22))
    backbone = recipe.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    assert backbone.norm == BatchNormConfig(synchronised=True)
    assert backbone.pretrained == "torchvision:resnet50@IMAGENET1K_V2"


def test_names_of_others() -> None:
    head, neck = RetinaNetHeadConfig(), FPNConfig(start=1, extra="conv_input")
    assert translate("mmdet", head, "cls_tower.3.conv.weight") == "cls_convs.3.conv.weight"
    assert translate("mmdet", head, "deltas.bias") == "retina_reg.bias"
    assert translate("torchvision", head, "box_tower.2.conv.bias") == "regression_head.conv.2.0.bias"
    assert translate("torchvision", head, "scores.weight") == "classification_head.cls_logits.weight"
    assert translate("mmdet", neck, "extra.3.conv.weight") == "fpn_convs.3.conv.weight"
    assert translate("torchvision", neck, "extra.4.conv.weight") == "extra_blocks.p7.weight"


def test_the_demo_finds_nothing_at_first_and_trains() -> None:
    recipe = load_recipe("retinanet/r18-fpn-demo")
    detector = recipe.detector.build(num_classes=1)
    data = recipe.open_train()
    loaded = [prepare(data.load(i), [t.build() for t in recipe.data.train_transforms], Key(index=i)) for i in range(2)]
    batch = to_batch(detector, loaded)
    terms = detector.train().losses(batch, to_targets(batch, loaded))
    assert set(terms) == {"retina_cls", "retina_box"}
    sum(term.value() for term in terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)
