"""The contract checks of data sets, transforms and evaluators: good parts pass, and each broken contract is named."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch

from det_core.contracts import DetectionDataset, EvaluationResult, Evaluator, Sample, Transform
from det_core.data.data_config import SampleConfig
from det_core.data.images import read_image
from det_core.data.transforms import flip
from det_core.settings import setting
from det_core.slots import DatasetConfig, EvaluatorConfig, TransformConfig
from det_core.specs import OnBadSample
from det_core.structures import Classes, Detections
from det_core.testing import contract_checks
from det_core.testing.isolated_plugins import make_plugin, stub_config
from det_core.testing.tiny_dataset import BACKGROUND, make_sample

pytestmark = pytest.mark.usefixtures("own_parts")


# Data sets


@stub_config
class OneImageConfig(DatasetConfig):
    """One image with an object; `broken` names what is wrong with it."""

    type: ClassVar[str] = "one_image"

    broken: str = setting("what is broken", default="")

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        return OneImage(self.broken, Path(root))


class OneImage(DetectionDataset):
    def __init__(self, broken: str, root: Path) -> None:
        self.broken, self.root, self.skipped = broken, root, []
        self.name = "" if broken == "name" else "one image"
        count = {"empty": 0, "twice": 2}.get(broken, 1)
        self.classes = Classes(names=("nut", "bolt"), ids=(4, 4) if broken == "class ids" else (4, 2))
        if broken == "no classes":
            self.classes = Classes(names=(), ids=())
        self.sizes = np.array([[96, 128]] * count, np.int32 if broken == "sizes" else np.int64)
        self.image_ids = np.array([11] * count, np.int32 if broken == "ids" else np.int64)
        self.truth: dict[str, Any] | None = None
        if broken == "skipped":
            self.skipped = None
        if broken == "pickle":
            self.open = lambda: None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self.broken == "forgets":
            self.broken = "shifted"

    def file(self, index: int) -> str:
        return str(self.root / ("none.png" if self.broken == "file" else "11.png"))

    def load(self, index: int) -> Sample:
        file = str(self.root / "11.png")
        sample = Sample(
            image=read_image(file),
            boxes=torch.tensor([[5.0, 6.0, 25.0, 36.0]]),
            labels=torch.tensor([1]),
            ignored=torch.tensor([False]),
            file=self.file(index),
            image_id=11,
        )
        changes: dict[str, dict[str, Any]] = {
            "path": {"file": "other.png"},
            "image id": {"image_id": 12},
            "image size": {"image": sample.image[:, :50]},
            "float image": {"image": sample.image.float()},
            "double boxes": {"boxes": sample.boxes.double()},
            "short labels": {"labels": sample.labels.int()},
            "ignored": {"ignored": sample.ignored.long()},
            "outside": {"boxes": sample.boxes + 110},
            "no area": {"boxes": sample.boxes[:, [0, 1, 0, 3]]},
            "label": {"labels": sample.labels + 1},
            "shifted": {"boxes": sample.boxes + 3},
        }
        return attrs.evolve(sample, **changes.get(self.broken, {}))

    def ground_truth(self) -> dict[str, Any]:
        annotation = {
            "id": 1,
            "image_id": 11,
            "category_id": 2,
            "bbox": [5.0, 6.0, 25.0, 36.0] if self.broken == "xyxy" else [5.0, 6.0, 20.0, 30.0],
            "area": 600.0,
            "iscrowd": int(self.broken == "crowd"),
        }
        if self.broken == "no area in it":
            del annotation["area"]
        if self.broken == "unknown image":
            annotation["image_id"] = 12
        truth = {
            "categories": [
                {"id": number, "name": "x"} for number in ((1, 2) if self.broken == "categories" else (4, 2))
            ],
            "images": [{"id": 11, "height": 128 if self.broken == "turned" else 96, "width": 128}],
            "annotations": [annotation] * (2 if self.broken == "annotation ids" else 1),
        }
        if self.broken == "no images":
            del truth["images"]
        if self.broken == "same dict":
            self.truth = truth = self.truth or truth
        return truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    Image.fromarray(make_sample().image.permute(1, 2, 0).numpy()).save(folder / "11.png")
    return folder


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("empty", r"dataset 'one_image': it has no images"),
        ("name", r"it has no `name`, which messages use"),
        ("sizes", r"shape and type of sizes is \(\(1, 2\), 'int32'\), expected \(\(1, 2\), 'int64'\)"),
        ("ids", r"shape and type of image_ids is \(\(1,\), 'int32'\), expected"),
        ("twice", r"number of different image_ids is 1, expected 2"),
        ("no classes", r"it has no classes"),
        ("class ids", r"number of different ids of classes is 1, expected 2"),
        ("skipped", r"`skipped` is no list of BadSample"),
        ("file", r"the file of sample 0 does not exist: .*none.png"),
        ("path", r"file of sample 0 is other.png, expected .*11.png"),
        ("image id", r"image_id of sample 0 is 12, expected 11"),
        ("image size", r"shape of image of sample 0 is \(3, 50, 128\), expected \(3, 96, 128\)"),
        ("float image", r"type of image of sample 0 is torch.float32, expected torch.uint8"),
        ("double boxes", r"type of boxes of sample 0 is torch.float64"),
        ("short labels", r"type of labels of sample 0 is torch.int32"),
        ("ignored", r"type of ignored of sample 0 is torch.int64"),
        ("outside", r"boxes of sample 0 leave the image, which is 128x96"),
        ("no area", r"boxes of sample 0 have no area"),
        ("label", r"labels of sample 0 are outside 0..1"),
        ("same dict", r"ground_truth\(\) gives the same dict twice; make a new one"),
        ("no images", r"ground_truth\(\) has no 'images'"),
        ("categories", r"ids of ground_truth\(\)'s categories is \(1, 2\), expected \(4, 2\)"),
        ("turned", r"\(height, width\) of ground_truth\(\)'s images by id is \{11: \(128, 128\)\}, expected"),
        ("no area in it", r"annotations of ground_truth\(\) lack \['area'\]"),
        ("unknown image", r"an annotation is of image 12, unknown"),
        ("annotation ids", r"number of different ids of annotations is 1, expected 2"),
        (
            "xyxy",
            r"a box \[5.0, 6.0, 25.0, 36.0\] of category 2 .*, which ground_truth\(\) has not; its `bbox` is",
        ),
        ("crowd", r"of category 2 \(ignored: False\), which ground_truth\(\) has not"),
        ("pickle", r"it cannot be pickled, so loader processes cannot be sent it: "),
        ("forgets", r"its copy loads another boxes"),
    ],
)
def test_broken_data_sets_are_found(broken, message, folder):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_dataset(OneImageConfig(broken=broken), folder)


def test_masks_and_maps_that_are_asked_for_are_checked(folder, monkeypatch):
    with pytest.raises(AssertionError, match="has_masks is False, expected True"):
        contract_checks.check_dataset(OneImageConfig(), folder, masks=True)
    monkeypatch.setattr(OneImage, "has_masks", True)
    with pytest.raises(AssertionError, match="sample 0 has no masks"):
        contract_checks.check_dataset(OneImageConfig(), folder, masks=True)
    with pytest.raises(AssertionError, match="sample 0 has no semantic map"):
        contract_checks.check_dataset(OneImageConfig(), folder, semantic=True)
    load = OneImage.load
    semantic = torch.full((96, 128), 7, dtype=torch.uint8)
    monkeypatch.setattr(OneImage, "load", lambda self, index: attrs.evolve(load(self, index), semantic=semantic))
    monkeypatch.setattr(OneImage, "semantic_classes", 7)
    with pytest.raises(AssertionError, match=r"the semantic map of sample 0 has ids \[7\], of 7"):
        contract_checks.check_dataset(OneImageConfig(), folder, semantic=True)


def test_good_data_sets_pass(folder):
    contract_checks.check_component(OneImageConfig(), folder)
    contract_checks.check_component(OneImageConfig(broken="empty"))  # without a folder, its configuration alone
    contract_checks.check_dataset(SampleConfig(split="val"), masks=True, semantic=True, limit=2)


# Transforms


@stub_config
class MirrorConfig(TransformConfig):
    """Mirrors every second image; `broken` names what is wrong with it."""

    type: ClassVar[str] = "mirror"

    broken: str = setting("what is broken", default="")

    def build(self) -> Transform:
        return (lambda sample: sample) if self.broken == "pickle" else Mirror(self.broken)


class Mirror:
    def __init__(self, broken: str) -> None:
        self.broken = broken

    def __call__(self, sample: Sample, /) -> Sample:
        draws = random.random() if self.broken == "random" else float(torch.rand(()))
        if self.broken == "in place":
            sample.boxes.add_(1.0)
        if draws < 0.5:
            return sample
        after = flip(sample, True, False)
        changes: dict[str, dict[str, Any]] = {
            "image": {"image": sample.image},
            "boxes": {"boxes": sample.boxes},
            "semantic": {"semantic": sample.semantic},
            "labels": {"labels": sample.labels.roll(1)},
            "double": {"boxes": after.boxes.double()},
            "half": {"image": after.image.half()},
            "gray": {"image": after.image[:1]},
            "no masks": {"masks": None},
            "bool masks": {"masks": None if after.masks is None else after.masks.bool()},
            "id": {"image_id": 0},
        }
        return attrs.evolve(after, **changes.get(self.broken, {}))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("image", r"transform 'mirror': the pixels of the objects are not below their masks any more \(mean "),
        ("boxes", r"the mask of label 0 is in \[.*\], but its box is \[.*\]; move masks and boxes together"),
        ("semantic", r"\d+% of the pixels of label \d have its id in the semantic map; move it with the masks"),
        (
            "labels",
            r"which objects are ignored is \[False, False, False, True\], expected \[True, ",
        ),
        ("random", r"with the same key it gives another "),
        ("in place", r"it changes its input; make a new sample \(attrs.evolve\), which has another boxes"),
        ("double", r"type of boxes is torch.float64, expected torch.float32"),
        ("half", r"type of the image is torch.float16, expected one of "),
        ("gray", r"channels of the image is 1, expected 3"),
        ("no masks", r"that it has masks is False, expected True"),
        ("bool masks", r"type of masks is torch.bool, expected torch.uint8"),
        ("id", r"image_id and file is \(0, '11.png'\), expected \(11, '11.png'\)"),
        ("pickle", r"it cannot be pickled, so loader processes cannot be sent it: "),
    ],
)
def test_broken_transforms_are_found(broken, message):
    random.seed(0)
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_transform(MirrorConfig(broken=broken))


def test_a_transform_that_drops_every_object_is_found(monkeypatch):
    monkeypatch.setattr(Mirror, "__call__", lambda self, sample: attrs.evolve(sample, boxes=sample.boxes * 0))
    with pytest.raises(AssertionError, match="transform 'mirror': it drops every object of 6 samples"):
        contract_checks.check_transform(MirrorConfig())


def test_a_good_transform_passes():
    contract_checks.check_component(MirrorConfig())


def test_the_sample_of_transforms_is_not_its_own_mirror_image():
    sample = make_sample()
    bitmaps = sample.masks.bool().any(0)
    for axes in ((0,), (1,), (0, 1)):
        shared = (bitmaps & bitmaps.flip(axes)).sum() / bitmaps.sum()
        assert shared == 0, axes
    assert set(sample.semantic.unique().tolist()) == {0, 1, 2, 3, BACKGROUND}


# Evaluators


@stub_config
class HitsConfig(EvaluatorConfig):
    """The share of objects that are as many as detections; `broken` names what is wrong with it."""

    type: ClassVar[str] = "hits"

    broken: str = setting("what is broken", default="")

    def metric_names(self) -> tuple[str, ...]:
        return ("misses",) if self.broken == "stated name" else ("hits",)

    def build(self, dataset: DetectionDataset) -> Evaluator:
        return Hits(self.broken)


class Hits(Evaluator):
    def __init__(self, broken: str) -> None:
        self.broken, self.seen = broken, 0

    def encode(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        self.seen += len(detections)
        count = torch.tensor(len(detections)) if self.broken == "json" else len(detections)
        return [{"image_id": image_id, "count": count}]

    def compute(self, results: list[dict[str, Any]]) -> EvaluationResult:
        value = min(sum(r["count"] for r in results) / 6, 1.0)
        if self.broken == "dict":
            return {"hits": value}
        if self.broken == "nothing":
            return EvaluationResult(metrics={})
        if self.broken == "first image" and results:
            value = results[0]["image_id"] / 100
        metrics = {
            "hits": {"percent": 100 * value + (value > 0), "constant": 0.5, "own state": self.seen / 6}.get(
                self.broken, value
            )
        }
        if self.broken == "more when full" and value:
            metrics["more"] = 1.0
        per_class = {"cat": {"hits": value}} if self.broken == "classes" else {"nut": {"hits": value}}
        table = "x" * 81 if self.broken == "wide" else ""
        return EvaluationResult(metrics=metrics, per_class=per_class, table=table)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("json", r"evaluator 'hits': encode\(\) gives records that are no JSON: "),
        ("dict", r"compute\(\) gives dict, not EvaluationResult"),
        ("nothing", r"no metrics of no records"),
        ("stated name", r"names of metrics of no records is \['hits'\], expected \['misses'\]"),
        ("classes", r"per_class has \['cat'\], which are no names of classes"),
        ("percent", r"hits of perfect detections is 101.0, expected a fraction of 1, or nan"),
        ("wide", r"its table has lines of more than 80 columns: 'xxx"),
        ("constant", r"its metrics do not depend on the detections"),
        ("own state", r"its metrics do not depend on the detections"),
        ("first image", r"its metrics depend on the order of the images, which differs with ranks"),
    ],
)
def test_broken_evaluators_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_evaluator(HitsConfig(broken=broken))


def test_an_evaluator_whose_names_depend_on_the_detections_is_found(monkeypatch):
    monkeypatch.setattr(HitsConfig, "metric_names", lambda self: None)
    with pytest.raises(
        AssertionError, match=r"names of metrics of no records is \['hits'\], expected \['hits', 'more'\]"
    ):
        contract_checks.check_evaluator(HitsConfig(broken="more when full"))


def test_a_good_evaluator_passes():
    contract_checks.check_component(HitsConfig())


PARTS = make_plugin(
    "parts",
    det_datasets=lambda: [OneImageConfig, SampleConfig],
    det_transforms=lambda: [MirrorConfig],
    det_evaluators=lambda: [HitsConfig],
)
