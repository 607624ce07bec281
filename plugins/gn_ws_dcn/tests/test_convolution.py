"""Standardised and deformable convolution: by hand, against torch, and inside a ResNet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import astuple, evolve
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from det_core.errors import ConfigError, WeightsError
from det_core.load import load_recipe
from det_core.model.layer_config import Conv2dConfig, GroupNormConfig
from det_core.specs import ConvSpec
from det_core.testing import contract_checks
from det_core.weights.fill_detector import import_backbone
from det_core.weights.translate_names import translate
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, WSConv2dConfig
from det_plugin_gn_ws_dcn.convolution import DeformConv2d, OffsetConv, WSConv2d
from det_plugin_resnet.config import ResNetConfig


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def deform(config: DeformConv2dConfig, channels: int, out: int, **settings: int) -> DeformConv2d:
    torch.manual_seed(0)
    settings = {"padding": 1, **settings}
    module = config.build(ConvSpec(channels, out, 3, **settings)).double()  # type: ignore[arg-type]
    assert isinstance(module, DeformConv2d)
    return module


def plain(module: DeformConv2d, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """What the same weights give without offsets."""
    weight = module.weight if weight is None else weight
    return F.conv2d(x, weight, module.bias, *astuple(module.spec)[3:7])


# standardised


def test_a_filter_by_hand() -> None:
    """Weights 0, 1, 2, 5: mean 2, squares 4 + 1 + 0 + 9 over n - 1 = 3, and eps is added to the root."""
    conv = WSConv2dConfig(eps=0.5).build(ConvSpec(1, 1, 2, bias=True)).double()
    assert isinstance(conv, WSConv2d)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]]))
        conv.bias.fill_(10.0)
    x = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]], dtype=torch.float64)
    deviation = (14 / 3) ** 0.5 + 0.5
    expected = (-2 * 1 + 3 * 2) / deviation + 10
    assert conv(x).item() == pytest.approx(expected, rel=1e-12)


def test_each_filter_is_standardised_over_its_own_group_of_channels() -> None:
    conv = WSConv2dConfig().build(ConvSpec(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False)).double()
    x = image(2, 4, 9, 11)
    weight = torch.stack([(w - w.mean()) / (w.std() + 1e-5) for w in conv.weight])
    assert conv.weight.shape == (6, 2, 3, 3)
    torch.testing.assert_close(conv(x), F.conv2d(x, weight, None, 2, 2, 2, 2))


def test_scaling_and_shifting_a_filter_changes_nothing_but_eps() -> None:
    conv = WSConv2dConfig(eps=1e-12).build(ConvSpec(3, 5, 3, bias=False)).double()
    before = conv(image(1, 3, 6, 6))
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
    torch.testing.assert_close(conv(image(1, 3, 6, 6)), before)


def test_a_constant_filter_gives_zero_not_nan() -> None:
    conv = WSConv2dConfig().build(ConvSpec(3, 2, 3, bias=False))
    nn.init.constant_(conv.weight, 0.3)  # type: ignore[arg-type]
    assert conv(torch.randn(1, 3, 5, 5)).abs().max() < 1e-2


def test_gradients_are_those_of_the_formula() -> None:
    conv = WSConv2dConfig().build(ConvSpec(3, 4, 3, padding=1)).double()
    x = image(2, 3, 5, 6).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weight, bias = (p.detach().clone().requires_grad_() for p in conv.parameters())
    n = weight[0].numel()
    mean = weight.sum((1, 2, 3), keepdim=True) / n
    deviation = ((weight - mean).square().sum((1, 2, 3), keepdim=True) / (n - 1)).sqrt()
    conv(x).sin().sum().backward()
    F.conv2d(y, (weight - mean) / (deviation + 1e-5), bias, padding=1).sin().sum().backward()
    for found, expected in zip((x, *conv.parameters()), (y, weight, bias), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    assert torch.autograd.gradcheck(conv, (image(1, 3, 4, 4).requires_grad_(),))


# deformable


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(
    ("channels", "out", "settings"),
    [
        (4, 6, {}),
        (4, 6, {"stride": 2}),
        (4, 6, {"padding": 2, "dilation": 2, "bias": False}),
        (8, 8, {"groups": 4}),
        (64, 64, {"groups": 32, "stride": 2, "bias": False}),  # as in ResNeXt
    ],
)
@pytest.mark.parametrize("offset_groups", [1, 4])
def test_at_first_it_is_a_plain_convolution_modulated_half_of_one(modulated, channels, out, settings, offset_groups):
    module = deform(DeformConv2dConfig(modulated=modulated, offset_groups=offset_groups), channels, out, **settings)
    x = image(2, channels, 8, 9)
    expected = plain(module, x, module.weight * 0.5 if modulated else None)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("modulated", "rows"), [(False, 2 * 9 * 4), (True, 3 * 9 * 4)])
def test_names_and_shapes_are_mmdets(modulated: bool, rows: int) -> None:
    config = DeformConv2dConfig(modulated=modulated, offset_groups=4)
    shapes = {name: tuple(value.shape) for name, value in deform(config, 8, 6).state_dict().items()}
    assert shapes == {
        "weight": (6, 8, 3, 3),
        "bias": (6,),
        "conv_offset.weight": (rows, 8, 3, 3),
        "conv_offset.bias": (rows,),
    }
    backbone = ResNetConfig(depth=50, spatial_conv=config)
    for name in ("layer2.0.conv2.conv_offset.weight", "layer4.2.conv2.conv_offset.bias", "layer3.5.conv2.weight"):
        assert translate("mmdet", backbone, name) == name


def test_an_offset_moves_the_image() -> None:
    """Every tap reads one row below and two columns to the left of its place."""
    module = deform(DeformConv2dConfig(), 3, 4)
    with torch.no_grad():
        module.conv_offset.bias.view(9, 2).copy_(torch.tensor([1.0, -2.0]))
    x = image(1, 3, 8, 9)
    moved = F.pad(x, (2, 0, 0, 1))[:, :, 1:, :-2]
    inside = (..., slice(1, -2), slice(3, -1))
    torch.testing.assert_close(module(x)[inside], plain(module, moved)[inside])


def test_offset_groups_have_offsets_of_their_own() -> None:
    module = deform(DeformConv2dConfig(offset_groups=2), 4, 3)
    with torch.no_grad():
        module.conv_offset.bias.view(2, 9, 2)[1] = torch.tensor([0.0, 1.0])  # the second half, one to the right
    x = image(1, 4, 7, 8)
    moved = torch.cat([x[:, :2], F.pad(x[:, 2:], (0, 1))[..., 1:]], 1)
    inside = (..., slice(1, -1), slice(1, -2))
    torch.testing.assert_close(module(x)[inside], plain(module, moved)[inside])


def test_the_last_third_of_what_is_predicted_weighs_the_taps() -> None:
    module = deform(DeformConv2dConfig(modulated=True), 3, 2)
    weights = torch.linspace(-2, 2, 9, dtype=torch.float64)
    with torch.no_grad():
        module.conv_offset.bias[18:] = weights
    x = image(1, 3, 6, 6)
    torch.testing.assert_close(module(x), plain(module, x, module.weight * weights.sigmoid().view(3, 3)))


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_reach_the_offsets_from_the_first_step(modulated: bool) -> None:
    module = deform(DeformConv2dConfig(modulated=modulated, offset_groups=2), 4, 4)
    module(image(2, 4, 6, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    grad = module.conv_offset.bias.grad
    assert grad is not None
    assert (grad != 0).all()


def test_gradients_are_those_of_differences() -> None:
    module = deform(DeformConv2dConfig(modulated=True), 2, 2)
    with torch.no_grad():
        module.conv_offset.weight.copy_(image(27, 2, 3, 3, seed=1) * 0.1)
        module.conv_offset.bias.fill_(0.3)  # away from whole pixels, where the slope jumps
    assert torch.autograd.gradcheck(module, (image(1, 2, 4, 4, seed=2).requires_grad_(),))


def test_in_bfloat16_under_autocast() -> None:
    module = DeformConv2dConfig(modulated=True).build(ConvSpec(4, 4, 3, padding=1))
    with torch.autocast("cpu", torch.bfloat16):
        out = module(torch.randn(1, 4, 6, 6))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


# configuration


def test_groups_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="offset_groups: 4 groups do not divide 6 channels; choose a divisor of that"):
        DeformConv2dConfig(offset_groups=4).build(ConvSpec(6, 6, 3))


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (DeformConv2dConfig, {"offset_groups": 0}, r"offset_groups\S*: found .+, expected .*at least 1"),
        (WSConv2dConfig, {"eps": 0.0}, r"eps\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_out_of_range(config, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


@pytest.mark.parametrize("config", [WSConv2dConfig(), DeformConv2dConfig(modulated=True, offset_groups=2)])
def test_the_configurations_keep_their_contract(config) -> None:
    contract_checks.check_config(config)


# in a ResNet


def kinds(config: ResNetConfig) -> dict[str, set[type[nn.Module]]]:
    """The types of the spatial convolutions, by stage; the others' as ''."""
    name = "conv2" if config.depth >= 50 else "conv1"
    found: dict[str, set[type[nn.Module]]] = {}
    with torch.device("meta"):
        module = config.build()
    for key, part in module.named_modules():
        if isinstance(part, (nn.Conv2d, DeformConv2d)):
            inner = key.startswith("layer") and (key.endswith(name) or (config.depth < 50 and key.endswith("conv2")))
            found.setdefault(key.partition(".")[0] if inner else "", set()).add(type(part))
    return found


@pytest.mark.parametrize("style", ["pytorch", "caffe"])
@pytest.mark.parametrize("depth", [18, 50])
def test_deformable_in_the_stages_of_c3_to_c5_alone(depth, style) -> None:
    config = ResNetConfig(depth=depth, style=style, spatial_conv=DeformConv2dConfig())
    expected: dict[str, set[type[nn.Module]]] = {"": {nn.Conv2d}, "layer1": {nn.Conv2d}}
    assert kinds(config) == expected | {f"layer{n}": {DeformConv2d} for n in (2, 3, 4)}


def test_the_stride_stays_where_the_style_has_it() -> None:
    for style, stride in (("pytorch", 2), ("caffe", 1)):
        with torch.device("meta"):
            module = ResNetConfig(style=style, spatial_conv=DeformConv2dConfig()).build()  # type: ignore[arg-type]
        assert [module.stage(n)[0].conv2.spec.stride for n in (2, 3, 4)] == [stride] * 3  # type: ignore[index]
        assert all(block.conv2.spec.stride == 1 for n in (2, 3, 4) for block in list(module.stage(n))[1:])  # type: ignore[call-overload]


def test_the_groups_of_resnext_stay() -> None:
    with torch.device("meta"):
        config = ResNetConfig(groups=32, base_width=4, spatial_conv=DeformConv2dConfig(modulated=True))
        conv = config.build().layer2[0].conv2  # type: ignore[index]
    assert (conv.spec.groups, tuple(conv.weight.shape)) == (32, (256, 8, 3, 3))
    assert conv.conv_offset.weight.shape == (27, 256, 3, 3)


def test_stages_may_be_chosen() -> None:
    found = kinds(ResNetConfig(spatial_conv=DeformConv2dConfig(), spatial_stages=(1, 4)))
    assert [found[f"layer{n}"] for n in (1, 2, 3, 4)] == [{DeformConv2d}, {nn.Conv2d}, {nn.Conv2d}, {DeformConv2d}]


def test_standardised_everywhere_the_stem_too() -> None:
    config = ResNetConfig(conv=WSConv2dConfig(), norm=GroupNormConfig())
    found = kinds(config)
    assert found == {key: {WSConv2d} for key in ("", "layer1", "layer2", "layer3", "layer4")}
    with torch.device("meta"):
        assert isinstance(config.build().conv1, WSConv2d)


def test_spatial_convolutions_of_their_own_beside_standardised_ones() -> None:
    found = kinds(ResNetConfig(conv=WSConv2dConfig(), spatial_conv=DeformConv2dConfig(), spatial_stages=(4,)))
    assert found == {"": {WSConv2d}, **{f"layer{n}": {WSConv2d} for n in (1, 2, 3)}, "layer4": {DeformConv2d}}
    assert kinds(ResNetConfig(conv=WSConv2dConfig(), spatial_conv=Conv2dConfig()))["layer3"] == {nn.Conv2d}


def test_the_backbones_initialisation_leaves_the_offsets_at_zero() -> None:
    module = ResNetConfig(depth=18, spatial_conv=DeformConv2dConfig(modulated=True)).build()
    offsets = [part for part in module.modules() if isinstance(part, OffsetConv)]
    assert len(offsets) == 12
    assert all((p == 0).all() for part in offsets for p in part.parameters())
    convs = [part for part in module.modules() if isinstance(part, DeformConv2d)]
    for conv in convs:  # the convolutions themselves are random as all others: by the fan out
        assert conv.weight.std().item() == pytest.approx((2 / (conv.weight.shape[0] * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(depth=18, conv=WSConv2dConfig(), norm=GroupNormConfig(), frozen_stages=-1),
        ResNetConfig(depth=18, spatial_conv=DeformConv2dConfig(modulated=True), stages=(2, 3), norm=GroupNormConfig()),
    ],
    ids=["standardised", "deformable"],
)
def test_the_contract_of_a_backbone(config) -> None:
    contract_checks.check_backbone(config)


@pytest.mark.parametrize("modulated", [False, True])
def test_imagenet_weights_leave_the_offsets_fresh(tmp_path: Path, modulated: bool) -> None:
    """A plain model's file fills a deformable backbone, by `pretrained` and by import; its offsets begin at 0."""
    state = resnet18(num_classes=7).state_dict()
    file = tmp_path / "resnet18.pth"
    torch.save(state, file)
    config = ResNetConfig(depth=18, spatial_conv=DeformConv2dConfig(modulated=modulated), pretrained=str(file))
    backbone = config.build()
    backbone.load_initial_weights()
    recipe = load_recipe("faster-rcnn/r18-fpn-demo").detector
    detector = evolve(recipe, backbone=config).build(num_classes=1)
    values, _ = import_backbone(state, source="torchvision", detector=detector)
    for module in (backbone, detector.backbone):
        filled = module.state_dict()
        assert torch.equal(filled["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"])
        assert torch.equal(filled["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
        assert not filled["layer2.0.conv1.conv_offset.weight"].any()
    assert not [key for key in values if "conv_offset" in key]
    spoiled = {k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}
    torch.save(spoiled, file)
    with pytest.raises(WeightsError, match=r"missing: layer2\.0\.conv1\.weight"):
        config.build().load_initial_weights()
