"""The zoo entries, figure by figure and setting by setting, and a step of training with every layer."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
from attrs import evolve

from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.errors import PluginError
from det_core.load import load_recipe
from det_core.model.detector import Detector
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig, GroupNormConfig, RoIAlignConfig
from det_core.plugins import plugin_manager
from det_core.recipe import Published, Recipe
from det_core.slots import ConvConfig, NormConfig
from det_core.structures import Key
from det_core.testing import contract_checks
from det_plugin_fpn.config import FPNConfig
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, DeformRoIPoolConfig, WSConv2dConfig
from det_plugin_gn_ws_dcn.convolution import DeformConv2d, OffsetConv, WSConv2d
from det_plugin_gn_ws_dcn.recipes import ENTRIES
from det_plugin_gn_ws_dcn.roi_pool import DeformRoIPool
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

CASES = Path(__file__).parents[3] / "tests" / "parity" / "cases"

DEMO = "faster-rcnn/r18-fpn-gn-ws-mdconv-demo"
# (box AP, mask AP, GB, s/iter, images/s) of the 2019 zoo, and (box AP, mask AP, GB) of its modern re-runs.
PUBLISHED = {
    "mask-rcnn/r50-fpn-gn-2x": ((39.8, 36.1, 7.2, 0.806, 5.4), (40.2, 36.4, 7.1)),
    "mask-rcnn/r50-fpn-gn-3x": ((40.1, 36.4, 7.2, 0.806, 5.4), (40.5, 36.7, 7.1)),
    "mask-rcnn/r101-fpn-gn-2x": ((41.5, 37.0, 9.9, 0.97, 4.8), (41.9, 37.6, 9.9)),
    "mask-rcnn/r101-fpn-gn-3x": ((41.6, 37.3, 9.9, 0.97, 4.8), (42.1, 38.0, 9.9)),
    "mask-rcnn/r50-fpn-gn-contrib-2x": ((39.7, 35.9, 7.2, 0.806, 5.4), (40.0, 36.1, 7.1)),
    "mask-rcnn/r50-fpn-gn-contrib-3x": ((40.0, 36.2, 7.2, 0.806, 5.4), (40.1, 36.2, 7.1)),
    "faster-rcnn/r50-fpn-gn-ws-1x": ((38.9, None, None, None, None), (39.7, None, 5.9)),
    "faster-rcnn/r101-fpn-gn-ws-1x": ((41.4, None, None, None, None), (41.7, None, 8.9)),
    "faster-rcnn/x50-32x4d-fpn-gn-ws-1x": ((39.9, None, None, None, None), (40.7, None, 7.0)),
    "faster-rcnn/x101-32x4d-fpn-gn-ws-1x": ((41.8, None, None, None, None), (42.1, None, 10.8)),
    "mask-rcnn/r50-fpn-gn-ws-2x": ((40.3, 36.2, None, None, None), (40.6, 36.6, 7.3)),
    "mask-rcnn/r101-fpn-gn-ws-2x": ((42.0, 37.3, None, None, None), (42.0, 37.7, 10.3)),
    "mask-rcnn/x50-32x4d-fpn-gn-ws-2x": ((40.7, 36.7, None, None, None), (41.1, 37.0, 8.4)),
    "mask-rcnn/x101-32x4d-fpn-gn-ws-2x": ((42.1, 37.7, None, None, None), (42.1, 37.9, 12.2)),
    "mask-rcnn/r50-fpn-gn-ws-20-23-24e": ((41.1, 37.0, None, None, None), (41.1, 37.1, 7.3)),
    "mask-rcnn/r101-fpn-gn-ws-20-23-24e": ((43.0, 38.4, None, None, None), (43.1, 38.6, 10.3)),
    "mask-rcnn/x50-32x4d-fpn-gn-ws-20-23-24e": ((41.9, 37.7, None, None, None), (42.1, 38.0, 8.4)),
    "mask-rcnn/x101-32x4d-fpn-gn-ws-20-23-24e": ((43.4, 38.7, None, None, None), (42.7, 38.5, 12.2)),
    "faster-rcnn/r50-fpn-dconv-c3-c5-1x": ((40.0, None, 3.9, 0.594, 10.2), (41.3, None, 4.0)),
    "faster-rcnn/r50-fpn-mdconv-c3-c5-1x": ((40.2, None, 3.7, 0.598, 10.0), (41.4, None, 4.1)),
    "faster-rcnn/r50-fpn-mdconv-group4-c3-c5-1x": ((40.4, None, 3.9, 0.35, 11.4), (41.5, None, 4.2)),
    "faster-rcnn/r50-fpn-dpool-1x": ((37.8, None, 4.6, 0.714, 8.7), (38.9, None, 5.0)),
    "faster-rcnn/r50-fpn-mdpool-1x": ((38.0, None, 5.2, 0.769, 8.2), (38.7, None, 5.8)),
    "faster-rcnn/r101-fpn-dconv-c3-c5-1x": ((42.1, None, 5.8, 0.811, 8.0), (42.7, None, 6.0)),
    "faster-rcnn/x101-32x4d-fpn-dconv-c3-c5-1x": ((43.4, None, 7.1, 1.126, 6.6), (44.5, None, 7.3)),
    "mask-rcnn/r50-fpn-dconv-c3-c5-1x": ((41.1, 37.2, 4.5, 0.712, 7.7), (41.8, 37.4, 4.5)),
    "mask-rcnn/r50-fpn-mdconv-c3-c5-1x": ((41.3, 37.3, 4.5, 0.712, 7.7), (41.5, 37.1, 4.5)),
    "mask-rcnn/r101-fpn-dconv-c3-c5-1x": ((43.2, 38.7, 6.4, 0.939, 6.5), (43.5, 38.9, 6.5)),
    "cascade-rcnn/r50-fpn-dconv-c3-c5-1x": ((44.0, None, 4.4, 0.66, 7.6), (43.8, None, 4.5)),
    "cascade-rcnn/r101-fpn-dconv-c3-c5-1x": ((45.0, None, 6.3, 0.881, 6.8), (45.0, None, 6.4)),
    "cascade-mask-rcnn/r50-fpn-dconv-c3-c5-1x": ((44.4, 38.3, 6.6, 0.942, 5.7), (44.4, 38.6, 6.0)),
    "cascade-mask-rcnn/r101-fpn-dconv-c3-c5-1x": ((45.7, 39.4, 8.5, 1.156, 5.1), (45.8, 39.7, 8.0)),
    "cascade-mask-rcnn/x101-32x4d-fpn-dconv-c3-c5-1x": ((None, None, None, None, None), (47.3, 41.1, 9.2)),
    "htc/x101-64x4d-fpn-dconv-c3-c5-ms-20e": ((50.7, 43.9, None, None, None), (50.4, 43.8, None)),
}
GROUP_NORM = [name for name in PUBLISHED if "-gn-" in name]
DEFORMABLE = [name for name in PUBLISHED if "conv-" in name and "-gn-" not in name]
POOLED = [name for name in PUBLISHED if "pool-" in name]
NETWORKS = {"r50": (50, 1, 64), "r101": (101, 1, 64), "x50-32x4d": (50, 32, 4), "x101-32x4d": (101, 32, 4),
            "x101-64x4d": (101, 64, 4)}  # fmt: skip
DETECTRON_MEAN = (102.9801, 115.9465, 122.7717)


def backbone_of(recipe: Recipe) -> ResNetConfig:
    assert isinstance(recipe.detector.backbone, ResNetConfig)
    return recipe.detector.backbone


def head_of(recipe: Recipe) -> RCNNHeadConfig:
    assert isinstance(recipe.detector.roi_head, RCNNHeadConfig)
    return recipe.detector.roi_head


def split(name: str) -> tuple[str, str, str]:
    """`mask-rcnn/r50-fpn-gn-2x` to model, network and what comes after the neck."""
    model, _, rest = name.partition("/")
    network, _, rest = rest.partition("-fpn-")
    return model, network, rest


def test_the_plugin_keeps_its_contracts() -> None:
    contract_checks.check_plugin("gn_ws_dcn", build=False)


def test_every_published_row_and_no_other() -> None:
    assert len(PUBLISHED) == 34
    assert (len(GROUP_NORM), len(DEFORMABLE), len(POOLED)) == (18, 14, 2)
    assert {entry.name for entry in ENTRIES if not entry.weights_of} == {*PUBLISHED, DEMO}
    assert set(PUBLISHED) <= set(plugin_manager().recipes())
    assert [entry.name for entry in ENTRIES if entry.default] == ["faster-rcnn/r50-fpn-mdconv-c3-c5-1x"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    (box, mask, memory, seconds, fps), (modern_box, modern_mask, modern_memory) = PUBLISHED[name]
    assert load_recipe(name).published == Published(
        box_ap=box,
        mask_ap=mask,
        memory_gb=memory,
        train_s_per_iter=seconds,
        inference_fps=fps,
        modern_box_ap=modern_box,
        modern_mask_ap=modern_mask,
        modern_memory_gb=modern_memory,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_backbone_schedule_and_data(name: str) -> None:
    recipe, (model, network, rest) = load_recipe(name), split(name)
    backbone = backbone_of(recipe)
    assert (backbone.depth, backbone.groups, backbone.base_width) == NETWORKS[network]
    assert (backbone.style, backbone.frozen_stages, backbone.stages) == ("pytorch", 1, (1, 2, 3, 4))
    schedule = "20-23-24e" if rest.endswith("20-23-24e") else rest.rpartition("-")[2]
    expected = {
        "1x": (12, (8, 11)), "20e": (20, (16, 19)), "2x": (24, (16, 22)), "20-23-24e": (24, (20, 23)),
        "3x": (36, (28, 34)),
    }[schedule]  # fmt: skip
    assert (recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == expected
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch) == (0.02, 16)
    scales = ((1600, 400), (1600, 1400)) if "-ms-" in rest else ((1333, 800),)
    resize = recipe.data.train_transforms[0]
    assert isinstance(resize, ResizeConfig)
    assert (resize.scales, resize.mode == "range") == (scales, "-ms-" in rest)
    assert recipe.data.train_transforms[1:] == (FlipConfig(),)
    assert recipe.data.test_transforms == (ResizeConfig(scales=((1333, 800),)),)
    if model in ("faster-rcnn", "mask-rcnn"):
        assert (head_of(recipe).mask_head is not None) == (model == "mask-rcnn")


@pytest.mark.parametrize("name", GROUP_NORM)
def test_group_norm_everywhere_but_in_fully_connected_layers_and_the_rpn(name: str) -> None:
    recipe, (model, network, rest) = load_recipe(name), split(name)
    standardised, contributed = rest.startswith("gn-ws"), rest.startswith("gn-contrib")
    norm: NormConfig = GroupNormConfig(groups=32)
    conv: ConvConfig = WSConv2dConfig(eps=1e-5) if standardised else Conv2dConfig()
    backbone, head = backbone_of(recipe), head_of(recipe)
    assert (backbone.norm, backbone.conv, backbone.spatial_conv) == (norm, conv, None)
    assert recipe.detector.neck == FPNConfig(norm=norm, conv=conv)
    assert head.box_head == FCBoxHeadConfig(
        num_convs=4, conv_channels=256, num_fcs=1, fc_channels=1024, norm=norm, conv=conv
    )
    if model == "mask-rcnn":
        assert head.mask_head == ConvMaskHeadConfig(num_convs=4, channels=256, norm=norm, conv=conv)
    plain = load_recipe(f"{model}/r50-fpn-1x")
    assert isinstance(recipe.detector.dense_head, RPNConfig)
    assert recipe.detector.dense_head == plain.detector.dense_head
    assert (head.roi_pool, head.mask_roi_pool) == (head_of(plain).roi_pool, head_of(plain).mask_roi_pool)
    preprocess = recipe.detector.preprocess
    if standardised or contributed:
        assert preprocess == plain.detector.preprocess
        assert preprocess.order == "rgb"
    else:
        assert (preprocess.order, preprocess.mean, preprocess.std) == ("bgr", DETECTRON_MEAN, (1.0, 1.0, 1.0))
    source = "jhu/" if standardised else "contrib/" if contributed else "detectron/"
    resnet = network.replace("r50", "resnet50").replace("r101", "resnet101").replace("-", "_")
    resnet = resnet.replace("x50", "resnext50").replace("x101", "resnext101")
    assert backbone.pretrained == f"mmdet:{source}{resnet}_gn{'_ws' if standardised else ''}"


@pytest.mark.parametrize("name", DEFORMABLE)
def test_deformable_convolution_in_the_stages_of_c3_to_c5_and_nothing_else(name: str) -> None:
    recipe, (model, network, rest) = load_recipe(name), split(name)
    backbone = backbone_of(recipe)
    groups = 4 if "group4" in rest else 1
    assert backbone.spatial_conv == DeformConv2dConfig(modulated=rest.startswith("md"), offset_groups=groups)
    assert backbone.spatial_stages == (2, 3, 4)
    assert backbone.conv == Conv2dConfig()
    assert isinstance(backbone.norm, BatchNormConfig)
    plain = load_recipe(f"{model}/{network}-fpn-{rest.rpartition('-')[2]}")
    assert evolve(backbone, spatial_conv=None) == plain.detector.backbone
    assert evolve(recipe.detector, backbone=plain.detector.backbone) == plain.detector


@pytest.mark.parametrize("name", POOLED)
def test_deformable_pooling_and_nothing_else(name: str) -> None:
    recipe, plain = load_recipe(name), load_recipe("faster-rcnn/r50-fpn-1x")
    head = head_of(recipe)
    assert head.roi_pool == DeformRoIPoolConfig(
        size=7, strides=(4, 8, 16, 32), modulated="mdpool" in name, fc_channels=1024, gamma=0.1
    )
    assert isinstance(head_of(plain).roi_pool, RoIAlignConfig)
    assert evolve(head, roi_pool=head_of(plain).roi_pool) == plain.detector.roi_head
    assert evolve(recipe.detector, roi_head=plain.detector.roi_head) == plain.detector


# other plugins


def test_what_the_recipes_of_other_models_want() -> None:
    wanted = {
        "cascade-rcnn": ("det-plugin-cascade",),
        "cascade-mask-rcnn": ("det-plugin-cascade",),
        "htc": ("det-plugin-htc",),
    }
    for entry in ENTRIES:
        assert entry.requires == wanted.get(entry.name.partition("/")[0], ())


@pytest.mark.parametrize(
    ("name", "missing", "folder"),
    [
        ("cascade-rcnn/r50-fpn-dconv-c3-c5-1x", "det-plugin-cascade", "plugins/cascade"),
        ("htc/x101-64x4d-fpn-dconv-c3-c5-ms-20e", "det-plugin-htc", "plugins/htc"),
    ],
)
def test_a_recipe_whose_plugin_is_missing_says_what_to_install(name, missing, folder, monkeypatch) -> None:
    version = importlib.metadata.version

    def without(distribution: str) -> str:
        if distribution == missing:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return version(distribution)

    plugin_manager()
    monkeypatch.setattr(importlib.metadata, "version", without)
    with pytest.raises(PluginError, match=f"recipe '{name}' requires packages .*{missing}: pip install ./{folder} "):
        load_recipe(name)


# models


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("mask_rcnn_r50_fpn_gn_all", "mask-rcnn/r50-fpn-gn-2x"),
        ("mask_rcnn_r50_fpn_gn_ws_all", "mask-rcnn/r50-fpn-gn-ws-2x"),
        ("faster_rcnn_r50_dconv_c3_c5_fpn", "faster-rcnn/r50-fpn-dconv-c3-c5-1x"),
        ("faster_rcnn_r50_mdconv_c3_c5_fpn", "faster-rcnn/r50-fpn-mdconv-c3-c5-1x"),
    ],
)
def test_parameters_of_the_backbone_are_the_reference_s(case: str, name: str) -> None:
    weights = json.loads((CASES / f"{case}.json").read_text())["weights"]
    theirs = [tuple(w["shape"]) for key, w in weights.items() if key.startswith("backbone.")]
    with torch.device("meta"):
        ours = load_recipe(name).detector.backbone.build().state_dict()
    assert sorted(tuple(value.shape) for value in ours.values()) == sorted(theirs)


def test_the_demo_is_that_of_faster_rcnn_with_all_kinds_of_layers() -> None:
    recipe, plain = load_recipe(DEMO), load_recipe("faster-rcnn/r18-fpn-demo")
    assert [entry.name for entry in ENTRIES if entry.demo] == [DEMO]
    assert evolve(recipe, name=plain.name, detector=plain.detector) == plain
    detector = recipe.detector.build(num_classes=1)
    kinds = {type(module) for module in detector.modules()}
    assert {WSConv2d, DeformConv2d, torch.nn.GroupNorm} <= kinds
    assert {type(m) for m in detector.neck.modules()} >= {WSConv2d}  # type: ignore[union-attr]


NORM = GroupNormConfig(groups=16)
LAYERS = {
    "group norm": (Conv2dConfig(), None, None),
    "standardised": (WSConv2dConfig(), None, None),
    "deformable": (Conv2dConfig(), DeformConv2dConfig(), None),
    "modulated": (Conv2dConfig(), DeformConv2dConfig(modulated=True), None),
    "modulated in groups": (Conv2dConfig(), DeformConv2dConfig(modulated=True, offset_groups=4), None),
    "pooling": (Conv2dConfig(), None, DeformRoIPoolConfig(fc_channels=32)),
    "modulated pooling": (Conv2dConfig(), None, DeformRoIPoolConfig(fc_channels=32, modulated=True)),
}


def small(layers: str) -> tuple[Recipe, Detector]:
    """Faster R-CNN's demo with these layers, on small images."""
    conv, spatial, pool = LAYERS[layers]
    recipe = load_recipe("faster-rcnn/r18-fpn-demo")
    config, head = recipe.detector, head_of(recipe)
    config = evolve(
        config,
        backbone=evolve(backbone_of(recipe), conv=conv, spatial_conv=spatial),
        neck=FPNConfig(channels=64, norm=NORM, conv=conv),
        roi_head=evolve(
            head,
            box_head=FCBoxHeadConfig(num_convs=1, conv_channels=32, num_fcs=1, fc_channels=64, norm=NORM, conv=conv),
            roi_pool=pool or head.roi_pool,
        ),
    )
    torch.manual_seed(0)
    return recipe, config.build(num_classes=1)


@pytest.mark.parametrize("layers", LAYERS)
def test_a_step_of_training(layers: str) -> None:
    """Every parameter has a gradient, and a step down it lowers the loss."""
    recipe, detector = small(layers)
    data = recipe.open_train()
    transforms = [ResizeConfig(scales=((128, 128),)).build()]
    loaded = [prepare(data.load(i), transforms, Key(index=i)) for i in range(2)]
    batch = to_batch(detector, loaded)
    targets = to_targets(batch, loaded)

    def total() -> torch.Tensor:
        terms = detector.train().losses(batch, targets)
        assert set(terms) == {"rpn_cls", "rpn_box", "roi_cls", "roi_box"}
        return sum((term.value() for term in terms.values()), torch.zeros(()))

    first = total()
    first.backward()
    named = dict(detector.named_parameters())
    assert [name for name, p in named.items() if p.grad is None] == []
    conv, spatial, pool = LAYERS[layers]
    kinds = {type(part) for part in detector.modules()}
    assert (WSConv2d in kinds) == isinstance(conv, WSConv2dConfig)
    assert (DeformConv2d in kinds) == (OffsetConv in kinds) == (spatial is not None)
    assert (DeformRoIPool in kinds) == (pool is not None)
    size = torch.stack([p.grad.norm() for p in named.values() if p.grad is not None]).norm()
    assert size.isfinite()
    with torch.no_grad():
        for p in named.values():
            assert p.grad is not None
            p -= 0.02 * p.grad / size
        assert total() < first.detach()
