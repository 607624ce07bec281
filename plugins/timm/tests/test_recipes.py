"""The recipes, setting by setting as mmdet's; a step of training, and an inference."""

from __future__ import annotations

import pytest
import torch

from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.parameter_groups import treatments
from det_core.engine.predict import to_batch, to_targets
from det_core.load import load_recipe
from det_core.model.detector_config import PreprocessConfig
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import AdamWConfig
from det_core.plugins import plugin_manager
from det_core.settings import evolve
from det_core.specs import FeatureSpec
from det_core.structures import Key
from det_plugin_timm.config import SizedCropConfig, TimmConfig
from det_plugin_timm.recipes import ENTRIES, ROWS, layer_of_convnext

DEMO = "faster-rcnn/convnext-zepto-fpn-demo"
PUBLISHED = {
    "faster-rcnn/swin-t-fpn-1x": (None, None),
    "mask-rcnn/swin-t-fpn-1x": (42.7, 39.3),
    "mask-rcnn/swin-t-fpn-ms-crop-3x": (46.0, 41.6),
    "faster-rcnn/convnext-t-fpn-ms-crop-3x": (None, None),
    "mask-rcnn/convnext-t-fpn-ms-crop-3x": (46.2, 41.7),
}


def test_every_published_row_and_no_other() -> None:
    found = {row.name: (row.published.box_ap, row.published.mask_ap) for row in ROWS}
    assert found == PUBLISHED
    assert [entry.name for entry in ENTRIES] == [*PUBLISHED, DEMO]
    assert [entry.name for entry in ENTRIES if entry.default] == ["mask-rcnn/swin-t-fpn-1x"]
    assert [entry.name for entry in ENTRIES if entry.demo] == [DEMO]
    for name, figures in PUBLISHED.items():
        published = plugin_manager().recipe_entry(name).published
        assert published is not None
        assert published.note == ("" if figures[0] else "no figures were published")


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_recipes_share(name: str) -> None:
    recipe = load_recipe(name)
    detector = recipe.detector
    assert detector.preprocess == PreprocessConfig()
    assert detector.feature_spec() == FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64))
    assert detector.backbone.feature_spec().channels == (96, 192, 384, 768)
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert isinstance(optimizer, AdamWConfig)
    assert (optimizer.lr, optimizer.lr_batch, optimizer.weight_decay) == (1e-4, 16, 0.05)
    assert (optimizer.betas, optimizer.norm_weight_decay) == ((0.9, 0.999), 0.0)
    assert (schedule.warmup_steps, schedule.warmup_factor) == (1000, 0.001)
    assert schedule.precision == ("fp16" if "convnext" in name else "fp32")
    long = name.endswith("3x")
    milestones = (27, 33) if long else (8, 11)
    assert (schedule.epochs, schedule.learning_rate) == (36 if long else 12, StepRateConfig(milestones=milestones))
    resize = ResizeConfig(scales=tuple((1333, edge) for edge in range(480, 801, 32)))
    crops = (FlipConfig(), SizedCropConfig(), resize)
    assert recipe.data.train_transforms == (crops if long else (ResizeConfig(), FlipConfig()))
    assert recipe.data.test_transforms == (ResizeConfig(),)
    assert recipe.detector.needs_masks() == name.startswith("mask")


def test_the_networks() -> None:
    swin = load_recipe("mask-rcnn/swin-t-fpn-1x").detector.backbone
    convnext = load_recipe("mask-rcnn/convnext-t-fpn-ms-crop-3x").detector.backbone
    assert isinstance(swin, TimmConfig)
    assert isinstance(convnext, TimmConfig)
    assert (swin.drop_path_rate, convnext.drop_path_rate) == (0.2, 0.4)
    assert (swin.out_norm, convnext.out_norm) == ("layer_norm", "layer_norm")
    assert swin.pretrained == "timm:swin_tiny_patch4_window7_224.ms_in1k"
    assert convnext.pretrained == "timm:convnext_tiny.fb_in1k"


def test_the_groups_of_swin_are_mmdet_s() -> None:
    """No weight decay of norms, output norms included, nor of position biases; everything else is trained alike."""
    recipe = load_recipe("mask-rcnn/swin-t-fpn-1x")
    how = treatments(recipe.optimizer, recipe.detector.build(num_classes=3))
    assert {each.lr_factor for each in how.values()} == {1.0}
    for name, each in how.items():
        undecayed = "norm" in name or name.endswith("relative_position_bias_table")
        assert each.weight_decay == (0.0 if undecayed else 0.05), name


def test_the_groups_of_convnext_are_mmdet_s() -> None:
    recipe = load_recipe("mask-rcnn/convnext-t-fpn-ms-crop-3x")
    detector = recipe.detector.build(num_classes=3)
    how = treatments(recipe.optimizer, detector)
    shapes = {name: parameter.dim() for name, parameter in detector.named_parameters()}
    for name, each in how.items():
        flat = shapes[name] == 1 or name.endswith(".bias")
        assert each.weight_decay == (0.0 if flat else 0.05), name
    layers = {
        "backbone.body.stem.0.weight": 0,
        "backbone.body.stages.0.blocks.2.gamma": 1,
        "backbone.body.stages.1.downsample.1.weight": 2,
        "backbone.body.stages.1.blocks.0.conv_dw.weight": 2,
        "backbone.body.stages.2.downsample.0.bias": 3,
        "backbone.body.stages.2.blocks.2.norm.weight": 3,
        "backbone.body.stages.2.blocks.3.mlp.fc1.weight": 4,
        "backbone.body.stages.2.blocks.8.mlp.fc1.weight": 5,
        "backbone.body.stages.3.downsample.1.weight": 6,
        "backbone.body.stages.3.blocks.2.mlp.fc2.bias": 6,
        "backbone.out_norms.0.weight": 7,
    }
    for name, layer in layers.items():
        assert how[name].lr_factor == pytest.approx(0.95 ** (7 - layer)), name
    assert {each.lr_factor for name, each in how.items() if not name.startswith("backbone.body.")} == {1.0}
    assert all(each.lr_factor < 1 for name, each in how.items() if name.startswith("backbone.body."))


def test_layers_of_convnext() -> None:
    assert [layer_of_convnext(2, block) for block in range(9)] == [3, 3, 3, 4, 4, 4, 5, 5, 5]


@pytest.mark.parametrize("name", ["mask-rcnn/swin-t-fpn-1x", DEMO])
def test_a_step_of_training_and_an_inference(name: str) -> None:
    """On the bundled sample; every parameter that trains gets a finite gradient."""
    torch.manual_seed(0)
    recipe, sample = load_recipe(name), load_recipe(DEMO)
    detector = recipe.detector.build(num_classes=1).train()
    data = sample.open_train() if name == DEMO else sample.open_split("train", masks=True)
    resize = evolve(ResizeConfig(), scales=((128, 96),)).build()
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
