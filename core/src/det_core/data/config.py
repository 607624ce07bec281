"""Configurations of core's data sets and transforms. Imports no torch; `build()` imports what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.config.base import DatasetConfig, TransformConfig, doc

if TYPE_CHECKING:
    from pathlib import Path

    from attrs import Attribute

    from det_core.data.dataset import DetectionDataset
    from det_core.data.transforms import Transform

Split = Literal["train", "val"]
SPLITS = ("train", "val")
Scales = tuple[tuple[int, int], ...]

VOC_CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

PROPOSALS = doc(
    "proposals file (`det-core proposals` writes it) for a detector without a proposal head; relative to the data "
    "folder (the sample: to the working folder), or absolute; null = none"
)
MAX_PROPOSALS = doc("best proposals of an image that are taken; null = all of the file")

PROBABILITY = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class CocoConfig(DatasetConfig):
    """A data set in COCO format: one JSON file and a folder of images."""

    type: ClassVar[str] = "coco"

    split: Split = field(validator=validators.in_(SPLITS), metadata=doc("which part of the data set"))
    annotations: str | None = field(
        default=None, metadata=doc("annotation file below the root; null = found by the usual layouts")
    )
    images: str | None = field(
        default=None, metadata=doc("image folder below the root; null = found by the usual layouts")
    )
    semantic_dir: str | None = field(
        default=None,
        metadata=doc(
            "folder below the root of semantic maps for a detector that trains on them: single-channel PNGs of class "
            "ids, named like the images, 255 = unlabelled; null = none"
        ),
    )
    semantic_classes: int = field(
        default=182,
        validator=[validators.ge(1), validators.le(255)],
        metadata=doc("ids that semantic maps may hold are 0..n-1, and 255; 182 of COCO-Stuff, things and stuff"),
    )
    filter_empty: bool = field(default=False, metadata=doc("leave out images without any annotation"))
    min_size: int = field(
        default=0, validator=validators.ge(0), metadata=doc("leave out images whose shorter side is below this")
    )
    proposals: str | None = field(default=None, metadata=PROPOSALS)
    max_proposals: int | None = field(
        default=None, validator=validators.optional(validators.ge(1)), metadata=MAX_PROPOSALS
    )

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: str = "error"
    ) -> DetectionDataset:
        """Open and check the data set; DataError (also LayoutError) with what is wrong."""
        from det_core.data.coco import CocoDataset
        from det_core.data.dataset import DataError
        from det_core.data.layout import find_layout
        from det_core.data.semantic import SemanticFolder

        if semantic and self.semantic_dir is None:
            raise DataError(
                "the detector trains on semantic maps, but `data.train.semantic_dir` is not set; name a folder below "
                "the data root with a single-channel PNG for each image, such as COCO-Stuff's stuffthingmaps/train2017 "
                "(--set data.train.semantic_dir=FOLDER), or take a detector without a semantic branch"
            )
        layout = find_layout(root, self.split, self.annotations, self.images, self.semantic_dir if semantic else None)
        maps = None if layout.semantic is None else SemanticFolder(layout.semantic, self.semantic_classes)
        return CocoDataset(
            layout.annotations,
            layout.images,
            masks=masks,
            semantic=maps,
            on_bad_sample=on_bad_sample,
            filter_empty=self.filter_empty,
            min_size=self.min_size,
            proposals=_proposals(root, self.proposals),
            max_proposals=self.max_proposals,
        )


def _proposals(root: str, name: str | None) -> Path | None:
    """The proposals file that a configuration names; DataError if it is not there."""
    from det_core.data.proposals import proposals_path

    return None if name is None else proposals_path(root, name)


def _each_once(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...] | None) -> None:
    if value is not None and (not value or not all(value) or len(set(value)) != len(value)):
        raise ValueError(f"'{attribute.name}' must be one or more names, each once")


@frozen(kw_only=True)
class VocConfig(DatasetConfig):
    """A data set in PASCAL VOC's format: folders Annotations (an XML file per image), ImageSets/Main and JPEGImages.

    The root is such a folder, or holds some (VOC2007, VOC2012, ...), or their VOCdevkit. The images of all `sets` are
    one data set.
    """

    type: ClassVar[str] = "voc"

    split: Split = field(validator=validators.in_(SPLITS), metadata=doc("which part of the data set"))
    sets: tuple[str, ...] | None = field(
        default=None,
        validator=_each_once,
        metadata=doc(
            "image sets, such as VOC2007/trainval, or trainval of the only folder; null = the usual ones: of VOC2007 "
            "and VOC2012, or the only folder, trainval and test, or else train and val"
        ),
    )
    classes: tuple[str, ...] | None = field(
        default=VOC_CLASSES,
        validator=_each_once,
        metadata=doc("class names in the order of their labels; null = all that the annotations name, sorted"),
    )
    difficult: Literal["ignore", "keep"] = field(
        default="ignore",
        validator=validators.in_(("ignore", "keep")),
        metadata=doc(
            "difficult objects: left out of training (background, as crowd regions are) and ignored by the metrics, or "
            "kept as objects like the others"
        ),
    )
    corners: Literal["inclusive", "exact"] = field(
        default="inclusive",
        validator=validators.in_(("inclusive", "exact")),
        metadata=doc(
            "of boxes: VOC's, pixels counted from 1 that both belong to the box (which is then xmin - 1, ymin - 1, "
            "xmax, ymax), or coordinates to be taken as they are"
        ),
    )
    filter_empty: bool = field(default=False, metadata=doc("leave out images without any object"))
    min_size: int = field(
        default=0, validator=validators.ge(0), metadata=doc("leave out images whose shorter side is below this")
    )
    proposals: str | None = field(default=None, metadata=PROPOSALS)
    max_proposals: int | None = field(
        default=None, validator=validators.optional(validators.ge(1)), metadata=MAX_PROPOSALS
    )

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: str = "error"
    ) -> DetectionDataset:
        """Open and check the data set; DataError (also LayoutError) with what is wrong."""
        from det_core.data.dataset import DataError
        from det_core.data.layout import find_voc_sets
        from det_core.data.voc import VocDataset

        if masks or semantic:
            what = "instance masks" if masks else "semantic maps"
            raise DataError(
                f"{root}: {what} are asked for, but data in VOC's format bring boxes alone; take a recipe that needs "
                "none, or data in COCO's format (`type: coco`)"
            )
        return VocDataset(
            find_voc_sets(root, self.split, self.sets),
            self.classes,
            name=root,
            difficult=self.difficult,
            corners=self.corners,
            on_bad_sample=on_bad_sample,
            filter_empty=self.filter_empty,
            min_size=self.min_size,
            proposals=_proposals(root, self.proposals),
            max_proposals=self.max_proposals,
        )


@frozen(kw_only=True)
class SampleConfig(DatasetConfig):
    """The bundled sample: 24 microscope images of cell nuclei with masks.

    Semantic maps are made of the masks: id 0 is nucleus, as its label is, and id 1 all else.
    """

    type: ClassVar[str] = "sample"

    split: Split = field(validator=validators.in_(SPLITS), metadata=doc("17 images to train on, or 7 to evaluate"))
    proposals: str | None = field(default=None, metadata=PROPOSALS)
    max_proposals: int | None = field(
        default=None, validator=validators.optional(validators.ge(1)), metadata=MAX_PROPOSALS
    )

    def build(
        self, root: str = "", *, masks: bool = False, semantic: bool = False, on_bad_sample: str = "error"
    ) -> DetectionDataset:
        """Open the sample; `root` plays no part."""
        from det_core.data.coco import CocoDataset
        from det_core.data.sample_files import sample_folder

        folder = sample_folder()
        return CocoDataset(
            folder / f"instances_{self.split}.json",
            folder / "images",
            masks=masks,
            semantic="masks" if semantic else None,
            on_bad_sample=on_bad_sample,
            name=f"sample ({self.split})",
            proposals=_proposals("", self.proposals),
            max_proposals=self.max_proposals,
        )


def _positive_pairs(_: object, attribute: Attribute[Scales], value: Scales) -> None:
    if not value or any(len(pair) != 2 or min(pair) < 1 for pair in value):
        raise ValueError(f"'{attribute.name}' must be one or more pairs of sizes of at least 1 pixel")


@frozen(kw_only=True)
class ResizeConfig(TransformConfig):
    """Resize to a scale, bilinear without antialiasing; masks and semantic maps take the nearest pixel.

    With `keep_ratio` a scale is (long edge, short edge), upper bounds both; the factor is
    min(long / max(h, w), short / min(h, w)) and the new size int(side * factor + 0.5), or int(side * factor) with
    `rounding: down`. Without, it is (width, height).
    """

    type: ClassVar[str] = "resize"

    scales: Scales = field(
        default=((1333, 800),),
        validator=_positive_pairs,
        metadata=doc("(long edge, short edge) bounds in pixels; without keep_ratio (width, height)"),
    )
    keep_ratio: bool = field(default=True, metadata=doc("keep the shape of the image"))
    mode: Literal["choice", "range"] = field(
        default="choice",
        validator=validators.in_(("choice", "range")),
        metadata=doc("draw one of the scales, or each edge uniformly between the two given"),
    )

    rounding: Literal["nearest", "down"] = field(
        default="nearest",
        validator=validators.in_(("nearest", "down")),
        metadata=doc("of a new side to whole pixels, with keep_ratio; down is torchvision's detectors' way"),
    )
    arithmetic: Literal["fixed_point", "float"] = field(
        default="fixed_point",
        validator=validators.in_(("fixed_point", "float")),
        metadata=doc("of pixels: OpenCV's, to 8 bits, or torch's, which keeps fractions (torchvision's detectors)"),
    )

    def __attrs_post_init__(self) -> None:
        if self.mode == "range" and len(self.scales) != 2:
            raise ValueError(f"mode: range draws between two scales, but {len(self.scales)} given in `scales`")

    def build(self) -> Transform:
        from det_core.data.transforms import Resize

        return Resize(self)


@frozen(kw_only=True)
class FlipConfig(TransformConfig):
    """Mirror the image with its boxes, masks and semantic map."""

    type: ClassVar[str] = "flip"

    probability: float = field(default=0.5, validator=PROBABILITY, metadata=doc("of a horizontal flip"))
    vertical_probability: float = field(default=0.0, validator=PROBABILITY, metadata=doc("of a vertical flip"))

    def build(self) -> Transform:
        from det_core.data.transforms import flip

        return flip(self)


@frozen(kw_only=True)
class ColorJitterConfig(TransformConfig):
    """Random brightness, contrast, saturation and hue, in random order (torchvision's ColorJitter)."""

    type: ClassVar[str] = "color_jitter"

    brightness: float = field(
        default=0.125, validator=validators.ge(0), metadata=doc("factor drawn from 1 - x .. 1 + x; 0 = off")
    )
    contrast: float = field(
        default=0.5, validator=validators.ge(0), metadata=doc("factor drawn from 1 - x .. 1 + x; 0 = off")
    )
    saturation: float = field(
        default=0.5, validator=validators.ge(0), metadata=doc("factor drawn from 1 - x .. 1 + x; 0 = off")
    )
    hue: float = field(
        default=0.05,
        validator=[validators.ge(0.0), validators.le(0.5)],
        metadata=doc("shift drawn from -x .. x of the colour circle; 0 = off"),
    )
    probability: float = field(default=0.5, validator=PROBABILITY, metadata=doc("of changing the image at all"))

    def build(self) -> Transform:
        from det_core.data.transforms import color_jitter

        return color_jitter(self)
