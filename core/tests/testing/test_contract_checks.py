"""The contract checks: good parts pass, and each way of breaking a contract is found and named."""

from __future__ import annotations

import sys
from typing import ClassVar

import pytest
import torch
from attrs import define, evolve
from torch import Tensor, nn

from det_core.contracts import Backbone, BoxHead, BoxOutputs, DenseHead, Loss, MaskHead, Neck, RoIHead
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.offers import RecipeEntry
from det_core.settings import Component, setting
from det_core.slots import (
    BackboneConfig,
    BoxHeadConfig,
    DenseHeadConfig,
    LossConfig,
    MaskHeadConfig,
    NeckConfig,
    RoIHeadConfig,
)
from det_core.specs import FeatureSpec, RegionSpec
from det_core.structures import Detections, LossTerm
from det_core.testing import contract_checks
from det_core.testing.isolated_plugins import isolated_manager, make_plugin, stub_config

pytestmark = pytest.mark.usefixtures("own_parts")


@stub_config
class TinyBackboneConfig(BackboneConfig):
    """One convolution; `broken` names what is wrong with it."""

    type: ClassVar[str] = "tiny"

    broken: str = setting("what is broken", default="")

    def feature_spec(self) -> FeatureSpec:
        if self.broken == "order":
            return FeatureSpec(channels=(8, 8), strides=(8, 4))
        return FeatureSpec(channels=(9 if self.broken == "spec" else 8,), strides=(4,))

    def build(self) -> Backbone:
        return TinyBackbone(self)


class TinyBackbone(Backbone):
    def __init__(self, config: TinyBackboneConfig) -> None:
        super().__init__()
        self.broken = config.broken
        self.out = FeatureSpec(channels=(8,), strides=(4,)) if config.broken == "spec" else config.feature_spec()
        self.conv = nn.Conv2d(3, 8, 3, stride=2 if config.broken == "shape" else 4, padding=1)
        self.unused = nn.Linear(2, 2) if config.broken == "unused" else None
        self.scale = torch.rand(()) if config.broken == "unsaved" else 1.0

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.conv(images) * self.scale
        if self.broken == "infinite":
            x = (x * 0).sqrt() + x
        if self.broken == "half":
            assert not torch.is_autocast_enabled("cpu"), "no autocast here"
        if self.broken == "order":
            return [x[:, :, ::2, ::2], x]
        return [x]


@stub_config
class TinyNeckConfig(NeckConfig):
    """One convolution."""

    type: ClassVar[str] = "tiny"

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        return FeatureSpec(channels=(8,), strides=inputs.strides[:1])

    def build(self, inputs: FeatureSpec) -> Neck:
        return TinyNeck(self, inputs)


class TinyNeck(Neck):
    def __init__(self, config: TinyNeckConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.out = config.feature_spec(inputs)
        self.conv = nn.Conv2d(inputs.channels[0], 8, 1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [self.conv(features[0])]


@stub_config
class TinyBoxHeadConfig(BoxHeadConfig):
    """Two linear layers; `broken` names what is wrong with it."""

    type: ClassVar[str] = "tiny"

    broken: str = setting("what is broken", default="")
    class_agnostic: bool = setting("one box for all classes", default=False)

    def build(self, inputs: RegionSpec, num_classes: int) -> BoxHead:
        return TinyBoxHead(self, inputs, num_classes)


class TinyBoxHead(BoxHead):
    def __init__(self, config: TinyBoxHeadConfig, inputs: RegionSpec, num_classes: int) -> None:
        super().__init__()
        self.broken, self.num_classes, self.class_agnostic = config.broken, num_classes, config.class_agnostic
        background = 0 if config.broken == "background" else 1
        self.scores = nn.Linear(inputs.channels, num_classes + background)
        self.deltas = nn.Linear(inputs.channels, 4 if config.class_agnostic else 4 * num_classes)
        if config.broken == "more weights":
            self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(num_classes))
        if config.broken == "count":
            self.num_classes = 7

    def class_dependent(self) -> tuple[str, ...]:
        if self.broken == "undeclared":
            return ("scores",)
        if self.broken == "overdeclared":
            return ("scores", "deltas")
        return ("scores",) if self.class_agnostic else ("scores", "deltas")

    def forward(self, regions: Tensor) -> BoxOutputs:
        x = regions.mean((2, 3))
        if self.broken == "tuple":
            return (self.scores(x), self.deltas(x))
        if self.broken == "empty" and len(x) == 0:
            scores = x.new_zeros(0, self.num_classes + 1)
            return BoxOutputs(scores, self.deltas(x))
        return BoxOutputs(self.scores(x), self.deltas(x))


@stub_config
class TinyMaskHeadConfig(MaskHeadConfig):
    """One convolution."""

    type: ClassVar[str] = "tiny"

    wrong_size: bool = setting("what is broken", default=False)

    def build(self, inputs: RegionSpec, num_classes: int) -> MaskHead:
        return TinyMaskHead(self, inputs, num_classes)


class TinyMaskHead(MaskHead):
    def __init__(self, config: TinyMaskHeadConfig, inputs: RegionSpec, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.size = (14, 14) if config.wrong_size else inputs.size
        self.masks = nn.Conv2d(inputs.channels, num_classes, 1)

    def class_dependent(self) -> tuple[str, ...]:
        return ("masks",)

    def forward(self, regions: Tensor) -> Tensor:
        return self.masks(regions)


def found(batch, boxes=None, scores=None, labels=None) -> list[Detections]:
    one = Detections(
        boxes=torch.tensor([[1.0, 2.0, 30.0, 40.0], [5.0, 5.0, 20.0, 20.0]]) if boxes is None else boxes,
        scores=torch.tensor([0.9, 0.8]) if scores is None else scores,
        labels=torch.tensor([0, 2]) if labels is None else labels,
    )
    return [one] * len(batch)


BROKEN_DETECTIONS = {
    "outside": {"boxes": torch.tensor([[1.0, 2.0, 3000.0, 40.0], [5.0, 5.0, 20.0, 20.0]])},
    "order of scores": {"scores": torch.tensor([0.1, 0.8])},
    "labels": {"labels": torch.tensor([0, 9])},
    "type of labels": {"labels": torch.tensor([0, 1], dtype=torch.int32)},
    "half": {"boxes": torch.zeros(2, 4, dtype=torch.float16)},
}


@stub_config
class TinyDenseHeadConfig(DenseHeadConfig):
    """One convolution; `broken` names what is wrong with it."""

    type: ClassVar[str] = "tiny"

    broken: str = setting("what is broken", default="")

    def build(self, features: FeatureSpec, num_classes: int) -> DenseHead:
        return TinyDenseHead(self, features, num_classes)


class TinyDenseHead(DenseHead):
    def __init__(self, config: TinyDenseHeadConfig, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.broken = config.broken
        self.scores = nn.Conv2d(features.channels[0], num_classes, 1)

    def class_dependent(self) -> tuple[str, ...]:
        return ("scores",)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.scores(features[0])

    def losses(self, outputs, targets, batch):
        objects = sum(len(t) for t in targets)
        total = outputs.float().square().sum()
        if self.broken == "number":
            return {"cls": total}
        if self.broken == "nothing":
            return {}
        if self.broken == "not finite" and objects == 0:
            total = total / 0
        if self.broken == "no gradient" and objects == 0:
            total = torch.zeros(())
        if self.broken == "shape":
            total = total[None]
        return {"cls": LossTerm(total, float(objects))}

    def predict(self, outputs, batch):
        return found(batch, **BROKEN_DETECTIONS.get(self.broken, {}))


@stub_config
class TinyRoIHeadConfig(RoIHeadConfig):
    """RoIAlign and one linear layer."""

    type: ClassVar[str] = "tiny"

    fails_empty: bool = setting("what is broken", default=False)

    def build(self, features: FeatureSpec, num_classes: int) -> RoIHead:
        return TinyRoIHead(self, features, num_classes)


class TinyRoIHead(RoIHead):
    def __init__(self, config: TinyRoIHeadConfig, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.fails_empty = config.fails_empty
        self.scores = nn.Linear(features.channels[0], num_classes)

    def class_dependent(self) -> tuple[str, ...]:
        return ("scores",)

    def losses(self, features, proposals, targets, batch):
        return {"cls": LossTerm(self.scores(features[0].mean((2, 3))).float().square().sum(), 2.0)}

    def predict(self, features, proposals, batch):
        if self.fails_empty:
            torch.stack([p[0] for p in proposals])
        return found(batch)


@stub_config
class TinyLossConfig(LossConfig):
    """A loss."""

    type: ClassVar[str] = "tiny"

    def build(self) -> Loss:
        return TinyLoss(self.weight)


class TinyLoss(Loss):
    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).square()


@stub_config
class TinyUnregisteredConfig(LossConfig):
    """A loss."""

    type: ClassVar[str] = "unregistered"


PARTS = make_plugin(
    "parts",
    det_backbones=lambda: [TinyBackboneConfig],
    det_necks=lambda: [TinyNeckConfig],
    det_heads=lambda: [TinyBoxHeadConfig, TinyMaskHeadConfig, TinyDenseHeadConfig, TinyRoIHeadConfig],
    det_losses=lambda: [TinyLossConfig],
    det_layers=lambda: [RoIAlignConfig, GroupNormConfig],
)


@pytest.mark.parametrize(
    "config",
    [
        TinyBackboneConfig(),
        TinyNeckConfig(),
        TinyBoxHeadConfig(),
        TinyBoxHeadConfig(class_agnostic=True),
        TinyMaskHeadConfig(),
        TinyDenseHeadConfig(),
        TinyRoIHeadConfig(),
        TinyLossConfig(),
        RoIAlignConfig(),
    ],
)
def test_good_parts_pass(config):
    contract_checks.check_component(config)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("spec", r"backbone 'tiny': the configuration gives .*\(9,\).*, but the module's `out` is .*\(8,\)"),
        ("shape", r"backbone 'tiny': feature shapes is \[\(2, 8, 48, 64\)\], expected \[\(2, 8, 24, 32\)\]"),
        ("order", r"strides \(8, 4\) are not finest first"),
        ("unused", r"gives no gradient to unused.weight, unused.bias"),
        ("infinite", r"gives a gradient that is not finite to conv.weight, conv.bias"),
        ("half", r"no autocast here"),
        ("unsaved", r"the outputs differ after saving and loading its weights"),
    ],
)
def test_broken_backbones_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_backbone(TinyBackboneConfig(broken=broken))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("background", r"box_head 'tiny': scores of 4 regions is \(4, 3\), expected \(4, 4\)"),
        ("count", r"num_classes is 7, expected 3"),
        ("tuple", r"forward gives tuple, not BoxOutputs"),
        ("undeclared", r"class_dependent\(\) lacks deltas.bias, deltas.weight"),
        ("empty", r"an empty input gives no gradient to scores.weight, scores.bias"),
        ("more weights", r"the names of the weights depend on the class count"),
    ],
)
def test_broken_box_heads_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_box_head(TinyBoxHeadConfig(broken=broken))


def test_a_layer_that_does_not_hang_on_the_classes_must_not_be_declared():
    config = TinyBoxHeadConfig(class_agnostic=True, broken="overdeclared")
    with pytest.raises(
        AssertionError, match=r"names deltas.bias, deltas.weight, which do not depend on the class count"
    ):
        contract_checks.check_box_head(config)


def test_a_mask_head_of_another_size_is_found():
    with pytest.raises(AssertionError, match=r"masks of 4 regions is \(4, 3, 7, 7\), expected \(4, 3, 14, 14\)"):
        contract_checks.check_mask_head(TinyMaskHeadConfig(wrong_size=True))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("number", r"dense_head 'tiny': loss 'cls' is Tensor, not LossTerm"),
        ("nothing", r"no losses on a batch with objects"),
        ("not finite", r"loss 'cls' on a batch without objects: not finite"),
        ("no gradient", r"a batch without objects gives no gradient to any parameter"),
        ("shape", r"shape of loss 'cls' is \(1,\), expected \(\)"),
        ("outside", r"boxes outside the original image of size \(192, 256\)"),
        ("order of scores", r"detections are not best first"),
        ("labels", r"labels outside 0\.\.2"),
        ("type of labels", r"type of labels is torch.int32, expected torch.int64"),
        ("half", r"boxes in half precision"),
    ],
)
def test_broken_dense_heads_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_dense_head(TinyDenseHeadConfig(broken=broken))


def test_a_roi_head_that_cannot_do_without_proposals_is_found():
    with pytest.raises(IndexError):
        contract_checks.check_roi_head(TinyRoIHeadConfig(fails_empty=True))


def test_a_roi_head_that_cannot_train_without_proposals_is_found(monkeypatch):
    losses = TinyRoIHead.losses

    def of_first_proposals(self, features, proposals, targets, batch):
        assert all(len(p) for p in proposals), "no proposals"
        return losses(self, features, proposals, targets, batch)

    monkeypatch.setattr(TinyRoIHead, "losses", of_first_proposals)
    with pytest.raises(AssertionError, match="no proposals"):
        contract_checks.check_roi_head(TinyRoIHeadConfig())


@pytest.mark.parametrize("name", ["needs_masks", "needs_semantic"])
def test_a_roi_head_and_its_configuration_agree_about_what_it_needs(monkeypatch, name):
    monkeypatch.setattr(TinyRoIHead, name, True)
    with pytest.raises(AssertionError, match=f"roi_head 'tiny': {name} is True, expected False"):
        contract_checks.check_roi_head(TinyRoIHeadConfig())


def test_targets_of_a_batch_without_objects_are_unlabelled_throughout():
    batch = contract_checks.make_batch()
    for targets in (contract_checks.make_targets(batch, 2), contract_checks.make_targets(batch, 2, empty=True)):
        for target, info in zip(targets, batch.infos, strict=True):
            assert target.semantic is not None
            assert target.semantic.shape == info.size
            assert set(target.semantic.unique().tolist()) == ({0, 255} if len(target) else {255})


def test_a_configuration_that_can_be_changed_is_found():
    @define(kw_only=True, slots=False)
    class Loose(TinyLossConfig):
        type: ClassVar[str] = "loose"
        a: int = 0

        __setattr__ = object.__setattr__

    with (
        isolated_manager(make_plugin("loose", det_losses=lambda: [Loose])),
        pytest.raises(AssertionError, match="loss 'loose' can be changed"),
    ):
        contract_checks.check_config(Loose())


def test_a_module_that_imports_torch_is_found(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(AssertionError, match=r"importing det_core.model.layers imports numpy and torch; import what"):
        contract_checks.check_import_light("det_core.model.layers")
    with pytest.raises(AssertionError, match="no_such_module_here cannot be imported on its own"):
        contract_checks.check_import_light("no_such_module_here")
    contract_checks.check_import_light("det_core.model.layer_config")
    assert "torch" in sys.modules


def test_a_part_without_a_package_may_stand_beside_torch(monkeypatch):
    monkeypatch.undo()
    with isolated_manager() as manager:
        with pytest.raises(AssertionError, match="imports numpy and torch|cannot be imported on its own"):
            contract_checks.check_config(TinyUnregisteredConfig())
        manager.register(TinyUnregisteredConfig, "here.py")
        contract_checks.check_config(TinyUnregisteredConfig())


def test_the_whole_of_core_passes(monkeypatch):
    monkeypatch.undo()
    from det_core.plugins import PluginManager, use_manager

    before = use_manager(PluginManager())
    try:
        contract_checks.check_plugin("core")
        with pytest.raises(AssertionError, match=r"plugin 'nowhere' is not installed in this environment; install it"):
            contract_checks.check_plugin("nowhere")
    finally:
        use_manager(before)


def test_a_failed_plugin_is_found():
    def fails() -> list[type[Component]]:
        raise ValueError("no")

    with (
        isolated_manager(make_plugin("sick", det_heads=fails)),
        pytest.raises(AssertionError, match=r"plugin 'sick' failed: det_heads: ValueError: no"),
    ):
        contract_checks.check_plugin("sick")


def test_a_plugin_without_an_entry_point_is_found():
    with (
        isolated_manager(make_plugin("floating")),
        pytest.raises(AssertionError, match="plugin 'floating' has no entry point in the group det_core.plugins"),
    ):
        contract_checks.check_plugin("floating")


@stub_config
class Undocumented(LossConfig):
    """A loss."""

    type: ClassVar[str] = "undocumented"

    power: float = 2.0


@stub_config
class Silent(LossConfig):
    type: ClassVar[str] = "silent"


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Undocumented, "Undocumented: fields without a doc: power; declare them with"),
        (Silent, "Silent has no docstring; `recipes schema` shows its first paragraph"),
    ],
)
def test_undocumented_configurations_are_found(cls, message, monkeypatch):
    monkeypatch.setattr(contract_checks, "_entry_module", lambda state: "det_core.hooks")
    with (
        isolated_manager(make_plugin("quiet", det_losses=lambda: [cls])),
        pytest.raises(AssertionError, match=message),
    ):
        contract_checks.check_plugin("quiet")


def test_recipes_that_are_not_what_their_entries_say_are_found(monkeypatch):
    from det_core.data.data_config import SampleConfig
    from det_core.model.detector_config import DetectorConfig
    from det_core.recipe import DataConfig, EvaluationConfig, Published, Recipe

    monkeypatch.setattr(contract_checks, "check_round_trip", lambda config: None)
    recipe = Recipe(
        name="a/b",
        detector=DetectorConfig(backbone=TinyBackboneConfig(), dense_head=TinyDenseHeadConfig()),
        data=DataConfig(train=SampleConfig(split="train"), val=SampleConfig(split="val")),
        evaluation=EvaluationConfig(evaluators=()),  # type: ignore[arg-type]
    )
    entry = RecipeEntry(name="a/b", make=lambda: recipe)
    contract_checks._check_recipes([entry])
    for wrong, message in (
        (evolve(entry, name="a/c"), r"recipe 'a/c': make\(\) names it 'a/b'"),
        (evolve(entry, make=lambda: None), r"make\(\) gives NoneType, not a Recipe"),
        (evolve(entry, published=Published(box_ap=1.0)), "`published` differs from its entry's"),
    ):
        with pytest.raises(AssertionError, match=message):
            contract_checks._check_recipes([wrong])
    two = [evolve(entry, demo=True)] * 2
    with pytest.raises(AssertionError, match="several recipes are marked demo: a/b, a/b; mark one"):
        contract_checks._check_recipes(two)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = (nn.Parameter(torch.tensor([2.0])) for _ in range(2))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)


def test_check_backward_returns_the_values():
    module = Two()
    terms = {"a": LossTerm(module.used.sum() * 6, 4), "b": LossTerm(module.unused.sum(), 1)}
    assert contract_checks.check_backward(module, terms) == {"a": 3.0, "b": 2.0}


def test_check_backward_finds_gradients_that_are_missing_or_not_finite():
    module = Two()
    with pytest.raises(AssertionError, match="Two: a training step gives no gradient to unused"):
        contract_checks.check_backward(module, {"a": LossTerm(module.used.sum(), 1)})
    terms = {"a": LossTerm((module.used - 2).sqrt().sum() + module.unused.sum(), 1)}
    with pytest.raises(AssertionError, match="Two: a training step gives a gradient that is not finite to used"):
        contract_checks.check_backward(module, terms)
    with pytest.raises(AssertionError, match="Two: loss 'a': not finite"):
        contract_checks.check_backward(module, {"a": LossTerm(module.used.sum().log() * float("inf"), 1)})
