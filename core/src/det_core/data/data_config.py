"""Configurations of core's data sets and transforms. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.conventions import ANY
from det_core.settings import configclass, setting
from det_core.slots import DatasetConfig, TransformConfig
from det_core.specs import OnBadSample, Split

if TYPE_CHECKING:
    from pathlib import Path

    from det_core.contracts import DetectionDataset, Transform

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


@configclass
class ProposalsSettings(DatasetConfig):
    """A data set whose samples may have proposals from a file."""

    proposals: str | None = setting(
        "proposals file (`det-core proposals` writes it) for a detector without a proposal head; relative to the data "
        "folder (the sample: to the working folder), or absolute; null: none",
        default=None,
    )
    max_proposals: int | None = setting("maximum proposals per image, best first; null: all", default=None, least=1)

    def has_proposals(self) -> bool:
        return self.proposals is not None


@configclass
class FolderSettings(ProposalsSettings):
    """Settings of data sets of every format in a folder of images."""

    split: Split = setting("part of the data set")
    filter_empty: bool = setting("exclude images without annotations", default=False)
    min_size: int = setting("exclude images with a shorter side below this", default=0, least=0)
    allow_outside: bool = setting(
        "take images whose names in the annotations lead out of the image folder; --allow-outside sets it",
        default=False,
    )


@configclass
class CocoConfig(FolderSettings):
    """A data set in COCO format: one JSON file and a folder of images."""

    type: ClassVar[str] = "coco"

    annotations: str | None = setting("annotation file below the root; null: search the usual layouts", default=None)
    images: str | None = setting("image folder below the root; null: search the usual layouts", default=None)
    semantic_dir: str | None = setting(
        "folder below the root with semantic maps, for a detector that trains on them: single-channel PNGs of class "
        "ids, named like the images, 255 for unlabelled; null: none",
        default=None,
    )
    semantic_classes: int = setting(
        "number n of ids 0..n-1 that semantic maps may contain besides 255; COCO-Stuff has 182 (things and stuff)",
        default=182,
        least=1,
        most=255,
    )

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        """Open and check the data set; DataError (also LayoutError) with what is wrong."""
        from det_core.data.coco_dataset import CocoDataset
        from det_core.data.layout import find_layout
        from det_core.data.semantic_maps import SemanticFolder
        from det_core.errors import DataError

        if semantic and self.semantic_dir is None:
            raise DataError(
                "the detector trains on semantic maps, but `data.train.semantic_dir` is not set; name a folder below "
                "the data root with a single-channel PNG for each image, such as COCO-Stuff's stuffthingmaps/train2017 "
                "(--set data.train.semantic_dir=FOLDER), or use a detector without a semantic branch"
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
            allow_outside=self.allow_outside,
            proposals=_proposals(root, self.proposals),
            max_proposals=self.max_proposals,
        )


def _proposals(root: str, name: str | None) -> Path | None:
    """The proposals file that a configuration names; DataError if it does not exist."""
    from det_core.data.proposals_file import proposals_path

    return None if name is None else proposals_path(root, name)


def _check_names(names: tuple[str, ...]) -> str:
    return "" if all(names) else "a name is empty"


@configclass
class VocConfig(FolderSettings):
    """A data set in PASCAL VOC format: folders Annotations (an XML file per image), ImageSets/Main and JPEGImages.

    The root is such a folder, or contains such folders (VOC2007, VOC2012, ...) or their VOCdevkit. The images of all
    `sets` form one data set.
    """

    type: ClassVar[str] = "voc"

    sets: tuple[str, ...] | None = setting(
        "image sets, such as VOC2007/trainval, or trainval if there is only one folder; null: trainval and test, or "
        "else train and val, of VOC2007 and VOC2012 or of the only folder",
        default=None,
        min_items=1,
        distinct=True,
        check=_check_names,
    )
    classes: tuple[str, ...] | None = setting(
        "class names in the order of their labels; null: all in the annotations, sorted",
        default=VOC_CLASSES,
        min_items=1,
        distinct=True,
        check=_check_names,
    )
    difficult: Literal["ignore", "keep"] = setting(
        "difficult objects; ignore: exclude them from training, like crowd regions, and from metrics; keep: treat them "
        "as other objects",
        default="ignore",
    )
    corners: Literal["inclusive", "exact"] = setting(
        "inclusive: VOC's pixel indices from 1, both in the box, which is (xmin - 1, ymin - 1, xmax, ymax); exact: "
        "coordinates that are not changed",
        default="inclusive",
    )

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        """Open and check the data set; DataError (also LayoutError) with what is wrong."""
        from det_core.data.layout import find_voc_sets
        from det_core.data.voc_dataset import VocDataset
        from det_core.errors import DataError

        if masks or semantic:
            what = "instance masks" if masks else "semantic maps"
            raise DataError(
                f"{root}: {what} are required, but data in VOC format have only boxes; use a recipe that needs none, "
                "or data in COCO format (`type: coco`)"
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
            allow_outside=self.allow_outside,
            proposals=_proposals(root, self.proposals),
            max_proposals=self.max_proposals,
        )


@configclass
class SampleConfig(ProposalsSettings):
    """The bundled sample: 24 microscope images of cell nuclei with masks.

    Semantic maps are made from the masks: id 0 is nucleus, like its label, and id 1 is the rest.
    """

    type: ClassVar[str] = "sample"

    split: Split = setting("17 images to train on, or 7 to evaluate")

    def build(
        self, root: str = "", *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        """Open the sample; `root` is ignored."""
        from det_core.data.coco_dataset import CocoDataset
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


@configclass
class ResizeConfig(TransformConfig):
    """Resize to a scale, bilinear without antialiasing; masks and semantic maps by nearest pixel.

    With `keep_ratio` a scale is the maximum (long edge, short edge). The factor is
    min(long / max(h, w), short / min(h, w)), and the new size int(side * factor + 0.5), or int(side * factor) with
    `rounding: down`. Without `keep_ratio` a scale is (width, height).
    """

    type: ClassVar[str] = "resize"

    scales: Scales = setting(
        "maximum (long edge, short edge) in pixels; without keep_ratio (width, height)",
        default=((1333, 800),),
        min_items=1,
        least=1,
    )
    keep_ratio: bool = setting("keep the aspect ratio of the image", default=True)
    mode: Literal["choice", "range"] = setting(
        "choice: draw one of the scales; range: draw each edge uniformly between the two scales", default="choice"
    )
    rounding: Literal["nearest", "down", "short"] = setting(
        "rounding of a new side, with keep_ratio; down: as torchvision's detectors; short: the short side to the "
        "nearest pixel, and the long side, from it, down (maskrcnn-benchmark)",
        default="nearest",
        conventions={"torchvision": ANY, "maskrcnn-benchmark": "short"},  # its SSD resizes to a fixed size
    )
    arithmetic: Literal["fixed_point", "float", "antialiased"] = setting(
        "fixed_point: OpenCV's 8-bit arithmetic; float: torch's, which keeps fractions (torchvision's detectors); "
        "antialiased: Pillow's, which averages where it shrinks (detectron2, maskrcnn-benchmark)",
        default="fixed_point",
        conventions={
            "torchvision": "float",
            "detectron2": "antialiased",
            "maskrcnn-benchmark": "antialiased",
            "detectron": "float",
        },
    )
    boxes: Literal["edges", "pixels", "pixels_by_axis"] = setting(
        "what is multiplied; edges: a box's corners, by new / old side of each axis; pixels: its first and last "
        "pixels, with keep_ratio by the factor before sides are rounded (mmdet 0.x and 1.x, Detectron); "
        "pixels_by_axis: these pixels, by new / old side of each axis (maskrcnn-benchmark)",
        default="edges",
        conventions={"mmdet1": "pixels", "detectron": "pixels", "maskrcnn-benchmark": "pixels_by_axis"},
    )

    def __attrs_post_init__(self) -> None:
        if self.mode == "range" and len(self.scales) != 2:
            raise ValueError(f"mode: range draws between two scales, but {len(self.scales)} given in `scales`")

    def build(self) -> Transform:
        from det_core.data.transforms import Resize

        return Resize(self)


@configclass
class FlipConfig(TransformConfig):
    """Mirror the image with its boxes, masks and semantic map."""

    type: ClassVar[str] = "flip"

    probability: float = setting("probability of a horizontal flip", default=0.5, least=0, most=1)
    vertical_probability: float = setting("probability of a vertical flip", default=0.0, least=0, most=1)

    def build(self) -> Transform:
        from det_core.data.transforms import Flip

        return Flip(self)


@configclass
class ColorJitterConfig(TransformConfig):
    """Random brightness, contrast, saturation and hue, in random order (torchvision's ColorJitter)."""

    type: ClassVar[str] = "color_jitter"

    brightness: float = setting("draw a factor from 1 - x .. 1 + x; 0: off", default=0.125, least=0)
    contrast: float = setting("draw a factor from 1 - x .. 1 + x; 0: off", default=0.5, least=0)
    saturation: float = setting("draw a factor from 1 - x .. 1 + x; 0: off", default=0.5, least=0)
    hue: float = setting("draw a shift from -x .. x of the hue circle; 0: off", default=0.05, least=0, most=0.5)
    probability: float = setting("probability of applying the transform", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_core.data.transforms import color_jitter

        return color_jitter(self)
