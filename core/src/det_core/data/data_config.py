"""Configurations of core's data sets and transforms. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.conventions import ANY
from det_core.data.class_choice import CLASSES_DOC, entries_problem
from det_core.data.dataset_settings import FolderSettings, ProposalsSettings, RecordSettings, proposals_file
from det_core.data.pixel_rules import resize_refusal
from det_core.settings import configclass, setting
from det_core.slots import TransformConfig
from det_core.specs import OnBadSample, PixelFormat

if TYPE_CHECKING:
    from pathlib import Path

    from det_core.contracts import DetectionDataset, Transform
    from det_core.data.coco_sections import Sections
    from det_core.data.layout import Layout

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
class CocoConfig(RecordSettings):
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
        from det_core.data.semantic_maps import SemanticFolder
        from det_core.errors import DataError

        if semantic and self.semantic_dir is None:
            raise DataError(
                "the detector trains on semantic maps, but `data.train.semantic_dir` is not set; name a folder below "
                "the data root with a single-channel PNG for each image, such as COCO-Stuff's stuffthingmaps/train2017 "
                "(--set data.train.semantic_dir=FOLDER), or use a detector without a semantic branch"
            )
        maps = self._layout(root, semantic=semantic).semantic
        folder = None if maps is None else SemanticFolder(maps, self.semantic_classes)
        return self.open(root, masks=masks, on_bad_sample=on_bad_sample, semantic=folder)

    def read(self, root: str) -> tuple[Sections, Path]:
        """The data set, not checked, and the folder that its image names are relative to; DataError."""
        from det_core.data.coco_json import read_sections
        from det_core.data.image_names import with_found_names

        layout = self._layout(root, semantic=False)
        sections = read_sections(layout.annotations)
        return with_found_names(sections, layout.images, layout.annotations.parent), layout.images

    def is_there(self, root: str) -> bool:
        from det_core.data.layout import has_coco_split

        return self.annotations is not None or has_coco_split(self.place(root), self.split)

    def names_files(self) -> bool:
        return bool(self.annotations or self.images)

    def _layout(self, root: str, *, semantic: bool) -> Layout:
        from det_core.data.layout import find_layout

        maps = self.semantic_dir if semantic else None
        return find_layout(self.place(root), self.split, self.annotations, self.images, maps)


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
        "class names in the order of their labels, each a NAME, or OLD=NEW to rename it; null: all in the annotations, "
        "sorted",
        default=VOC_CLASSES,
        min_items=1,
        distinct=True,
        check=entries_problem,
    )
    other_classes: Literal["error", "drop"] = setting(
        "objects of other classes than these; error: they are bad samples; drop: they are left out and counted, and "
        "every class of `classes` must be in the annotations",
        default="error",
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
        from det_core.data.bad_samples import NoMasksError
        from det_core.data.voc_dataset import VocDataset
        from det_core.data.voc_layout import find_voc_sets
        from det_core.errors import DataError

        if masks or semantic:
            what, kind = ("instance masks", NoMasksError) if masks else ("semantic maps", DataError)
            raise kind(
                f"{root}: {what} are required, but data in VOC format have only boxes; use a recipe that needs none, "
                "or data in COCO format (`type: coco`)"
            )
        return VocDataset(
            find_voc_sets(self.place(root), self.split, self.sets),
            self.classes,
            name=self.place(root),
            other_classes=self.other_classes,
            difficult=self.difficult,
            corners=self.corners,
            on_bad_sample=on_bad_sample,
            filter_empty=self.filter_empty,
            min_size=self.min_size,
            allow_outside=self.allow_outside,
            proposals=proposals_file(self.place(root), self.proposals),
            max_proposals=self.max_proposals,
            part=self.part,
        )

    def is_there(self, root: str) -> bool:
        from det_core.data.voc_layout import has_voc_split

        return self.sets is not None or has_voc_split(self.place(root), self.split)

    def names_files(self) -> bool:
        return self.sets is not None


@configclass
class SampleConfig(ProposalsSettings):
    """The bundled sample: 24 microscope images of cell nuclei with masks.

    Semantic maps are made from the masks: id 0 is nucleus, like its label, and id 1 is the rest.
    """

    type: ClassVar[str] = "sample"

    split: Literal["train", "val"] = setting("17 images to train on, or 7 to evaluate")
    classes: tuple[str, ...] | None = setting(CLASSES_DOC, default=None, min_items=1, check=entries_problem)

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
            proposals=proposals_file("", self.proposals),
            max_proposals=self.max_proposals,
            classes=self.classes,
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

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return resize_refusal(self.arithmetic, pixels)

    def build(self) -> Transform:
        from det_core.data.transforms import Resize

        return Resize(self)


@configclass
class FlipConfig(TransformConfig):
    """Mirror the image with its boxes, masks and semantic map."""

    type: ClassVar[str] = "flip"

    probability: float = setting("probability of a horizontal flip", default=0.5, least=0, most=1)
    vertical_probability: float = setting("probability of a vertical flip", default=0.0, least=0, most=1)

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return ""

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
