"""mmdet's checkpoints: nothing is left over or missing, and the maps are those of mmdet's own arithmetic."""

from __future__ import annotations

import pytest
import timm
import torch
from mmdet_networks import State, convnext, convnext_state, swin, swin_state
from torch.nn import functional as F

from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.settings import evolve
from det_core.weights.fill_detector import import_weights
from det_core.weights.translate_names import detector_names, locate, names_of, translate
from det_plugin_timm.config import TimmConfig
from det_plugin_timm.weights import CONVOLVED, MERGED

ATTO = ((40, 80, 160, 320), (2, 2, 6, 2))
SWIN = "mask-rcnn/swin-t-fpn-1x"


def checkpoint_of(detector, backbone: State) -> State:
    """A whole checkpoint: a backbone with names written down independently, the rest of the detector as it is."""
    keys = [key for key in detector.state_dict() if not key.startswith("backbone.")]
    names = detector_names("mmdet", detector.config, ["roi_head.bbox_head.fc_cls.weight"])
    rest = {locate("mmdet", names, key).name: detector.state_dict()[key] for key in keys}
    return {**{f"backbone.{name}": value for name, value in backbone.items()}, **rest}


def detector_on(backbone: TimmConfig):
    detector = evolve(load_recipe("faster-rcnn/swin-t-fpn-1x").detector, backbone=backbone)
    return detector.build(num_classes=3).eval()


@pytest.mark.parametrize("size", [(96, 160), (224, 64)])
def test_swin_is_mmdet_s(size: tuple[int, int]) -> None:
    """Maps of 24 x 40, 12 x 20, 6 x 10 and 3 x 5 cells are not whole windows of 7 x 7."""
    config = load_recipe(SWIN).detector.backbone
    detector, state = detector_on(config), swin_state()
    report = import_weights(checkpoint_of(detector, state), source="mmdet", detector=detector)
    assert report.ignored == ()
    assert set(report.changed.values()) == {MERGED.note}
    assert len(report.changed) == 9  # norm and reduction of three mergings
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for ours, theirs in zip(detector.backbone(images), swin(state, images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_convnext_is_mmpretrain_s() -> None:
    config = TimmConfig(name="convnext_atto", out_norm="layer_norm")
    detector, state = detector_on(config), convnext_state(*ATTO)
    report = import_weights(checkpoint_of(detector, state), source="mmdet", detector=detector)
    assert report.ignored == ()
    assert set(report.changed.values()) == {CONVOLVED.note}  # only the small networks of timm have convolutions
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(detector.backbone(images), convnext(state, images, ATTO[1]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_convnext_t_of_the_recipe_takes_a_whole_checkpoint() -> None:
    state = convnext_state((96, 192, 384, 768), (3, 3, 9, 3))
    detector = detector_on(load_recipe("mask-rcnn/convnext-t-fpn-ms-crop-3x").detector.backbone)
    report = import_weights(checkpoint_of(detector, state), source="mmdet", detector=detector)
    assert (report.ignored, report.changed) == ((), {})
    assert torch.equal(detector.backbone.body.stages[3].blocks[2].gamma, state["stages.3.2.gamma"])


def test_what_a_checkpoint_lacks_is_listed() -> None:
    detector, state = detector_on(TimmConfig(name="convnext_atto", out_norm="layer_norm")), convnext_state(*ATTO)
    whole = checkpoint_of(detector, state)
    del whole["backbone.norm2.weight"]
    whole["backbone.norm7.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError) as error:
        import_weights(whole, source="mmdet", detector=detector)
    assert "not in the source: backbone.norm2.weight (for backbone.out_norms.2.weight)" in str(error.value)
    assert "backbone.norm7.weight" in str(error.value)


def test_small_networks_are_those_with_convolutions() -> None:
    sizes = ("atto", "femto", "pico", "nano", "tiny", "small", "base")
    names = [f"{family}_{size}" for family in ("convnext", "convnextv2") for size in sizes]
    for name in [*names, "convnext_tiny_hnf", "convnext_zepto_rms"]:
        with torch.device("meta"):
            weight = timm.create_model(name).state_dict()["stages.0.blocks.0.mlp.fc1.weight"]
        assert bool(names_of("mmdet", TimmConfig(name=name)).changes) == (weight.dim() == 4), name


def test_a_merging_is_the_same_convolution() -> None:
    """mmdet unfolds 2x2 cells; timm stacks them by column, then row."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 6, 4, 4), torch.randn(5, 24)
    unfolded = F.unfold(x, 2, stride=2).transpose(1, 2) @ weight.T
    cells = x.permute(0, 2, 3, 1)
    stacked = torch.cat([cells[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1).flatten(1, 2)
    torch.testing.assert_close(stacked @ MERGED.apply(weight).T, unfolded)
    assert MERGED.apply(torch.arange(8)).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


def test_output_norms_are_numbered_by_stage() -> None:
    config = TimmConfig(name="swin_tiny_patch4_window7_224", strides=(8, 32), out_norm="layer_norm")
    assert translate("mmdet", config, "out_norms.0.weight") == "norm1.weight"
    assert translate("mmdet", config, "out_norms.1.bias") == "norm3.bias"
    v2 = TimmConfig(name="convnextv2_atto")
    assert translate("mmdet", v2, "body.stages.1.blocks.0.mlp.grn.weight") == "stages.1.0.grn.gamma"


def test_other_networks_have_no_names_in_mmdet() -> None:
    with pytest.raises(WeightsError, match="there are no names of mmdet for 'resnet18d' of timm; weights of mmdet are"):
        translate("mmdet", TimmConfig(name="resnet18d"), "body.conv1.0.weight")
