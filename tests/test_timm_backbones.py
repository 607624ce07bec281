"""Twenty networks of timm under Faster R-CNN and RetinaNet: build, train a step, save and load."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from det_core.engine.prepare_inference import for_inference
from det_core.load import load_recipe
from det_core.model.detector_config import DetectorConfig
from det_core.settings import evolve
from det_core.testing.contract_checks import check_backward
from det_core.testing.tiny_inputs import make_batch, make_targets
from det_plugin_fpn.config import FPNConfig
from det_plugin_timm.config import TimmConfig

NETWORKS = (
    "convnext_atto",
    "convnextv2_atto",
    "cspnext_tiny",
    "dla46_c",
    "edgenext_xx_small",
    "efficientnet_b0",
    "efficientvit_b0",
    "ghostnet_050",
    "lcnet_035",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "mobilevit_xxs",
    "pvt_v2_b0",
    "regnety_002",
    "repghostnet_050",
    "resnet18d",
    "swin_tiny_patch4_window7_224",
    "vit_small_patch16_dinov3",
    "vit_tiny_patch16_224",
    "xcit_nano_12_p16_224",
)
MODELS = ("faster-rcnn/r18-fpn-demo", "retinanet/r18-fpn-demo")


def detector_of(recipe: str, network: str) -> DetectorConfig:
    """The detector of a demo on a network of timm.

    RetinaNet uses no map of stride 4, so it is not asked for: its own layers would get no gradient.
    """
    detector = load_recipe(recipe).detector
    neck = detector.neck
    assert isinstance(neck, FPNConfig)
    strides = (4, 8, 16, 32)[neck.start :]
    return evolve(detector, backbone=TimmConfig(name=network, strides=strides), neck=evolve(neck, start=0))


def test_there_are_twenty() -> None:
    assert len(set(NETWORKS)) == 20


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recipe", MODELS)
def test_a_network_trains_a_step_and_is_saved(recipe: str, network: str) -> None:
    config = detector_of(recipe, network)
    torch.manual_seed(0)
    detector = config.build(num_classes=2).train()
    batch = make_batch(size=(70, 101))  # sides that no stride divides
    check_backward(detector, detector.losses(batch, make_targets(batch, 2)))
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = config.build(num_classes=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for one, two in zip(detector.eval().features(batch), other.eval().features(batch), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("recipe", MODELS)
@pytest.mark.parametrize("network", ["convnext_atto", "vit_tiny_patch16_224"])
def test_detections_have_the_contract_s_form(recipe: str, network: str) -> None:
    detector = detector_of(recipe, network).build(num_classes=2).eval()
    batch = make_batch()
    with torch.no_grad():
        found = detector.predict(batch)
    assert len(found) == len(batch)
    assert all(bool(each.boxes.isfinite().all()) for each in found)


@pytest.mark.parametrize("network", ["resnet18d", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_dinov3_qkvb"])
def test_inference_copies_and_pickles_give_the_same_features(network: str) -> None:
    torch.manual_seed(0)
    detector = detector_of(MODELS[0], network).build(num_classes=2).eval()
    batch = make_batch(size=(70, 101))
    with torch.no_grad():
        plain = detector.features(batch)
        prepared = for_inference(detector)
        copies = (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared)))
        ready = prepared.features(batch)
        for one, two in zip(plain, ready, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
        for other in copies:
            assert all(torch.equal(one, two) for one, two in zip(ready, other.features(batch), strict=True))
