"""timm's networks as backbones: contracts, sizes, options, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import det_plugin_timm
from det_core.engine.parameter_groups import build_optimizer, treatments
from det_core.errors import ConfigError
from det_core.optim.optimizer_config import AdamWConfig
from det_core.settings import evolve
from det_core.testing import contract_checks
from det_plugin_timm.config import TimmConfig
from det_plugin_timm.networks import create_network
from det_plugin_timm.simple_pyramid import ChannelNorm, SimplePyramid

IMAGE = (1, 3, 70, 101)  # sides that no stride divides
RESNET, CONVNEXT, VIT = "resnet18d", "convnext_atto", "vit_tiny_patch16_dinov3_qkvb"
SWIN = "swin_tiny_patch4_window7_224"


def test_the_plugin_keeps_its_contracts() -> None:
    contract_checks.check_plugin("timm", build=False)


@pytest.mark.parametrize(
    "config",
    [
        TimmConfig(name=RESNET),
        TimmConfig(name=RESNET, strides=(2, 8), frozen_stages=0, frozen_statistics=False),
        TimmConfig(name=CONVNEXT, out_norm="layer_norm", checkpointing=True),
        TimmConfig(name="mobilenetv3_small_050", in_channels=2),
        TimmConfig(name=SWIN, strides=(4, 8), out_norm="layer_norm", checkpointing=True),
        TimmConfig(name=VIT),
        TimmConfig(name=VIT, strides=(8, 16), checkpointing=True, frozen_stages=3),
        TimmConfig(name="poolformer_s12", strides=(4, 8)),
    ],
    ids=lambda config: f"{config.name}-{config.strides}",
)
def test_the_contract_of_backbones(config: TimmConfig) -> None:
    contract_checks.check_backbone(config)


@pytest.mark.parametrize(
    "name", [RESNET, CONVNEXT, SWIN, VIT, "efficientnet_b0", "vit_small_patch14_dinov2", "mobilevitv2_050"]
)
def test_maps_of_images_whose_sides_no_stride_divides(name: str) -> None:
    config = TimmConfig(name=name)
    backbone = config.build().eval()
    with torch.no_grad():
        maps = backbone(torch.randn(*IMAGE))
    assert backbone.out == config.feature_spec()
    for x, channels, stride in zip(maps, backbone.out.channels, backbone.out.strides, strict=True):
        assert tuple(x.shape) == (1, channels, -(-70 // stride), -(-101 // stride))


@pytest.mark.parametrize("name", [RESNET, CONVNEXT, "pvt_v2_b0"])
def test_the_maps_are_timm_s(name: str) -> None:
    """Those of `features_only`, also of some strides only, whose later layers are not built."""
    torch.manual_seed(0)
    theirs = create_network(name, features_only=True).eval()
    whole = create_network(name).state_dict()
    state = {key if key in whole else key.replace("_", ".", 1): v for key, v in theirs.state_dict().items()}
    for strides in (None, (8, 16)):
        backbone = TimmConfig(name=name, strides=strides).build().eval()
        backbone.body.load_state_dict({**whole, **state}, strict=False)
        x = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            wanted = dict(zip(theirs.feature_info.reduction(), theirs(x), strict=True))
            for stride, found in zip(backbone.out.strides, backbone(x), strict=True):
                torch.testing.assert_close(found, wanted[stride])
    assert len(list(backbone.parameters())) < len(list(theirs.parameters()))


def test_the_maps_of_a_vit_are_those_of_its_last_norm() -> None:
    """Stride 16 is the map itself, and the others come from it."""
    backbone = TimmConfig(name=VIT).build().eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(x)
        tokens = backbone.body.forward_features(x)[:, backbone.body.num_prefix_tokens :]
    plain = tokens.transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(maps[2], plain)
    torch.testing.assert_close(maps[3], nn.functional.max_pool2d(plain, 2))
    assert backbone.pyramid is not None
    torch.testing.assert_close(maps[1], backbone.pyramid.levels[1](plain))


def test_the_layers_of_the_simple_pyramid() -> None:
    """ViTDet, section 3: two deconvolutions with a norm and GELU between, one, none, and a pooling."""
    pyramid = SimplePyramid(8, [0.25, 0.5, 1, 2])
    quarter, half, same, double = pyramid.levels
    assert [type(layer) for layer in quarter] == [nn.ConvTranspose2d, ChannelNorm, nn.GELU, nn.ConvTranspose2d]
    assert isinstance(half, nn.ConvTranspose2d)
    assert isinstance(same, nn.Identity)
    assert isinstance(double, nn.MaxPool2d)
    shapes = [tuple(x.shape) for x in pyramid(torch.randn(1, 8, 4, 6))]
    assert shapes == [(1, 2, 16, 24), (1, 4, 8, 12), (1, 8, 4, 6), (1, 8, 2, 3)]


def test_channel_norm() -> None:
    norm, x = ChannelNorm(5), torch.randn(2, 5, 3, 4)
    nn.init.normal_(norm.weight)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    wanted = (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), wanted)


def test_output_norms_have_the_eps_of_the_network() -> None:
    for name, eps in {SWIN: 1e-5, CONVNEXT: 1e-6}.items():
        backbone = TimmConfig(name=name, out_norm="layer_norm").build()
        assert [norm.eps for norm in backbone.out_norms] == [eps] * 4
        with torch.no_grad():
            maps = backbone.eval()(torch.randn(1, 3, 64, 64))
        for x in maps:
            torch.testing.assert_close(x.mean(1), torch.zeros(x.shape[0], *x.shape[2:]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("frozen", [-1, 0, 2])
def test_frozen_stages_are_frozen_with_their_statistics(frozen: int) -> None:
    backbone = TimmConfig(name=RESNET, frozen_stages=frozen, frozen_statistics=False).build().train()
    stages = [("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",)]
    off = tuple(prefix for stage in stages[: frozen + 1] for prefix in stage)
    for name, parameter in backbone.body.named_parameters():
        assert parameter.requires_grad != name.startswith(off or "none"), name
    for name, module in backbone.body.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training != f"{name}.".startswith(off or "none"), name


def test_frozen_blocks_of_a_vit() -> None:
    backbone = TimmConfig(name=VIT, frozen_stages=2).build()
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert {"body.cls_token", "body.patch_embed.proj.weight", "body.blocks.1.mlp.fc1.weight"} <= frozen
    assert not any(name.startswith(("body.blocks.2.", "pyramid.")) for name in frozen)


def test_statistics_of_batch_norms_are_frozen_by_default() -> None:
    x = torch.randn(2, 3, 64, 64)
    for frozen in (True, False):
        backbone = TimmConfig(name=RESNET, frozen_statistics=frozen).build().train()
        before = backbone.body.bn1.running_mean.clone()
        backbone(x)
        assert torch.equal(before, backbone.body.bn1.running_mean) == frozen
        assert backbone.body.bn1.weight.requires_grad


def test_stochastic_depth() -> None:
    rates = {
        rate: [
            m.drop_prob
            for m in TimmConfig(name=CONVNEXT, drop_path_rate=rate).build().modules()
            if hasattr(m, "drop_prob")
        ]
        for rate in (0.0, 0.4)
    }
    assert rates[0.0] == []
    assert rates[0.4] == sorted(rates[0.4])
    assert max(rates[0.4]) == pytest.approx(0.4)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        backbone = TimmConfig(name=CONVNEXT, checkpointing=on).build().train()
        sum(x.square().sum() for x in backbone(torch.ones(1, 3, 64, 64))).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.parametrize("name", [CONVNEXT, SWIN, VIT])
def test_exported_programs_give_the_same_maps(name: str) -> None:
    backbone = TimmConfig(name=name).build().eval()
    x = torch.randn(*IMAGE)
    with torch.no_grad():
        program = torch.export.export(backbone, (x,)).module()
        for one, two in zip(backbone(x), program(x), strict=True):
            torch.testing.assert_close(one, two)


class Whole(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Conv2d(2, 1, 1)


@pytest.mark.parametrize(
    ("name", "layers", "first", "last"),
    [
        (CONVNEXT, 13, "body.stem.0.weight", "body.stages.3.blocks.1.gamma"),
        (RESNET, 9, "body.conv1.0.weight", "body.layer4.1.bn2.weight"),
        (SWIN, 13, "body.patch_embed.proj.weight", "body.layers.3.blocks.1.mlp.fc2.weight"),
        (VIT, 13, "body.cls_token", "pyramid.levels.0.0.weight"),
    ],
)
def test_the_learning_rate_decays_from_block_to_block(name: str, layers: int, first: str, last: str) -> None:
    model = Whole(TimmConfig(name=name).build())
    assert len(model.backbone.layers()) == layers
    config = AdamWConfig(layer_decay=0.9)
    how = treatments(config, model)
    assert how["head.weight"].lr_factor == 1
    assert how[f"backbone.{last}"].lr_factor == pytest.approx(0.9)
    assert how[f"backbone.{first}"].lr_factor == pytest.approx(0.9**layers)
    build_optimizer(config, model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": (8, 4)}, r"strides: \[8, 4\] must ascend without repeats"),
        ({"strides": (4, 64)}, "strides: 'resnet18d' has no map of stride 64; its strides are 2, 4, 8, 16, 32"),
        ({"name": VIT, "strides": (2,)}, f"strides: '{VIT}' has no map of stride 2; its strides are 4, 8, 16, 32"),
        (
            {"pretrained": "timm:resnet50d.ra2_in1k"},
            "pretrained: 'timm:resnet50d.ra2_in1k' are weights of 'resnet50d', but the network is 'resnet18d'; use "
            "timm:resnet18d, a file with its weights, or null",
        ),
        ({"out_norm": "batch_norm"}, "out_norm: found 'batch_norm', allowed: none, layer_norm"),
        ({"frozen_stages": -2}, "frozen_stages: found -2, expected at least -1"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"TimmConfig.{message}"):
        TimmConfig(**{"name": RESNET, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            TimmConfig(name=RESNET, frozen_stages=5),
            "frozen_stages: found 5, but timm's 'resnet18d' has 4 stages; use -1 to 4",
        ),
        (
            TimmConfig(name="poolformer_s12", frozen_stages=0),
            "frozen_stages: found 0, but timm does not divide 'poolformer_s12' into stages; use -1",
        ),
        (
            TimmConfig(name="dla46_c", drop_path_rate=0.1),
            "drop_path_rate: 'dla46_c' has no stochastic depth; set it to null",
        ),
        (
            TimmConfig(name="dla46_c", checkpointing=True),
            "checkpointing: 'dla46_c' of timm has no gradient checkpointing; set it to false",
        ),
    ],
)
def test_options_that_a_network_lacks(config: TimmConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.build()


def test_public_names() -> None:
    assert det_plugin_timm.TimmConfig is TimmConfig
    assert evolve(TimmConfig(name=VIT), strides=(16,)).feature_spec().channels == (192,)
    with pytest.raises(AttributeError, match="module 'det_plugin_timm' has no attribute 'ResNet'"):
        _ = det_plugin_timm.ResNet
