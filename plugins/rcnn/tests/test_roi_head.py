"""The second stage: its losses at step 0 and by hand, its detections by hand, and images with nothing in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from det_core.boxes.box_config import MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.contracts import BoxHead, BoxOutputs, MaskHead, Trunk
from det_core.errors import ConfigError, WeightsError
from det_core.model.layer_config import BatchNormConfig, GroupNormConfig, RoIAlignConfig
from det_core.model.loss_config import GIoUConfig
from det_core.slots import TrunkConfig
from det_core.specs import FeatureSpec, RegionSpec
from det_core.structures import Batch, ImageInfo, Key, Targets
from det_core.testing import contract_checks
from det_core.testing.echo_pool import EchoPool
from det_core.testing.isolated_plugins import stub_config
from det_core.weights.translate_names import translate
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig
from det_plugin_rcnn.roi_head import RCNNHead

LN2 = math.log(2)


@pytest.mark.parametrize("num_classes", [3, 80])
def test_losses_at_step_0(tiny, num_classes):
    torch.manual_seed(0)
    head = tiny.mask.build(tiny.levels, num_classes)
    batch = tiny.batch()
    features = [0.1 * x for x in tiny.features(batch)]  # small, so that the fresh heads say next to nothing
    targets = tiny.targets(batch, (3, 2), num_classes)
    corner = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 40
    losses = tiny.backward(head, head.losses(features, [torch.cat([corner, corner + 9], 1)] * 2, targets, batch))
    assert losses["roi_cls"] == pytest.approx(math.log(num_classes + 1), abs=0.02)
    assert losses["roi_mask"] == pytest.approx(LN2, abs=0.02)
    # Of 125 regions the 5 objects' own boxes are the positives, and their deltas are 0 already.
    assert losses["roi_box"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("counts", [(3, 2), (2, 0), (0, 2), (0, 0)])
@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_images_with_and_without_objects_train_every_parameter(tiny, kind, counts):
    detector = tiny.build(tiny.config(kind))
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, counts)))
    assert set(losses) == {"rpn_cls", "rpn_box", "roi_cls", "roi_box"} | ({"roi_mask"} if kind == "mask" else set())
    assert losses["roi_cls"] == pytest.approx(math.log(4), abs=0.5)
    for name in losses.keys() & {"roi_box", "roi_mask"}:
        assert (losses[name] == 0) == (counts == (0, 0))


FORMS = {
    "one box for all classes": {"box_head": FCBoxHeadConfig(fc_channels=16, class_agnostic=True)},
    "four convolutions and a layer, with norms": {
        "box_head": FCBoxHeadConfig(
            num_convs=4, conv_channels=16, num_fcs=1, fc_channels=16, norm=GroupNormConfig(groups=4)
        ),
        "mask_head": ConvMaskHeadConfig(num_convs=4, channels=8, norm=GroupNormConfig(groups=4)),
    },
    "batch norm, also of no regions": {
        "box_head": FCBoxHeadConfig(num_convs=1, conv_channels=16, num_fcs=1, fc_channels=16, norm=BatchNormConfig()),
        "mask_head": ConvMaskHeadConfig(num_convs=1, channels=8, norm=BatchNormConfig()),
    },
    "a loss that compares boxes": {"box_loss": GIoUConfig()},
    "one mask for all classes": {"mask_head": ConvMaskHeadConfig(num_convs=1, channels=8, class_agnostic=True)},
    "masks of the box branch's regions": {"mask_roi_pool": None},
    "without the objects' own boxes": {"add_ground_truth": False},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_trains_and_predicts_with_and_without_objects_and_proposals(tiny, form):
    head = evolve(tiny.mask, **form).build(tiny.levels, 3)
    batch = tiny.batch()
    features = tiny.features(batch)
    near = [t.boxes + 1 for t in tiny.targets(batch, (3, 2))]
    for counts in ((3, 2), (2, 0), (0, 0)):
        targets = tiny.targets(batch, counts)
        tiny.backward(head, head.losses(features, near, targets, batch))
        none = [p[:0] for p in near]
        losses = tiny.backward(head, head.losses(features, none, targets, batch))
        assert losses["roi_cls"] >= 0
    assert head.predict(features, near, batch)[0].masks is not None


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_keeps_the_contract_of_a_roi_head(tiny, form):
    contract_checks.check_roi_head(evolve(tiny.mask, **form))


def test_300_objects(tiny):
    detector = tiny.build(tiny.config("mask"))
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, (300, 0))))
    assert losses["roi_mask"] > 0


def test_300_objects_are_at_most_128_positives_of_512(tiny):
    head = tiny.faster.build(tiny.levels, 3)
    batch = tiny.batch(1)
    target = tiny.targets(batch, (300,))[0]
    corner = torch.rand(900, 2, generator=torch.Generator().manual_seed(0)) * 60
    (found,) = head.stage.sample([torch.cat([corner, corner + 1.5], 1)], [target], batch.infos)
    assert len(found.positive) == 128
    assert len(found.boxes) == len(found.labels) == 512
    assert (found.labels[:128] == target.labels[found.objects]).all()
    assert (found.labels[128:] == 3).all()


@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_of_no_proposals_nothing_is_found(tiny, kind):
    detector = tiny.build(tiny.config(kind)).eval()
    batch = tiny.batch()
    with torch.no_grad():
        features = detector.features(batch)
        for proposals in ([torch.zeros(0, 4)] * 2, [torch.zeros(0, 4), torch.tensor([[4.0, 4.0, 40.0, 40.0]])]):
            found = detector.roi_head.predict(features, proposals, batch)
            assert len(found[0]) == 0
            assert found[0].boxes.shape == (0, 4)
            assert found[0].labels.dtype == torch.int64
            assert (len(found[1]) > 0) == (len(proposals[1]) > 0)
            for detections, info in zip(found, batch.infos, strict=True):
                shape = None if detections.masks is None else tuple(detections.masks.shape)
                assert shape == ((len(detections), *info.original_size) if kind == "mask" else None)


def test_detections_keep_to_their_number_and_to_the_original_image(tiny):
    detector = tiny.build(tiny.config("mask", roi_head=evolve(tiny.mask, max_detections=7))).eval()
    batch = tiny.batch()
    for found, info in zip(detector.predict(batch), batch.infos, strict=True):
        height, width = info.original_size
        assert len(found) == 7
        assert (found.scores.diff() <= 0).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert ((found.labels >= 0) & (found.labels < 3)).all()
        assert found.masks is not None
        assert found.masks.dtype == torch.bool
        assert found.masks.shape == (7, height, width)
        for mask, box in zip(found.masks, found.boxes, strict=True):
            x1, y1, x2, y2 = box.tolist()
            rows, columns = mask.nonzero(as_tuple=True)
            assert ((rows + 0.5 >= y1) & (rows + 0.5 <= y2)).all()
            assert ((columns + 0.5 >= x1) & (columns + 0.5 <= x2)).all()


class Calls(TorchDispatchMode):
    """Counts the operators of torch that are called in this context."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_many_detections_take_no_more_calls_than_few(tiny):
    """From the image to the codes of an evaluation."""
    counted = []
    for limit in (2, 90):
        config = evolve(tiny.mask, max_detections=limit, score_threshold=0.0, nms_threshold=1.0)
        detector = tiny.build(tiny.config("mask", roi_head=config)).eval()
        with torch.no_grad(), Calls() as calls:
            found = [d.to("cpu") for d in detector.predict(tiny.batch())]
            codes = [f.mask_codes() for f in found]
        assert [len(f) for f in found] == [len(c) for c in codes] == [limit] * len(found)
        counted.append(calls.count)
    assert counted[0] == counted[1]


def test_a_score_threshold_of_1_leaves_nothing(tiny):
    detector = tiny.build(tiny.config("mask", roi_head=evolve(tiny.mask, score_threshold=1.0))).eval()
    for found, info in zip(detector.predict(tiny.batch()), tiny.batch().infos, strict=True):
        assert len(found) == 0
        assert found.masks.shape == (0, *info.original_size)


def test_under_autocast_losses_and_detections_are_float32(tiny):
    head = tiny.mask.build(tiny.levels, 3)
    batch = tiny.batch()
    targets = tiny.targets(batch, (2, 1))
    proposals = [t.boxes + 1 for t in targets]
    with torch.autocast("cpu", torch.bfloat16):
        terms = head.losses(tiny.features(batch), proposals, targets, batch)
        with torch.no_grad():
            found = head.predict(tiny.features(batch), proposals, batch)
    assert {t.total.dtype for t in terms.values()} == {torch.float32}
    assert {d.boxes.dtype for d in found} == {d.scores.dtype for d in found} == {torch.float32}


# by hand, with parts that say what they are told to


class FixedBoxes(BoxHead):
    """Background everywhere, but where x1 is as listed: those scores and deltas."""

    def __init__(self, rows: dict[float, tuple[list[float], list[float]]], num_classes: int, agnostic: bool) -> None:
        super().__init__()
        self.rows, self.num_classes, self.class_agnostic = rows, num_classes, agnostic
        self.seen = torch.zeros(0)

    def forward(self, regions: Tensor) -> BoxOutputs:
        self.seen = regions
        width = 4 if self.class_agnostic else 4 * self.num_classes
        nothing = ([0.0] * (self.num_classes + 1), [0.0] * width)
        rows = [self.rows.get(r[1].item(), nothing) for r in regions]
        scores = torch.tensor([r[0] for r in rows]).view(-1, self.num_classes + 1)
        return BoxOutputs(scores, torch.tensor([r[1] for r in rows]).view(-1, width))


class FixedMasks(MaskHead):
    """Logit `value` in the right half of the mask of class 1, -`value` elsewhere."""

    size = (4, 4)
    num_classes = 2

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.seen = torch.zeros(0)

    def forward(self, regions: Tensor) -> Tensor:
        self.seen = regions
        masks = torch.full((len(regions), 2, 4, 4), -self.value)
        masks[:, 1, :, 2:] = self.value
        return masks


def fixed(
    rows: dict[float, tuple[list[float], list[float]]],
    *,
    agnostic: bool = False,
    mask: MaskHead | None = None,
    **settings: object,
) -> RCNNHead:
    box_head = FixedBoxes(rows, 2, agnostic)
    config = RCNNHeadConfig(**settings)  # type: ignore[arg-type]
    return RCNNHead(config, roi_pool=EchoPool(), box_head=box_head, mask_head=mask)


def one_image(scale: tuple[float, float] = (1.0, 1.0), size: tuple[int, int] = (40, 80)) -> Batch:
    original = (int(size[0] / scale[0]), int(size[1] / scale[1]))
    return Batch(images=torch.zeros(1, 3, *size), infos=(ImageInfo(size=size, original_size=original, scale=scale),))


def target(*boxes: tuple[float, ...], labels: Sequence[int]) -> Targets:
    masks = torch.zeros(len(boxes), 40, 80, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int((x1 + x2) / 2)] = 1  # the left half
    return Targets(boxes=torch.tensor(boxes).float().view(-1, 4), labels=torch.tensor(labels).long(), masks=masks)


OBJECT = (8.0, 8.0, 24.0, 24.0)
# One proposal 2 pixels off and one far away; logits and deltas of class 0, class 1, background.
ROWS = {
    10.0: ([0.0, 1.0, 0.0], [9.0] * 4 + [0.0, 0.5, 0.0, 0.0]),
    50.0: ([0.0, 0.0, 2.0], [9.0] * 8),
}
PROPOSALS = [torch.tensor([[10.0, 8.0, 26.0, 24.0], [50.0, 20.0, 60.0, 30.0]])]


def test_the_losses_by_hand():
    head = fixed(ROWS, add_ground_truth=False)
    terms = head.losses([], PROPOSALS, [target(OBJECT, labels=[1])], one_image())
    # Class 1 at logit 1 of (0, 1, 0), background at logit 2 of (0, 0, 2); both divided by two regions.
    expected = math.log(2 + math.e) - 1 + math.log(2 + math.e**2) - 2
    assert terms["roi_cls"].total.item() == pytest.approx(expected)
    # The wanted dx of class 1 is -2 / 16 / .1 = -1.25, and dy is off by .5; the background's deltas do not count.
    assert terms["roi_box"].total.item() == pytest.approx(1.25 + 0.5, rel=1e-5)
    assert terms["roi_cls"].count == terms["roi_box"].count == 2.0
    assert set(terms) == {"roi_cls", "roi_box"}


def test_one_box_for_all_classes_is_compared_whatever_the_class():
    rows = {10.0: ([0.0, 1.0, 0.0], [0.0, 0.5, 0.0, 0.0]), 50.0: ([0.0] * 3, [9.0] * 4)}
    head = fixed(rows, agnostic=True, add_ground_truth=False)
    terms = head.losses([], PROPOSALS, [target(OBJECT, labels=[1])], one_image())
    assert terms["roi_box"].total.item() == pytest.approx(1.25 + 0.5, rel=1e-5)


def test_the_objects_own_boxes_go_before_the_proposals():
    head = fixed(ROWS)
    terms = head.losses([], PROPOSALS, [target(OBJECT, labels=[1])], one_image())
    assert head.box_head.seen[:, :, 0, 0].tolist() == [[0, *OBJECT], [0, 10, 8, 26, 24], [0, 50, 20, 60, 30]]
    assert terms["roi_cls"].count == 3.0


def test_regions_carry_the_index_of_their_image():
    head = fixed(ROWS, add_ground_truth=False)
    batch = one_image()
    two = Batch(images=batch.images.expand(2, -1, -1, -1), infos=batch.infos * 2)
    targets = [target(labels=[]), target(OBJECT, labels=[0])]
    head.losses([], [PROPOSALS[0][:1], PROPOSALS[0]], targets, two)
    assert head.box_head.seen[:, 0, 0, 0].tolist() == [0, 1, 1]


def test_proposals_become_as_precise_as_the_objects():
    head = fixed(ROWS)
    (found,) = head.stage.sample([PROPOSALS[0].double()], [target(OBJECT, labels=[1])], one_image().infos)
    assert found.boxes.dtype == torch.float32


def test_the_sampling_hangs_on_the_key_of_the_image_alone():
    settings = {"sampler": RandomSamplerConfig(count=8), "assigner": MaxIoUAssignerConfig()}
    head = fixed({}, **settings)
    corner = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 40
    boxes = torch.cat([corner, corner + 5], 1)
    info, objects = one_image().infos[0], [target(OBJECT, labels=[1])]
    (first,) = head.stage.sample([boxes], objects, [info])
    torch.manual_seed(77)
    (again,) = head.stage.sample([boxes], objects, [info])
    assert torch.equal(again.boxes, first.boxes)
    for other, consumer in ((evolve(info, key=Key(index=5)), "roi"), (info, "another stage")):
        (found,) = head.stage.sample([boxes], objects, [other], consumer)
        assert not torch.equal(found.boxes, first.boxes)


def test_the_mask_loss_by_hand():
    head = fixed(ROWS, mask=FixedMasks(3.0), add_ground_truth=False)
    terms = head.losses(
        [], [torch.tensor([[*OBJECT], [50.0, 20.0, 60.0, 30.0]])], [target(OBJECT, labels=[1])], one_image()
    )
    # One positive, the left half wanted and the right half predicted, at logits -3 and 3: all pixels wrong by 3.
    assert terms["roi_mask"].value().item() == pytest.approx(math.log(1 + math.exp(3)))
    assert terms["roi_mask"].count == 1.0
    other = head.losses([], [torch.tensor([OBJECT])], [target(OBJECT, labels=[0])], one_image())
    # Of class 0 all is predicted empty: half the pixels are right.
    assert other["roi_mask"].value().item() == pytest.approx(
        (math.log(1 + math.exp(3)) + math.log(1 + math.exp(-3))) / 2
    )


def test_without_its_own_pooling_the_mask_head_gets_the_box_branchs_positive_regions():
    head = fixed(ROWS, mask=FixedMasks(3.0))
    two = one_image()
    two = Batch(images=two.images.expand(2, -1, -1, -1), infos=two.infos * 2)
    targets = [target(OBJECT, labels=[1]), target((40.0, 8.0, 56.0, 24.0), labels=[0])]
    head.losses([], [*PROPOSALS, *PROPOSALS], targets, two)
    assert head.mask_head.seen[:, :, 0, 0].tolist() == [[0, *OBJECT], [0, 10, 8, 26, 24], [1, 40, 8, 56, 24]]


def test_detections_by_hand():
    logits = [math.log(0.7), math.log(0.2), math.log(0.1)]
    rows = {
        8.0: (logits, [0.0] * 4 + [1.0, 0.0, 0.0, 0.0]),  # class 1 is moved by .1 of its width
        9.0: ([math.log(0.6), math.log(0.04), math.log(0.36)], [0.0] * 8),  # class 0 goes for the first one's
        60.0: ([math.log(0.02), math.log(0.3), math.log(0.68)], [0.0] * 4 + [20.0, 0.0, 0.0, 0.0]),
    }
    proposals = [torch.tensor([[8.0, 8.0, 24.0, 24.0], [9.0, 8.0, 25.0, 24.0], [60.0, 20.0, 70.0, 32.0]])]
    found = fixed(rows).predict([], proposals, one_image(scale=(0.5, 0.25)))[0]
    assert found.scores.tolist() == pytest.approx([0.7, 0.3, 0.2])
    assert found.labels.tolist() == [0, 1, 1]
    # Divided by .25 in x and .5 in y; the second box is moved 20 to the right and clipped at the width of 80.
    expected = [[32, 16, 96, 48], [320, 40, 320, 64], [38.4, 16, 102.4, 48]]
    assert found.boxes.tolist() == [pytest.approx(row) for row in expected]
    assert found.masks is None


def test_nms_is_in_original_pixels_and_all_axes_alike():
    rows = {x: ([math.log(s), math.log(1e-6), math.log(1 - s)], [0.0] * 8) for x, s in ((0.0, 0.8), (4.0, 0.7))}
    # 10 wide, 4 apart: an IoU of 6 / 14 whatever the scale; two detections at a threshold of .5, one at .4.
    proposals = [torch.tensor([[0.0, 0.0, 10.0, 8.0], [4.0, 0.0, 14.0, 8.0]])]
    assert len(fixed(rows).predict([], proposals, one_image(scale=(0.5, 0.25)))[0]) == 2
    assert len(fixed(rows, nms_threshold=0.4).predict([], proposals, one_image(scale=(0.5, 0.25)))[0]) == 1


def test_small_detections_may_go():
    rows = {x: ([math.log(0.8), math.log(1e-6), math.log(0.2)], [0.0] * 8) for x in (0.0, 40.0)}
    proposals = [torch.tensor([[0.0, 0.0, 10.0, 8.0], [40.0, 0.0, 41.0, 8.0]])]
    assert len(fixed(rows).predict([], proposals, one_image())[0]) == 2
    assert len(fixed(rows, min_size=1.0).predict([], proposals, one_image())[0]) == 2
    found = fixed(rows, min_size=1.5).predict([], proposals, one_image(scale=(0.5, 0.25)))[0]
    assert found.boxes.tolist() == [[0, 0, 40, 16]]  # 1 pixel of the network's input is too few, though 4 of the image
    one_for_all = {x: (logits, deltas[:4]) for x, (logits, deltas) in rows.items()}
    assert len(fixed(one_for_all, agnostic=True, min_size=1.5).predict([], proposals, one_image())[0]) == 1


def test_nms_in_network_pixels_finds_the_same_boxes():
    """Overlaps do not depend on the scale of an axis, so only rounding can differ."""
    rows = {x: ([math.log(s), math.log(1e-6), math.log(1 - s)], [0.0] * 8) for x, s in ((0.0, 0.8), (4.0, 0.7))}
    proposals = [torch.tensor([[0.0, 0.0, 10.0, 8.0], [4.0, 0.0, 14.0, 8.0]])]
    for threshold in (0.4, 0.5):
        before, after = (
            fixed(rows, nms_threshold=threshold, nms_in=where, mask=FixedMasks(3.0)).predict(
                [], proposals, one_image(scale=(0.5, 0.25))
            )[0]
            for where in ("network", "original")
        )
        assert before.boxes.tolist() == after.boxes.tolist()
        assert before.scores.tolist() == after.scores.tolist()
        assert before.masks is not None
        assert torch.equal(before.masks, after.masks)


def test_masks_resized_to_whole_pixels():
    rows = {8.0: ([0.0, 5.0, 0.0], [0.0] * 8)}
    proposals = [torch.tensor([[8.0, 8.0, 24.0, 24.0]])]
    found = fixed(rows, mask=FixedMasks(3.0), mask_paste="resized").predict([], proposals, one_image())[0]
    assert found.masks is not None
    columns = found.masks[0].any(0).nonzero().flatten()
    assert (columns.min().item(), columns.max().item()) == (17, 24)  # of 25 columns for 6 cells


def test_the_mask_of_the_predicted_class_is_pasted_into_the_original_image():
    rows = {8.0: ([0.0, 5.0, 0.0], [0.0] * 8)}
    head = fixed(rows, mask=FixedMasks(3.0))
    found = head.predict([], [torch.tensor([[8.0, 8.0, 24.0, 24.0]])], one_image(scale=(0.5, 0.25)))[0]
    assert found.labels.tolist() == [1]
    assert head.mask_head.seen[:, 1:, 0, 0].tolist() == [[8, 8, 24, 24]]  # pooled in network pixels
    assert found.masks is not None
    assert found.masks.shape == (1, 80, 320)
    rows_found, columns_found = found.masks[0].nonzero(as_tuple=True)
    # The right half of (32, 16, 96, 48).
    assert (rows_found.min().item(), rows_found.max().item()) == (16, 47)
    assert (columns_found.min().item(), columns_found.max().item()) == (64, 95)
    assert found.masks[0, 20:44, 68:92].all()  # its corners are rounded, by a cell of the mask at most


def test_the_mask_threshold_is_the_configurations():
    rows = {8.0: ([0.0, 5.0, 0.0], [0.0] * 8)}
    proposals = [torch.tensor([[8.0, 8.0, 24.0, 24.0]])]
    for threshold, some in ((0.74, True), (0.76, False)):
        head = fixed(rows, mask=FixedMasks(math.log(3)), mask_threshold=threshold)  # a probability of .75
        assert bool(head.predict([], proposals, one_image())[0].masks.any()) == some


# a shared trunk


class CountingTrunk(Trunk):
    """Halves the size and doubles the channels."""

    def __init__(self, inputs: RegionSpec) -> None:
        super().__init__()
        self.out = RegionSpec(channels=2 * inputs.channels, size=(inputs.size[0] // 2, inputs.size[1] // 2))
        self.conv = nn.Conv2d(inputs.channels, self.out.channels, 2, stride=2)
        self.calls: list[int] = []

    def forward(self, regions: Tensor) -> Tensor:
        self.calls.append(len(regions))
        return self.conv(regions)


@stub_config
class CountingTrunkConfig(TrunkConfig):
    type: ClassVar[str] = "counting"

    def region_spec(self, inputs: RegionSpec) -> RegionSpec:
        return RegionSpec(channels=2 * inputs.channels, size=(inputs.size[0] // 2, inputs.size[1] // 2))

    def build(self, inputs: RegionSpec) -> Trunk:
        return CountingTrunk(inputs)


SHARED = RCNNHeadConfig(
    roi_pool=RoIAlignConfig(size=14, strides=(16,)),
    trunk=CountingTrunkConfig(),
    box_head=FCBoxHeadConfig(num_fcs=0),
    mask_head=ConvMaskHeadConfig(num_convs=0, channels=8),
    score_threshold=0.0,
)


def test_a_trunk_is_shared_by_the_box_and_mask_branch(tiny):
    head = SHARED.build(tiny.levels, 3)
    assert SHARED.box_regions(tiny.levels) == SHARED.mask_regions(tiny.levels) == RegionSpec(channels=32, size=(7, 7))
    assert head.mask_head.size == (14, 14)
    assert head.box_head.scores.in_features == 32
    batch = tiny.batch()
    targets = tiny.targets(batch, (2, 1))
    losses = tiny.backward(head, head.losses(tiny.features(batch), [t.boxes + 1 for t in targets], targets, batch))
    assert head.trunk.calls == [6]  # once, over all regions
    assert losses["roi_mask"] > 0
    tiny.backward(head, head.losses(tiny.features(batch), [torch.zeros(0, 4)] * 2, tiny.targets(batch, (0, 0)), batch))


def test_at_test_the_trunk_works_on_the_proposals_and_then_on_the_detections(tiny):
    head = SHARED.build(tiny.levels, 3).eval()
    batch = tiny.batch()
    proposals = [t.boxes + 1 for t in tiny.targets(batch, (2, 1))]
    with torch.no_grad():
        found = head.predict(tiny.features(batch), proposals, batch)
    assert head.trunk.calls == [3, sum(len(d) for d in found)]


def test_a_mask_branch_with_its_own_pooling_goes_past_the_trunk(tiny):
    head = evolve(SHARED, mask_roi_pool=RoIAlignConfig(size=14)).build(tiny.levels, 3)
    assert head.mask_head.upsample.in_channels == 16
    assert head.mask_head.size == (28, 28)
    batch = tiny.batch()
    targets = tiny.targets(batch, (2, 1))
    tiny.backward(head, head.losses(tiny.features(batch), [t.boxes for t in targets], targets, batch))


# configuration


def test_needs_masks_where_there_is_a_mask_head(tiny):
    for config, needed in ((tiny.faster, False), (tiny.mask, True)):
        assert config.needs_masks() is config.build(tiny.levels, 3).needs_masks is needed


def test_a_mask_head_without_masks_to_train_on(tiny):
    head = tiny.mask.build(tiny.levels, 3)
    batch = tiny.batch(1)
    targets = [evolve(t, masks=None) for t in tiny.targets(batch, (2,))]
    message = "^the mask head requires masks, but the targets have none; load the data set with masks=True$"
    with pytest.raises(ValueError, match=message):
        head.losses(tiny.features(batch), [t.boxes for t in targets], targets, batch)


def test_a_pooling_for_masks_without_a_mask_head_is_refused():
    with pytest.raises(ConfigError) as caught:
        RCNNHeadConfig(mask_roi_pool=RoIAlignConfig(size=14))
    assert str(caught.value).startswith("RCNNHeadConfig.mask_roi_pool: ")
    assert "requires a mask_head" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        RCNNHeadConfig(),
        RCNNHeadConfig(
            roi_pool=RoIAlignConfig(strides=(4,)), mask_head=ConvMaskHeadConfig(), mask_roi_pool=RoIAlignConfig(size=14)
        ),
    ],
)
def test_features_that_a_pooling_cannot_take_are_refused(config):
    with pytest.raises(ConfigError, match=r"roi_pool 'roi_align' requires a feature level of stride 8, but .* \[4\]"):
        config.check(FeatureSpec(channels=(8,), strides=(4,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 1.5}, r"score_threshold\S*: found .+, expected .*at most 1"),
        ({"nms_threshold": -0.1}, r"nms_threshold\S*: found .+, expected .*at least 0"),
        ({"mask_threshold": 2.0}, r"mask_threshold\S*: found .+, expected .*at most 1"),
        ({"max_detections": 0}, r"max_detections\S*: found .+, expected .*at least 1"),
        ({"min_size": -1.0}, r"min_size\S*: found .+, expected .*at least 0"),
        ({"nms_in": "feet"}, r"nms_in\S*: found .+, allowed: "),
        ({"mask_paste": "glued"}, r"mask_paste\S*: found .+, allowed: "),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RCNNHeadConfig(**settings)


def test_class_dependent_names_what_fine_tuning_leaves_fresh(tiny):
    few, many = (tiny.build(tiny.config("mask"), k) for k in (2, 5))
    one, other = few.state_dict(), many.state_dict()
    assert few.class_dependent() == [key for key in one if one[key].shape != other[key].shape]
    assert few.class_dependent() == [
        f"roi_head.{layer}.{kind}"
        for layer in ("box_head.scores", "box_head.deltas", "mask_head.logits")
        for kind in ("weight", "bias")
    ]


def test_mmdets_names(tiny):
    names = {
        "box_head.scores.weight": "bbox_head.fc_cls.weight",
        "mask_head.logits.weight": "mask_head.conv_logits.weight",
    }
    assert {key: translate("mmdet", tiny.mask, key) for key in names} == names
    with pytest.raises(WeightsError, match="^trunk type 'counting' has no weight map for 'mmdet'"):
        translate("mmdet", SHARED, "trunk.conv.weight")
