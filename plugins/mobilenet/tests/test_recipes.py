"""The small detectors' recipes, setting by setting; each trains a step and finds something in an image."""

from __future__ import annotations

import pytest
import torch

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.specs import FeatureSpec
from det_core.structures import Key
from det_core.testing import contract_checks
from det_plugin_mobilenet.config import MobileNetV3Config
from det_plugin_mobilenet.recipes import ENTRIES, ROWS
from det_plugin_rcnn.config import RCNNHeadConfig, RPNConfig
from det_plugin_ssd.augment_config import IoUCropConfig
from det_plugin_ssd.config import SSDAnchorsConfig, SSDHeadConfig

LARGE = "faster-rcnn/torchvision-mobilenet-v3-large-fpn"
SMALL = "faster-rcnn/torchvision-mobilenet-v3-large-320-fpn"
LITE = "ssd/torchvision-mobilenet-v3-large-320"
DEMO = "faster-rcnn/mobilenet-v3-small-fpn-demo"
PUBLISHED = {LARGE: 32.8, SMALL: 22.8, LITE: 21.3}


def test_the_plugin_keeps_its_contracts() -> None:
    contract_checks.check_plugin("mobilenet", build=False)


def test_every_published_row_and_no_other() -> None:
    assert [row.published.box_ap for row in ROWS] == list(PUBLISHED.values())
    assert [entry.name for entry in ENTRIES] == [*PUBLISHED, DEMO]
    for name, ap in PUBLISHED.items():
        entry = plugin_manager().recipe_entry(name)
        assert entry.published is not None
        assert (entry.published.box_ap, entry.published.source) == (ap, "torchvision, COCO_V1")
        assert entry.weights_of == "torchvision"
    assert [entry.name for entry in ENTRIES if entry.default] == [SMALL]
    assert [entry.name for entry in ENTRIES if entry.demo] == [DEMO]


@pytest.mark.parametrize(
    ("name", "scale", "limits"), [(LARGE, (1333, 800), (1000, 1000)), (SMALL, (640, 320), (150, 150))]
)
def test_faster_rcnn(name: str, scale: tuple[int, int], limits: tuple[int, int]) -> None:
    recipe = load_recipe(name)
    detector = recipe.detector
    assert detector.feature_spec() == FeatureSpec(channels=(256,) * 3, strides=(32, 32, 64))
    rpn, head, backbone = detector.dense_head, detector.roi_head, detector.backbone
    assert isinstance(rpn, RPNConfig)
    assert isinstance(head, RCNNHeadConfig)
    assert isinstance(backbone, MobileNetV3Config)
    assert isinstance(rpn.anchors, GridAnchorsConfig)
    assert rpn.anchors.sides == (32.0, 64.0, 128.0, 256.0, 512.0)
    assert (rpn.score_threshold, head.score_threshold) == (0.05, 0.05)
    assert (rpn.test_limits.before_nms, rpn.test_limits.after_nms) == limits
    assert (rpn.train_limits.before_nms, rpn.train_limits.after_nms) == (2000, 2000)
    assert (backbone.pretrained, backbone.frozen_stages) == ("torchvision:mobilenet_v3_large", 2)
    resize = ResizeConfig(scales=(scale,), rounding="down", arithmetic="float")
    assert recipe.data.test_transforms == (resize,)
    assert recipe.data.train_transforms == (resize, FlipConfig())


def test_ssdlite() -> None:
    recipe = load_recipe(LITE)
    detector, head = recipe.detector, recipe.detector.dense_head
    assert detector.backbone.feature_spec() == FeatureSpec(channels=(672, 480), strides=(16, 32))
    assert detector.feature_spec() == FeatureSpec(
        channels=(672, 480, 512, 256, 256, 128), strides=(16, 32, 64, 107, 160, 320)
    )
    assert isinstance(head, SSDHeadConfig)
    assert isinstance(head.anchors, SSDAnchorsConfig)
    assert [round(size / 320, 6) for size in head.anchors.sizes] == [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    assert (head.score_threshold, head.nms_threshold, head.before_nms, head.max_detections) == (0.001, 0.55, 300, 300)
    resize = ResizeConfig(scales=((320, 320),), keep_ratio=False, arithmetic="float")
    assert recipe.data.train_transforms == (IoUCropConfig(), resize, FlipConfig())
    assert detector.preprocess.mean == detector.preprocess.std == (127.5,) * 3
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch, recipe.optimizer.weight_decay) == (0.15, 192, 4e-5)


@pytest.mark.parametrize("name", [SMALL, LITE, DEMO])
def test_a_step_of_training_and_an_inference(name: str) -> None:
    """On the bundled sample; every parameter that trains gets a finite gradient."""
    torch.manual_seed(0)
    recipe, sample = load_recipe(name), load_recipe(DEMO)
    detector = recipe.detector.build(num_classes=1).train()
    data, resize = sample.open_train(), recipe.data.test_transforms[0].build()
    loaded = [prepare(data.load(index), [resize], Key(index=index)) for index in range(2)]
    batch = to_batch(detector, loaded)
    terms = detector.losses(batch, to_targets(batch, loaded))
    sum(term.value() for term in terms.values()).backward()
    for key, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    with torch.no_grad():
        found = detector.eval().predict(batch)
    assert len(found) == 2
    assert all(bool(f.boxes.isfinite().all()) for f in found)
