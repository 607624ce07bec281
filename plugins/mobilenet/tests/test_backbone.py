"""MobileNetV3: maps and names are torchvision's, its spec is what is built, frozen parts stay, and its errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

import det_plugin_mobilenet
from det_core.engine.prepare_inference import for_inference
from det_core.errors import ConfigError, WeightsError
from det_core.load import load_recipe
from det_core.model.layer_config import BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig
from det_core.settings import evolve
from det_core.specs import FeatureSpec
from det_core.testing import contract_checks
from det_core.weights.fill_detector import import_backbone
from det_core.weights.translate_names import translate
from det_plugin_mobilenet.config import MobileNetV3Config

NORM = BatchNormConfig(eps=0.001, momentum=0.01)
NETWORKS = {"large": mobilenet_v3_large, "small": mobilenet_v3_small}
IMAGE = (1, 3, 70, 101)  # sides that no stride divides


def config_of(**settings: object) -> MobileNetV3Config:
    return MobileNetV3Config(**{"norm": NORM, "frozen_stages": -1, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["large", "small"])
@pytest.mark.parametrize("reduced", [False, True], ids=["full", "reduced"])
@pytest.mark.parametrize("taken", ["last", "first", "expanded"])
def test_the_spec_is_that_of_what_is_built(size, reduced, taken):
    stages = (2, 3, 4, 5) if taken == "expanded" else (1, 2, 3, 4, 5)
    config = config_of(size=size, stages=stages, taken=taken, reduced_tail=reduced)
    backbone = config.build().eval()
    assert backbone.out == config.feature_spec()
    with torch.no_grad():
        maps = backbone(torch.randn(*IMAGE))
    assert tuple(x.shape[1] for x in maps) == backbone.out.channels
    for x, stride in zip(maps, backbone.out.strides, strict=True):
        assert tuple(x.shape[2:]) == (-(-70 // stride), -(-101 // stride))


@pytest.mark.parametrize("size", ["large", "small"])
@pytest.mark.parametrize("reduced", [False, True], ids=["full", "reduced"])
def test_the_maps_are_torchvision_s(size, reduced):
    """After the last block of each stage, after the first, and after the expansion in the first."""
    torch.manual_seed(0)
    theirs = NETWORKS[size](weights=None, reduced_tail=reduced).eval()
    starts = [i for i, block in enumerate(theirs.features) if getattr(block, "_is_cn", False)]
    ends = [*(start - 1 for start in starts[1:]), len(theirs.features) - 2, len(theirs.features) - 1]
    inputs, x = [], torch.randn(*IMAGE)
    with torch.no_grad():
        for layer in theirs.features:
            inputs.append(x)
            x = layer(x)
        inputs.append(x)
        expanded = [theirs.features[i].block[0](inputs[i]) for i in starts[1:]]
    wanted = {
        "last": [inputs[i + 1] for i in ends],
        "first": [*(inputs[i + 1] for i in starts), inputs[-1]],
        "expanded": [*expanded, inputs[-1]],
    }
    for taken, maps in wanted.items():
        stages = tuple(range(2 if taken == "expanded" else 1, 6))
        backbone = config_of(size=size, stages=stages, taken=taken, reduced_tail=reduced).build().eval()
        backbone.load_state_dict(theirs.state_dict(), strict=False)
        with torch.no_grad():
            found = backbone(torch.randn(*IMAGE).copy_(inputs[0]))
        for ours, there in zip(found, maps, strict=True):
            torch.testing.assert_close(ours, there)


@pytest.mark.parametrize(
    ("stages", "taken", "built", "last"),
    [
        ((2,), "last", 7, "features.6.block.3.1.bias"),
        ((3, 4), "first", 14, "features.13.block.3.1.bias"),
        ((2, 4), "expanded", 14, "features.13.block.0.1.bias"),
        ((5,), "first", 17, "features.16.1.bias"),
    ],
)
def test_what_is_not_needed_is_not_built_and_its_weights_are_ignored(stages, taken, built, last, tmp_path):
    file = tmp_path / "mobilenet.pth"
    theirs = mobilenet_v3_large(weights=None)
    torch.save(theirs.state_dict(), file)
    backbone = config_of(stages=stages, taken=taken, pretrained=str(file)).build()
    assert len(backbone.features) == built
    assert list(dict(backbone.named_parameters()))[-1] == last
    backbone.load_initial_weights()
    for name, value in backbone.named_parameters():
        assert torch.equal(value, theirs.get_parameter(name))


def test_an_imagenet_model_is_imported_as_initial_weights(tmp_path):
    theirs = mobilenet_v3_large(weights=None)
    recipe = load_recipe("faster-rcnn/torchvision-mobilenet-v3-large-fpn")
    detector = recipe.detector.build(num_classes=2)
    values, report = import_backbone(theirs.state_dict(), source="torchvision", detector=detector)
    assert set(report.ignored) == {f"classifier.{layer}.{part}" for layer in (0, 3) for part in ("weight", "bias")}
    for name, value in values.items():
        assert torch.equal(value, theirs.state_dict()[name])
        assert torch.equal(detector.backbone.state_dict()[name], value)
    torch.save(values, tmp_path / "initial.pth")
    evolve(recipe.detector.backbone, pretrained=str(tmp_path / "initial.pth")).build().load_initial_weights()


def test_images_of_other_channels(tmp_path):
    """The first convolution is that of torchvision with the mean over RGB, times 3 / channels."""
    theirs = mobilenet_v3_large(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    config = config_of(stages=(2,), in_channels=2)
    contract_checks.check_backbone(config)
    backbone = evolve(config, pretrained=str(tmp_path / "mobilenet.pth")).build()
    conv = backbone.features[0][0]
    assert (conv.stride, conv.padding, conv.bias) == ((2, 2), (1, 1), None)
    assert conv.weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.2)
    backbone.load_initial_weights()
    wanted = theirs.features[0][0].weight.sum(1, keepdim=True) / 2
    torch.testing.assert_close(conv.weight, wanted.expand(-1, 2, -1, -1))


def test_weights_of_the_other_size_do_not_fit(tmp_path):
    torch.save(mobilenet_v3_small(weights=None).state_dict(), tmp_path / "small.pth")
    backbone = config_of(pretrained=str(tmp_path / "small.pth")).build()
    with pytest.raises(WeightsError, match=r"do not fit the backbone[\s\S]*features\.1\.block\.1\.0\.weight"):
        backbone.load_initial_weights()


@pytest.mark.parametrize(("frozen", "first"), [(-1, 0), (0, 2), (1, 4), (2, 7), (3, 13), (4, 16), (5, 17)])
def test_frozen_stages_are_frozen_with_their_statistics(frozen, first):
    backbone = config_of(frozen_stages=frozen, stages=(5,)).build().train()
    for number, layer in enumerate(backbone.features):
        assert {p.requires_grad for p in layer.parameters()} == {number >= first}
        assert {m.training for m in layer.modules() if isinstance(m, nn.BatchNorm2d)} == {number >= first}


def test_frozen_norms_keep_their_statistics_in_training():
    backbone = config_of(norm=FrozenBatchNormConfig(), stages=(4,)).build().train()
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    assert {p.requires_grad for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()} == {
        False
    }


def test_what_is_folded_for_inference_changes_nothing():
    torch.manual_seed(0)
    detector = load_recipe("faster-rcnn/torchvision-mobilenet-v3-large-320-fpn").detector.build(num_classes=2).eval()
    for norm in (m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(*IMAGE)
    with torch.no_grad():
        plain = [x]
        for layer in detector.backbone.features:  # torchvision's own modules, one after the other
            plain.append(layer(plain[-1]))
        for maps in (detector.backbone(x), for_inference(detector).backbone(x)):
            torch.testing.assert_close(maps[0], plain[14], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(maps[1], plain[17], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        config_of(size="small", stages=(1, 2, 3)),
        config_of(size="small", stages=(2, 3), taken="expanded", norm=GroupNormConfig(groups=8)),
        config_of(stages=(2, 5), taken="first", reduced_tail=True),
    ],
    ids=["small", "expanded", "reduced"],
)
def test_the_contract_of_backbones(config):
    contract_checks.check_backbone(config)


def test_small_initial_weights():
    torch.manual_seed(0)
    kinds = {
        kind: config_of(initial=kind, stages=(5,)).build().get_parameter("features.16.0.weight")
        for kind in ("fan_out", "small")
    }
    assert kinds["small"].std().item() == pytest.approx(0.03, rel=0.02)
    assert kinds["fan_out"].std().item() == pytest.approx((2 / 960) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": (3, 2)}, r"MobileNetV3Config.stages: \[3, 2\] must ascend without repeats"),
        (
            {"size": "small", "stages": (1, 2), "taken": "expanded"},
            r"MobileNetV3Config.stages: the first block of stage 1 of size 'small' has no expansion, so taken: "
            r"expanded cannot return it; leave out stage 1, or use taken: last",
        ),
        (
            {"reduced_tail": True, "pretrained": "torchvision:mobilenet_v3_large"},
            r"MobileNetV3Config.pretrained: 'torchvision:mobilenet_v3_large' has the full tail, but reduced_tail is "
            r"true; use null or a file with weights of the reduced network, or set reduced_tail to false",
        ),
        ({"size": "larg"}, r"MobileNetV3Config.size: found 'larg'"),
        ({"frozen_stages": 6}, r"MobileNetV3Config.frozen_stages: found 6"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MobileNetV3Config(**settings)


def test_torchvision_s_names():
    """Of Faster R-CNN: the blocks alone; of SSDLite: two halves, cut in the first block of stage 4."""
    plain, cut = config_of(taken="first"), config_of(taken="expanded", stages=(4, 5))
    small = config_of(size="small", taken="expanded", stages=(4, 5))
    assert translate("torchvision", plain, "features.13.block.0.0.weight") == "13.block.0.0.weight"
    for key, name in {
        "features.0.1.bias": "features.0.0.1.bias",
        "features.12.block.2.fc1.bias": "features.0.12.block.2.fc1.bias",
        "features.13.block.0.1.weight": "features.0.13.1.weight",
        "features.13.block.2.fc1.weight": "features.1.0.2.fc1.weight",
        "features.14.block.0.0.weight": "features.1.1.block.0.0.weight",
        "features.16.1.running_var": "features.1.3.1.running_var",
    }.items():
        assert translate("torchvision", cut, key) == name
    assert translate("torchvision", small, "features.9.block.1.0.weight") == "features.1.0.1.0.weight"
    assert translate("torchvision", small, "features.10.block.1.0.weight") == "features.1.1.block.1.0.weight"


def test_public_names():
    assert det_plugin_mobilenet.MobileNetV3Config is MobileNetV3Config
    assert MobileNetV3Config().feature_spec() == FeatureSpec(channels=(40, 112, 960), strides=(8, 16, 32))
    with pytest.raises(AttributeError, match="module 'det_plugin_mobilenet' has no attribute 'ResNet'"):
        _ = det_plugin_mobilenet.ResNet
