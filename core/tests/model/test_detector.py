"""The detector that composes every model, from parts made here by hand, without configurations or plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn

from det_core.contracts import Backbone, DenseHead, Neck, ProposalHead, RoIHead
from det_core.data.data_config import ResizeConfig
from det_core.errors import DetError
from det_core.model.detector import Detector, Preprocess
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.model.memory_layout import to_channels_last
from det_core.model.postprocess import to_original
from det_core.slots import BackboneConfig, DenseHeadConfig
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import Batch, Classes, Detections, ImageInfo, LossTerm, Targets
from det_core.testing.isolated_plugins import stub_config


class Shrink(Backbone):
    """Means of 4 x 4 cells, scaled."""

    out = FeatureSpec(channels=(3,), strides=(4,))

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.loaded = False

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.gain * nn.functional.avg_pool2d(images, 4)]

    def load_initial_weights(self) -> None:
        self.loaded = True


class Double(Neck):
    out = FeatureSpec(channels=(3,), strides=(4,))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [2 * x for x in features]


class Dense(DenseHead):
    """One detection per image, all of it; a class layer and a shared one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 4, 1)
        self.score = nn.Conv2d(4, num_classes, 1)
        self.targets: Sequence[Targets] = ()

    def class_dependent(self) -> tuple[str, ...]:
        return ("score",)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.score(self.shared(features[0]))

    def losses(self, outputs: object, targets: Sequence[Targets], batch: Batch) -> Mapping[str, LossTerm]:
        self.targets = targets
        assert isinstance(outputs, Tensor)
        return {"dense": LossTerm(outputs.sum(), 1.0)}

    def predict(self, outputs: object, batch: Batch) -> list[Detections]:
        assert isinstance(outputs, Tensor)
        assert not outputs.requires_grad
        return [whole_image(info) for info in batch.infos]


class Proposer(Dense, ProposalHead):
    """Proposes one box whose width is the limit, so that a test sees which limits it was asked for."""

    train_limits = ProposalLimits(after_nms=7)
    test_limits = ProposalLimits(after_nms=5)

    def proposals(self, outputs: object, batch: Batch, limits: ProposalLimits) -> list[Tensor]:
        return [torch.tensor([[0.0, 0.0, float(limits.after_nms), 1.0]]) for _ in batch.infos]


class Second(RoIHead):
    """Detects exactly what is proposed."""

    needs_masks = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(3, num_classes + 1), nn.Linear(3, 4)])
        self.seen: Sequence[Tensor] = ()
        self.targets: Sequence[Targets] = ()

    def class_dependent(self) -> tuple[str, ...]:
        return ("inner.0",)

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Mapping[str, LossTerm]:
        self.seen, self.targets = proposals, targets
        return {"second": LossTerm(self.inner[0](features[0].mean((0, 2, 3))).sum(), 2.0)}

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        self.seen = proposals
        return [
            Detections(boxes=to_original(p, info), scores=torch.ones(len(p)), labels=torch.zeros(len(p)).long())
            for p, info in zip(proposals, batch.infos, strict=True)
        ]


@stub_config
class ShrinkConfig(BackboneConfig):
    type: ClassVar[str] = "shrink"

    def feature_spec(self) -> FeatureSpec:
        return Shrink.out

    def build(self) -> Backbone:
        return Shrink()


@stub_config
class DenseConfig(DenseHeadConfig):
    type: ClassVar[str] = "dense"

    def build(self, features: FeatureSpec, num_classes: int) -> DenseHead:
        return Dense(num_classes)


def whole_image(info: ImageInfo) -> Detections:
    height, width = info.size
    boxes = to_original(torch.tensor([[0.0, 0.0, float(width), float(height)]]), info)
    return Detections(boxes=boxes, scores=torch.ones(1), labels=torch.zeros(1).long())


def detector(
    dense: DenseHead | None = None, second: RoIHead | None = None, neck: Neck | None = None, num_classes: int = 2
) -> Detector:
    torch.manual_seed(0)
    return Detector(
        preprocess=Preprocess(PreprocessConfig()),
        backbone=Shrink(),
        neck=neck,
        dense_head=dense,
        roi_head=second,
        classes=Classes.numbered(num_classes),
    )


def batch(proposals: tuple[Tensor, ...] | None = None) -> Batch:
    """Two images of a non-square padded size, shown at other scales than their own."""
    infos = (
        ImageInfo(size=(16, 24), original_size=(32, 96), scale=(0.5, 0.25)),
        ImageInfo(size=(12, 32), original_size=(6, 16), scale=(2.0, 2.0)),
    )
    images = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    return Batch(images=images, infos=infos, proposals=proposals)


def targets() -> list[Targets]:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [4.0, 4.0, 8.0, 8.0]])
    ignored = (torch.tensor([False, True]), torch.tensor([True, True]))
    return [Targets(boxes=boxes, labels=torch.tensor([0, 1]), ignored=i) for i in ignored]


# preprocess


def test_an_image_is_normalised_per_channel():
    preprocess = Preprocess(PreprocessConfig(mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 5.0), pad_divisor=1))
    image = torch.tensor([11, 22, 33], dtype=torch.uint8)[:, None, None].expand(3, 2, 3)
    found = preprocess([image], [ImageInfo(size=(2, 3), original_size=(2, 3))])
    assert found.images.dtype == torch.float32
    assert found.images[0, :, 0, 0].tolist() == [5.0, 5.0, 6.0]
    assert found.images.shape == (1, 3, 2, 3)


def test_bgr_swaps_the_channels_and_its_mean_is_in_bgr():
    preprocess = Preprocess(PreprocessConfig(order="bgr", mean=(3.0, 2.0, 1.0), std=(1.0, 2.0, 5.0), pad_divisor=1))
    image = torch.tensor([11, 22, 33], dtype=torch.uint8)[:, None, None]  # red, green, blue
    found = preprocess([image], [ImageInfo(size=(1, 1), original_size=(1, 1))])
    assert found.images.flatten().tolist() == [30.0, 10.0, 2.0]


def test_images_fill_the_top_left_corner_and_the_rest_is_zero_after_normalisation():
    preprocess = Preprocess(PreprocessConfig(pad_divisor=8))
    sizes = [(5, 17), (9, 3)]
    images = [torch.full((3, *size), 255, dtype=torch.uint8) for size in sizes]
    infos = [ImageInfo(size=size, original_size=size) for size in sizes]
    found = preprocess(images, infos)
    assert found.images.shape == (2, 3, 16, 24)
    assert found.padded_size == (16, 24)
    assert found.infos == tuple(infos)
    assert len(found) == 2
    for image, (height, width) in zip(found.images, sizes, strict=True):
        inside = torch.zeros(16, 24, dtype=torch.bool)
        inside[:height, :width] = True
        assert torch.equal((image != 0).all(0), inside)
        assert torch.equal((image != 0).any(0), inside)


def test_a_size_that_is_a_multiple_already_is_not_padded():
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    info = ImageInfo(size=(32, 64), original_size=(32, 64))
    assert Preprocess(PreprocessConfig())([image], [info]).padded_size == (32, 64)


def test_proposals_come_along_in_the_precision_of_the_detector():
    preprocess = Preprocess(PreprocessConfig()).double()
    image, info = torch.zeros(3, 8, 8, dtype=torch.uint8), ImageInfo(size=(8, 8), original_size=(8, 8))
    found = preprocess([image], [info], [torch.ones(3, 4)])
    assert found.images.dtype == torch.float64
    assert found.proposals is not None
    assert found.proposals[0].dtype == torch.float64
    assert preprocess([image], [info]).proposals is None


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_all_images_at_once_are_normalised_bit_for_bit_as_one_by_one(order, dtype):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    preprocess = Preprocess(PreprocessConfig(order=order, mean=mean, std=std, pad_divisor=8)).to(dtype)
    sizes = [(5, 17), (9, 3), (16, 24)]
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    infos = [ImageInfo(size=size, original_size=size) for size in sizes]
    given = [torch.rand(2, 4, generator=generator) for _ in sizes]
    expected = preprocess(images, infos, given)
    canvas = preprocess.canvas(images)
    assert canvas.shape == (3, 16, 24, 3)
    found = preprocess.normalised(canvas, infos, given)
    assert torch.equal(found.images, expected.images)
    assert found.images.stride() == expected.images.stride()
    assert found.infos == expected.infos
    assert all(torch.equal(a, b) for a, b in zip(found.proposals, expected.proposals, strict=True))
    assert not torch.signbit(found.images[1, :, 9:]).any()  # padding is 0, not -0


def test_the_normalisation_is_not_saved_with_the_weights():
    assert Preprocess(PreprocessConfig()).state_dict() == {}


# composition


def test_features_go_through_the_neck_where_there_is_one():
    plain, doubled = detector(Dense(2)), detector(Dense(2), neck=Double())
    first, second = plain.features(batch())[0], doubled.features(batch())[0]
    assert first.shape == (2, 3, 4, 8)
    assert torch.equal(2 * first, second)


def test_losses_of_both_heads_are_collected():
    both = detector(Proposer(2), Second(2))
    terms = both.losses(batch(), targets())
    assert list(terms) == ["dense", "second"]
    assert terms["second"].count == 2.0
    assert list(detector(Dense(2)).losses(batch(), targets())) == ["dense"]


def test_ignored_targets_reach_no_head():
    both = detector(Proposer(2), Second(2))
    both.losses(batch(), targets())
    for head in (both.dense_head, both.roi_head):
        assert [len(t) for t in head.targets] == [1, 0]
        assert all(t.ignored is None for t in head.targets)


def test_the_limits_of_proposals_hang_on_the_call_and_not_on_the_mode():
    for training in (True, False):
        both = detector(Proposer(2), Second(2)).train(training)
        both.losses(batch(), targets())
        assert [p.tolist() for p in both.roi_head.seen] == [[[0, 0, 7, 1]]] * 2
        both.predict(batch())
        assert [p.tolist() for p in both.roi_head.seen] == [[[0, 0, 5, 1]]] * 2


def test_a_roi_head_alone_takes_the_proposals_of_the_batch():
    given = (torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.zeros(0, 4))
    alone = detector(second=Second(2))
    alone.losses(batch(given), targets())
    assert alone.roi_head.seen is given
    assert [len(d) for d in alone.predict(batch(given))] == [1, 0]


def test_a_proposal_heads_own_boxes_go_before_those_of_the_batch():
    both = detector(Proposer(2), Second(2))
    both.predict(batch((torch.zeros(9, 4), torch.zeros(9, 4))))
    assert [len(p) for p in both.roi_head.seen] == [1, 1]


def test_predictions_are_in_pixels_of_the_original_image():
    found = detector(Dense(2)).predict(batch())
    assert [d.boxes.tolist() for d in found] == [[[0, 0, 96, 32]], [[0, 0, 16, 6]]]  # x by .25, y by .5; both by 2
    second = detector(Proposer(2), Second(2)).predict(batch())
    assert [d.boxes.tolist() for d in second] == [[[0, 0, 20, 2]], [[0, 0, 2.5, 0.5]]]


def test_forward_gives_losses_where_there_are_targets_and_detections_where_not():
    both = detector(Proposer(2), Second(2))
    losses = both(batch(), targets())
    assert {k: v.total.item() for k, v in losses.items()} == {
        k: v.total.item() for k, v in both.losses(batch(), targets()).items()
    }
    assert losses["dense"].total.requires_grad
    assert [type(d) for d in both(batch())] == [Detections, Detections]


def test_predict_makes_no_graph():
    x = detector(Dense(2))
    assert not any(d.boxes.requires_grad for d in x.predict(batch()))
    assert torch.is_grad_enabled()


def test_needs_masks_is_the_roi_heads():
    assert detector(Proposer(2), Second(2)).needs_masks
    assert not detector(Proposer(2)).needs_masks


def test_needs_semantic_is_the_roi_heads(monkeypatch):
    x = detector(Proposer(2), Second(2))
    assert not x.needs_semantic
    monkeypatch.setattr(Second, "needs_semantic", True)
    assert x.needs_semantic
    assert not detector(Proposer(2)).needs_semantic


def test_initial_weights_are_the_backbones():
    x = detector(Dense(2))
    x.load_initial_weights()
    assert x.backbone.loaded


def test_images_are_resized_by_default_at_test():
    assert detector(Dense(2)).test_transforms == (ResizeConfig(),)


def test_class_dependent_names_exactly_what_changes_with_the_classes():
    few, many = (detector(Proposer(k), Second(k), num_classes=k) for k in (2, 5))
    one, other = few.state_dict(), many.state_dict()
    differing = [key for key in one if one[key].shape != other[key].shape]
    assert few.class_dependent() == differing
    assert differing == [
        "dense_head.score.weight",
        "dense_head.score.bias",
        "roi_head.inner.0.weight",
        "roi_head.inner.0.bias",
    ]


# building


def test_built_from_a_configuration():
    config = DetectorConfig(backbone=ShrinkConfig(), dense_head=DenseConfig())
    built = config.build(num_classes=3)
    assert built.config is config
    assert built.classes == Classes(names=("class 0", "class 1", "class 2"), ids=(1, 2, 3))
    assert built.dense_head.score.out_channels == 3
    assert built.neck is None
    assert built.roi_head is None
    named = config.build(classes=Classes(names=("cat", "dog"), ids=(7, 3)))
    assert named.classes.names == ("cat", "dog")
    assert named.dense_head.score.out_channels == 2


@pytest.mark.parametrize("given", [{}, {"num_classes": 2, "classes": Classes.numbered(2)}])
def test_either_a_number_of_classes_or_the_classes(given):
    config = DetectorConfig(backbone=ShrinkConfig(), dense_head=DenseConfig())
    with pytest.raises(TypeError, match="^give either num_classes or classes$"):
        config.build(**given)


@pytest.mark.parametrize("count", [0, -1])
def test_without_a_class_nothing_is_built(count):
    config = DetectorConfig(backbone=ShrinkConfig(), dense_head=DenseConfig())
    with pytest.raises(ValueError, match=f"^num_classes is {count}; a detector needs at least 1 foreground class$"):
        config.build(num_classes=count)
    with pytest.raises(ValueError, match="^classes are empty; a detector needs at least 1 foreground class$"):
        config.build(classes=Classes(names=(), ids=()))


def test_a_detector_without_a_head_is_refused():
    with pytest.raises(TypeError, match="^a detector needs a dense_head, a roi_head, or both$"):
        detector()


def test_no_roi_head_follows_a_head_that_proposes_nothing():
    with pytest.raises(TypeError, match="^Dense proposes no boxes, so Second cannot follow$"):
        detector(Dense(2), Second(2))


def test_missing_proposals_are_missed_in_training_and_prediction():
    alone = detector(second=Second(2))
    message = (
        "^this detector has a roi_head but no dense_head that proposes boxes, and the batch has no proposals; add a "
        "proposal head .type: rpn. or give the data set a proposals file$"
    )
    with pytest.raises(DetError, match=message):
        alone.losses(batch(), targets())
    with pytest.raises(DetError, match=message):
        alone.predict(batch())


def test_a_batch_is_changed_by_evolving_it():
    given = (torch.ones(1, 4), torch.ones(2, 4))
    assert evolve(batch(), proposals=given).proposals is given


def test_weights_and_maps_are_channels_last():
    """Else every convolution rearranges them, forward and backward. Composing a detector leaves its parts alone."""
    dense = Dense(2)
    dense.shared = nn.Conv2d(3, 4, 3, padding=1)
    weight = dense.shared.weight
    before, values = weight.stride(), weight.detach().clone()
    built = detector(dense)
    assert built.features(batch())[0].is_contiguous(memory_format=torch.channels_last)
    assert weight.stride() == before
    to_channels_last(built)
    assert dense.shared.weight is weight
    assert torch.equal(weight, values)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_parameters_of_other_dimensions_stay_as_they_are():
    dense = Dense(2)
    dense.volume = nn.Conv3d(3, 4, 3)
    before = dense.volume.weight.clone()
    assert torch.equal(detector(dense).dense_head.volume.weight, before)
