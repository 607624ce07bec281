"""ResNet: torchvision's names and numbers, the stages handed on, the two styles, and what does not train."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from det_core.errors import ConfigError
from det_core.model.layer_config import BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig
from det_core.specs import FeatureSpec
from det_core.testing import contract_checks
from det_core.weights.translate_names import translate
from det_plugin_resnet.backbone import ResNet
from det_plugin_resnet.blocks import BasicBlock, Bottleneck
from det_plugin_resnet.config import ResNetConfig

TINY = ResNetConfig(depth=18, frozen_stages=-1)


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def with_prefixes(module: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in module.named_parameters() if name.startswith(prefixes)}


@pytest.fixture(scope="module", params=[18, 50])
def theirs(request) -> nn.Module:
    """torchvision's ResNet with random weights and statistics, in eval."""
    torch.manual_seed(request.param)
    model = getattr(torchvision.models, f"resnet{request.param}")().eval()
    model.depth = request.param
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return model


def stages_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    maps = []
    for number in range(1, 5):
        x = getattr(model, f"layer{number}")(x)
        maps.append(x)
    return maps


def test_names_and_shapes_are_torchvisions(theirs):
    ours = ResNetConfig(depth=theirs.depth).build().state_dict()
    expected = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.items()} == expected
    assert list(ours) == list(expected)


def test_outputs_are_torchvisions(theirs):
    ours = ResNetConfig(depth=theirs.depth).build().eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    with torch.no_grad():
        found, expected = ours(images()), stages_of(theirs, images())
    assert len(found) == 4
    for x, y in zip(found, expected, strict=True):
        assert torch.allclose(x, y, rtol=1e-4, atol=1e-4 * y.abs().max().item())
        assert x.std() > 0.01


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stages", [(1, 2, 3, 4), (2, 3, 4), (3,), (1, 3)])
def test_what_is_stated_is_what_comes_out(depth, stages):
    config = ResNetConfig(depth=depth, stages=stages)
    module = config.build()
    spec = config.feature_spec()
    assert module.out == spec
    widths = {1: 64, 2: 128, 3: 256, 4: 512}
    assert spec.channels == tuple(widths[s] * (4 if depth == 50 else 1) for s in stages)
    assert spec.strides == tuple({1: 4, 2: 8, 3: 16, 4: 32}[s] for s in stages)
    with torch.no_grad():
        found = module(images())
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(spec.channels, spec.strides, strict=True)]
    assert [tuple(x.shape) for x in found] == expected
    assert hasattr(module, f"layer{max(stages)}")
    assert not hasattr(module, f"layer{max(stages) + 1}")


def test_a_subset_of_stages_hands_on_the_same_maps():
    torch.manual_seed(0)
    whole = TINY.build().eval()
    part = ResNetConfig(depth=18, stages=(2, 3)).build().eval()
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("layer4")})
    with torch.no_grad():
        assert all(torch.equal(x, y) for x, y in zip(part(images()), whole(images())[1:3], strict=True))


def test_sizes_that_no_stride_divides_are_rounded_up():
    with torch.no_grad():
        found = TINY.build()(images(65, 97))
    assert [tuple(x.shape[2:]) for x in found] == [(17, 25), (9, 13), (5, 7), (3, 4)]


@pytest.mark.parametrize(("depth", "blocks"), [(34, 16), (101, 33), (152, 50)])
def test_the_other_depths_have_torchvisions_names(depth, blocks):
    with torch.device("meta"):
        ours = ResNetConfig(depth=depth).build()
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    assert {*ours.state_dict()} == {k for k in theirs.state_dict() if not k.startswith("fc.")}
    assert sum(isinstance(m, BasicBlock | Bottleneck) for m in ours.modules()) == blocks


def strides(config: ResNetConfig) -> list[tuple[int, int, int]]:
    """Of conv1, conv2 and the shortcut of the first bottleneck of each stage."""
    module = config.build()
    first = [module.stage(n)[0] for n in range(1, 5)]
    return [(b.conv1.stride[0], b.conv2.stride[0], b.downsample[0].stride[0]) for b in first]


def test_pytorch_style_strides_on_the_3x3_and_caffe_style_on_the_1x1():
    assert strides(ResNetConfig(style="pytorch")) == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)]
    assert strides(ResNetConfig(style="caffe")) == [(1, 1, 1), (2, 1, 2), (2, 1, 2), (2, 1, 2)]


def test_only_the_first_block_of_a_stage_strides_and_has_a_shortcut():
    module = ResNetConfig().build()
    for number in range(1, 5):
        for block in list(module.stage(number))[1:]:
            assert block.downsample is None
            assert block.conv1.stride == block.conv2.stride == (1, 1)
    assert TINY.build().layer1[0].downsample is None  # 64 channels before and after


# freezing


@pytest.mark.parametrize(
    ("frozen_stages", "prefixes"),
    [
        (-1, ()),
        (0, ("conv1.", "bn1.")),
        (1, ("conv1.", "bn1.", "layer1.")),
        (3, ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")),
        (4, ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")),
    ],
)
def test_frozen_stages_do_not_train(frozen_stages, prefixes):
    module = ResNetConfig(depth=18, frozen_stages=frozen_stages, norm=BatchNormConfig()).build().train()
    everything = {name for name, _ in module.named_parameters()}
    frozen = with_prefixes(module, *prefixes) if prefixes else set()
    assert trained(module) == everything - frozen
    modes = {name: m.training for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes == {name: not (prefixes and f"{name}.".startswith(prefixes)) for name in modes}


def test_frozen_stages_stay_in_eval_after_going_to_eval_and_back():
    module = ResNetConfig(depth=18, frozen_stages=1, norm=BatchNormConfig()).build()
    module.eval()
    assert module.train() is module
    before = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
    module(images())
    changed = {k for k, v in module.state_dict().items() if "running" in k and not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.startswith(("layer2.", "layer3.", "layer4."))}


def test_freezing_more_stages_than_there_are_freezes_all():
    module = ResNetConfig(depth=18, stages=(1,), frozen_stages=4).build()
    assert trained(module) == set()


def test_gradients_reach_what_trains_and_nothing_else():
    module = ResNetConfig(depth=18).build().train()
    sum(x.sum() for x in module(images())).backward()
    assert {name for name, p in module.named_parameters() if p.grad is not None} == trained(module)
    assert "layer2.0.bn1.weight" in trained(module)
    assert "layer1.0.conv1.weight" not in trained(module)


def test_by_default_no_statistics_move():
    module = ResNetConfig(depth=18, frozen_stages=-1).build().train()
    before = {k: v.clone() for k, v in module.named_buffers()}
    module(images())
    assert all(torch.equal(v, before[k]) for k, v in module.named_buffers())


def test_frozen_batch_norm_trains_convolutions_alone():
    module = ResNetConfig(depth=18, frozen_stages=1, norm=FrozenBatchNormConfig()).build()
    names = trained(module)
    assert names
    assert not any(".bn" in name or "downsample.1" in name for name in names)
    assert all(name.startswith(("layer2.", "layer3.", "layer4.")) for name in names)


# norms and initialisation


def test_group_norm_takes_the_place_of_every_batch_norm():
    module = ResNetConfig(depth=18, norm=GroupNormConfig(groups=16)).build()
    norms = [m for m in module.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert {m.num_groups for m in norms} == {16}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    assert [x.shape[1] for x in module(images())] == [64, 128, 256, 512]
    names = {k for k in torchvision.models.resnet18().state_dict() if not k.startswith("fc.")}
    assert set(module.state_dict()) == {k for k in names if "running" not in k and "num_batches" not in k}


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="48 groups do not divide 64 channels"):
        ResNetConfig(depth=18, norm=GroupNormConfig(groups=48)).build()


@pytest.mark.parametrize(("depth", "last"), [(18, "bn2"), (50, "bn3")])
@pytest.mark.parametrize("norm", [BatchNormConfig(), GroupNormConfig()])
def test_residual_branches_begin_at_zero(depth, last, norm):
    module = ResNetConfig(depth=depth, norm=norm).build()
    for name, p in module.named_parameters():
        if "bn" in name and name.endswith("weight"):
            assert (p == (0 if f".{last}." in name else 1)).all(), name
    other = ResNetConfig(depth=depth, norm=norm, zero_init_residual=False).build()
    assert all((p == 1).all() for name, p in other.named_parameters() if "bn" in name and name.endswith("weight"))


def test_a_block_whose_branch_is_zero_hands_on_its_input():
    block = TINY.build().eval().layer1[0]
    x = images()[:, :1].expand(-1, 64, -1, -1).relu()
    assert torch.equal(block(x), x)


def test_convolutions_are_kaiming_by_the_fan_out():
    module = ResNetConfig(depth=50).build()
    weight = module.layer4[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert module.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


def test_initial_weights_come_from_a_file_with_torchvisions_names(tmp_path):
    torch.manual_seed(3)
    saved = torchvision.models.resnet18().state_dict()
    torch.save(saved, tmp_path / "resnet18.pth")
    module = ResNetConfig(depth=18, pretrained=str(tmp_path / "resnet18.pth")).build()
    assert not torch.equal(module.conv1.weight, saved["conv1.weight"])  # building reads nothing
    module.load_initial_weights()
    assert all(torch.equal(v, saved[k]) for k, v in module.state_dict().items())
    assert "conv1.weight" not in trained(module)


@pytest.mark.parametrize("channels", [1, 4])
def test_initial_weights_for_other_channels(tmp_path, caplog, channels):
    """Gray images give what they gave as RGB; the rest of the weights is as in the file."""
    torch.manual_seed(3)
    saved = torchvision.models.resnet18().state_dict()
    torch.save(saved, tmp_path / "resnet18.pth")
    module = ResNetConfig(depth=18, in_channels=channels, pretrained=str(tmp_path / "resnet18.pth")).build()
    module.load_initial_weights()
    assert all(torch.equal(v, saved[k]) for k, v in module.state_dict().items() if k != "conv1.weight")
    gray = torch.randn(1, 1, 16, 16)
    theirs = torch.nn.functional.conv2d(gray.expand(-1, 3, -1, -1), saved["conv1.weight"])
    ours = torch.nn.functional.conv2d(gray.expand(-1, channels, -1, -1), module.conv1.weight)
    torch.testing.assert_close(ours, theirs)
    words = f"conv1.weight is the mean over RGB for {channels} channel"
    assert [words in record.message for record in caplog.records] == [True]


def test_without_initial_weights_nothing_is_loaded():
    module = TINY.build()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_initial_weights()
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


# configuration


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": (3, 2)}, r"^ResNetConfig: stages \[3, 2\] must ascend without repeats$"),
        ({"stages": (2, 2)}, r"^ResNetConfig: stages \[2, 2\] must ascend without repeats$"),
        ({"stages": ()}, r"stages: found \d values, expected at least 1"),
        ({"stages": (0, 1)}, r"stages\S*: found .+, allowed: "),
        ({"stages": (4, 5)}, r"stages\S*: found .+, allowed: "),
        ({"frozen_stages": -2}, r"frozen_stages\S*: found .+, expected .*at least -1"),
        ({"frozen_stages": 5}, r"frozen_stages\S*: found .+, expected .*at most 4"),
        ({"depth": 42}, r"depth\S*: found .+, allowed: "),
        ({"style": "Caffe"}, r"style\S*: found .+, allowed: "),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ResNetConfig(**settings)


@pytest.mark.parametrize(
    "config", [TINY, ResNetConfig(depth=18, stages=(2, 4), norm=GroupNormConfig())], ids=["bn", "gn"]
)
def test_the_contract_of_a_backbone(config):
    contract_checks.check_backbone(config)


def test_the_public_names():
    import det_plugin_resnet

    assert det_plugin_resnet.ResNet is ResNet
    assert det_plugin_resnet.ResNetConfig is ResNetConfig
    assert ResNetConfig().feature_spec() == FeatureSpec(channels=(256, 512, 1024, 2048), strides=(4, 8, 16, 32))
    with pytest.raises(AttributeError, match="module 'det_plugin_resnet' has no attribute 'VGG'"):
        _ = det_plugin_resnet.VGG


def test_mmdets_names_are_torchvisions():
    for key in TINY.build().state_dict():
        assert translate("mmdet", TINY, key) == key


def test_a_dilated_last_stage_keeps_the_stride_of_the_one_before():
    """DC5: its 3x3 convolutions reach as far as they would at half the size."""
    config = ResNetConfig(depth=50, stages=(3, 4), dilated=True)
    assert config.feature_spec() == FeatureSpec(channels=(1024, 2048), strides=(16, 16))
    backbone = config.build().eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[-2:]) for x in maps] == [(4, 6), (4, 6)]
    assert [(b.conv2.dilation, b.conv2.padding, b.conv2.stride) for b in backbone.layer4] == [
        ((2, 2), (2, 2), (1, 1))
    ] * 3
    plain = ResNetConfig(depth=50, stages=(3, 4)).build()
    assert {k: v.shape for k, v in backbone.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_without_a_last_stage_nothing_can_be_dilated():
    with pytest.raises(ConfigError, match=r"dilated: requires the last stage, but stages are \[3\]; add stage 4"):
        ResNetConfig(stages=(3,), dilated=True)
