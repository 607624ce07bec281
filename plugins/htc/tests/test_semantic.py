"""The semantic branch: its map, its loss over all pixels, and the regions that heads get."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn import functional as F

from det_core.model.layer_config import RoIAlignConfig
from det_core.specs import FeatureSpec
from det_core.structures import UNLABELLED, Targets
from det_plugin_htc.config import SemanticBranchConfig
from det_plugin_htc.semantic import SemanticBranch, SemanticOutputs

LEVELS = FeatureSpec(channels=(4, 4, 4), strides=(4, 8, 16))


def branch(**settings: object) -> SemanticBranch:
    given = {"classes": 3, "num_convs": 1, **settings}
    return SemanticBranch(SemanticBranchConfig(**given), LEVELS)  # type: ignore[arg-type]


def target(semantic: torch.Tensor | None) -> Targets:
    return Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), semantic=semantic)


def outputs(logits: torch.Tensor) -> SemanticOutputs:
    return SemanticOutputs(logits, torch.zeros(len(logits), 4, *logits.shape[-2:]))


def layer(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A convolution and ReLU written out."""
    conv = layer.conv
    return F.conv2d(x, conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2).clamp(min=0)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_all_levels_come_to_one_and_are_summed(stride):
    torch.manual_seed(0)
    module = branch(stride=stride, roi_pool=RoIAlignConfig(size=14, strides=(stride,))).double()
    sizes = [(12, 20), (6, 10), (3, 5)]
    features = [torch.randn(2, 4, *size).double() for size in sizes]
    with torch.no_grad():
        found = module(features)
        size = sizes[LEVELS.strides.index(stride)]
        resized = [F.interpolate(f, size=size, mode="bilinear", align_corners=True) for f in features]
        x = sum(layer(module.lateral[i], r) for i, r in enumerate(resized))
        x = layer(module.convs[0], x)
        assert torch.allclose(found.embedding, layer(module.embedding, x), rtol=1e-12)
        assert torch.allclose(found.logits, F.conv2d(x, module.logits.weight, module.logits.bias), rtol=1e-12)
    assert found.logits.shape == (2, 3, *size)


def test_the_published_form_has_183_logits_and_four_convolutions_as_wide_as_the_features():
    config = SemanticBranchConfig()
    assert (config.classes, config.num_convs, config.stride) == (183, 4, 8)
    assert config.roi_pool == RoIAlignConfig(size=14, strides=(8,))
    assert (config.loss_weight, config.fuse_boxes, config.fuse_masks) == (0.2, True, True)
    with torch.device("meta"):
        module = SemanticBranch(config, FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64)))
    count = sum(p.numel() for p in module.parameters())
    assert count == 6 * (256 * 256 + 256) + 4 * (256 * 256 * 9 + 256) + 257 * 183


def test_the_loss_is_the_mean_over_all_pixels_of_the_map_with_ignored_ones_and_padding_as_0():
    """Padded to 16 x 24, so a map of 2 x 3; the second image is 16 x 16, its last column of cells padding."""
    first, second = torch.full((16, 24), 1), torch.full((16, 16), 2)
    first[0, 0], first[8, 16] = 0, UNLABELLED
    logits = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    logits[:, 1] = 2.0
    term = branch(loss_weight=0.5).losses(outputs(logits), [target(first), target(second)], (16, 24))
    norm = torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64).logsumexp(0)
    # one cell of class 0, four of class 1, one ignored; four of class 2, two of padding
    expected = (norm - 0) + 4 * (norm - 2) + 4 * (norm - 0)
    assert term.count == 12
    assert term.value().item() == pytest.approx(0.5 * expected.item() / 12, rel=1e-12)


def test_a_cell_has_the_class_of_its_top_left_pixel():
    semantic = torch.full((16, 24), 1, dtype=torch.uint8)  # as it is loaded
    semantic[::8, ::8] = torch.tensor([[0, 1, 2], [2, 0, 1]], dtype=torch.uint8)
    logits = torch.full((1, 3, 2, 3), -50.0)
    for row, column, label in ((0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 2), (1, 1, 0), (1, 2, 1)):
        logits[0, label, row, column] = 50.0
    assert branch().losses(outputs(logits), [target(semantic)], (16, 24)).value() == 0
    assert branch().losses(outputs(-logits), [target(semantic)], (16, 24)).value() > 1


def test_a_map_with_nothing_labelled_gives_0_and_a_gradient():
    logits = torch.randn(1, 3, 2, 3, requires_grad=True)
    value = branch().losses(outputs(logits), [target(torch.full((16, 24), UNLABELLED))], (16, 24)).value()
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_in_half_precision_the_loss_is_float32():
    logits = torch.zeros(1, 3, 2, 3, dtype=torch.bfloat16)
    term = branch().losses(outputs(logits), [target(torch.zeros(16, 24).long())], (16, 24))
    assert term.total.dtype == torch.float32


def test_targets_without_a_map_are_refused():
    with pytest.raises(ValueError, match="image 1 of the batch has no semantic map; data sets load them only if"):
        branch().losses(outputs(torch.zeros(2, 3, 2, 3)), [target(torch.zeros(16, 24).long()), target(None)], (16, 24))


def test_regions_are_pooled_at_the_maps_stride_and_averaged_down():
    module = branch(roi_pool=RoIAlignConfig(size=14, strides=(8,)))
    x = torch.arange(14.0).expand(1, 4, 14, 14)  # rises by 1 a cell to the right
    made = SemanticOutputs(x[:, :3], x)
    whole = [torch.tensor([[4.0, 4.0, 4.0 + 8 * 13, 4.0 + 8 * 13]])]  # from the first cell's centre to the last one's
    fine, coarse = module.regions(made, whole, (14, 14)), module.regions(made, whole, (7, 7))
    assert fine.shape == (1, 4, 14, 14)
    assert coarse.shape == (1, 4, 7, 7)
    assert fine[0, 0, 3].tolist() == pytest.approx([13 / 14 * (i + 0.5) for i in range(14)], abs=1e-5)
    assert torch.equal(coarse, F.avg_pool2d(fine, 2))


def test_regions_of_several_images_are_of_their_own():
    module = branch()
    x = torch.stack([torch.full((4, 6, 6), float(i)) for i in range(3)])
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    found = module.regions(SemanticOutputs(x, x), [box, box[:0], box.expand(2, -1)], (7, 7))
    assert found.mean((1, 2, 3)).tolist() == [0, 2, 2]


@pytest.mark.parametrize(("boxes", "masks"), [(True, True), (True, False), (False, True), (False, False)])
def test_who_gets_its_regions(tiny, boxes, masks):
    head = evolve(tiny.htc, semantic=evolve(tiny.semantic, fuse_boxes=boxes, fuse_masks=masks)).build(tiny.levels, 3)
    batch = tiny.batch()
    features, targets = tiny.features(tiny.levels, batch), tiny.targets(batch, (3, 2))
    terms = head.losses(features, tiny.proposals(batch, targets), targets, batch)
    for kind, wanted in (("cls", boxes), ("mask", masks)):
        head.zero_grad(set_to_none=True)
        terms[f"stage2_{kind}"].value().backward(retain_graph=True)
        gradient = head.semantic.embedding.conv.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == wanted
        assert head.semantic.logits.weight.grad is None
