"""The interfaces of built parts, slot by slot, and the values that they exchange.

Letters: N images, L feature levels, R regions of interest, K foreground classes, C channels, H W padded input size,
h w feature size, A anchors per cell, n elements (anchors, regions, boxes), M objects, p positives, q negatives.
Boxes are xyxy float32 or float64 (never half) in pixels of the padded network input, unless said otherwise. Labels are
0..K-1, K is background in softmax heads. Sizes are (height, width).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from det_core.errors import DataError
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals, no_padded_form
from det_core.specs import RGB, FeatureSpec, OnBadSample, PixelFormat, ProposalLimits, RegionSpec
from det_core.structures import Batch, Classes, Detections, Key, LossTerm, Targets, full_precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from det_core.compressed_masks import CompressedMasks
    from det_ops import Canvas

Losses = Mapping[str, LossTerm]


class Backbone(nn.Module, ABC):
    """Images to feature maps. `out` equals the configuration's `feature_spec()`.

    Images are normalised by `detector.preprocess`, padded at the right and bottom, and float32, or half precision under
    autocast.
    """

    out: FeatureSpec

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) to L maps (N, C_l, H / stride_l, W / stride_l), sides rounded up, finest first."""

    def load_initial_weights(self) -> None:
        """Load the initial (ImageNet) weights that the configuration names, if any. Called before training."""

    def layers(self) -> Sequence[Sequence[str]]:
        """Its layers from the input on, for layer-wise decay of the learning rate: names of submodules of each.

        A parameter of the backbone itself is named as it is. Every parameter is in one layer. Empty: the backbone does
        not support it.
        """
        return ()


def is_within(parameter: str, parts: Sequence[str]) -> bool:
    """Whether a parameter of this name is one of the parts, which are submodules or parameters, or in one of them."""
    return any(parameter == part or parameter.startswith(f"{part}.") for part in parts)


class Neck(nn.Module, ABC):
    """Feature maps to feature maps. `out` equals the configuration's `feature_spec(inputs)`."""

    out: FeatureSpec

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """L_in maps (N, C, h, w) to L_out maps, finest first.

        Sides are those of the padded image over the stride, rounded up.
        """


class NotPretrained(nn.Module):
    """A layer without pretrained weights, such as the offsets of a deformable convolution: it keeps its own weights."""


class Head(nn.Module):
    """Base of all heads."""

    def class_dependent(self) -> tuple[str, ...]:
        """Names, relative to this module, of layers whose shape depends on the number of classes.

        Fine-tuning on other classes re-initialises them, but for the rows of classes that keep their names. Rows of
        dense heads are ordered by anchor, then class; those of others by class, with one or four values each. The
        background is last.
        """
        return ()


def class_dependent(module: nn.Module) -> list[str]:
    """Names of all parameters and buffers whose shape depends on the number of classes, as the heads declare."""
    prefixes = tuple(
        f"{name}.{layer}.".removeprefix(".")
        for name, head in module.named_modules()
        if isinstance(head, Head)
        for layer in head.class_dependent()
    )
    return [key for key in module.state_dict() if key.startswith(prefixes)]


Outputs = TypeVar("Outputs")


class DenseHead(Head, ABC, Generic[Outputs]):
    """A head that works on every location of the feature maps. Its outputs are a frozen attrs class.

    `forward` is called once per batch, then `losses` in training, and `predict` otherwise.

    compiles: whether `schedule.compile` may compile `forward`. torch.compile cannot create attrs classes and keeps no
    anchors: a head that creates its outputs by `dense_outputs` compiles.
    """

    compiles: ClassVar[bool] = False

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Outputs:
        """L feature maps (N, C, h, w) to the outputs that `losses` and `predict` take."""

    @abstractmethod
    def losses(self, outputs: Outputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """Loss terms by name; finite and with gradients to all parameters, even if no image has objects.

        targets: of each image, without ignored objects; boxes in pixels of the padded network input. `batch.infos` has
        sizes and keys (for random choices) of the images.
        """

    @abstractmethod
    def predict(self, outputs: Outputs, batch: Batch) -> list[Detections]:
        """Detections per image, best first, inside the image, in original pixels.

        `det_core.model.postprocess.suppress` is the usual end: NMS and the way to original pixels.
        """

    def predict_padded(self, outputs: Outputs, batch: PaddedBatch) -> PaddedDetections:
        """The detections of `predict`, in tensors of fixed size: for export. NotExportableError if it has no such form.

        No shape may depend on the values of tensors; batch size and feature sizes may be symbols.
        """
        raise no_padded_form(self, "predict_padded(outputs, batch)")


class ProposalHead(DenseHead[Outputs]):
    """A dense head that proposes boxes to a RoI head."""

    train_limits: ProposalLimits
    test_limits: ProposalLimits

    @abstractmethod
    def proposals(self, outputs: Outputs, batch: Batch, limits: ProposalLimits) -> list[Tensor]:
        """Per image (n, 4) detached boxes, best first, n <= limits.after_nms."""

    def proposals_padded(self, outputs: Outputs, batch: PaddedBatch, limits: ProposalLimits) -> PaddedProposals:
        """As `proposals`, limits.after_nms of each image; see `predict_padded`."""
        raise no_padded_form(self, "proposals_padded(outputs, batch, limits)")


class RoIHead(Head, ABC):
    """A head that works on proposals.

    `needs_masks` and `needs_semantic` equal those of the configuration.
    """

    needs_masks: bool = False
    needs_semantic: bool = False

    @abstractmethod
    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """Loss terms by name; finite and with gradients to all parameters, even if no image has objects or proposals.

        features: L maps of the neck. proposals: of each image (r, 4) boxes, detached, best first, r may be 0. targets:
        of each image, without ignored objects; with masks and semantic maps only if the head needs them.
        """

    @abstractmethod
    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Detections per image, best first, inside the image, in original pixels; proposals as in `losses`."""

    def predict_padded(
        self, features: Sequence[Tensor], proposals: PaddedProposals, batch: PaddedBatch
    ) -> PaddedDetections:
        """The detections of `predict`, in tensors of fixed size: for export. NotExportableError if it has no such form.

        No shape may depend on the values of tensors; batch size and feature sizes may be symbols.
        """
        raise no_padded_form(self, "predict_padded(features, proposals, batch)")


class RoIPool(nn.Module, ABC):
    """Feature maps and RoIs to one small map per RoI. `out` equals the configuration's `region_spec(inputs)`."""

    out: RegionSpec

    @abstractmethod
    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """L maps and (R, 5) rois (image index, x1, y1, x2, y2) to (R, C, height, width)."""


class Trunk(nn.Module, ABC):
    """A stage that the branches of a RoI head share. `out` equals the configuration's `region_spec(inputs)`."""

    out: RegionSpec

    def load_initial_weights(self) -> None:
        """Load the initial weights that the configuration names, if any. Called before training."""

    @abstractmethod
    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to (R, C', h', w')."""


@frozen(eq=False)
class BoxOutputs:
    """scores (R, K+1) logits, background last; deltas (R, 4K), or (R, 4) if regression is class-agnostic."""

    scores: Tensor
    deltas: Tensor


class BoxHead(Head, ABC):
    """Pooled regions to class scores and box deltas.

    `num_classes` is K; with `class_agnostic`, all classes share one box. `class_dependent()` names the layers of the
    scores, and of the deltas if they are not shared.
    """

    num_classes: int
    class_agnostic: bool = False

    @abstractmethod
    def forward(self, regions: Tensor) -> BoxOutputs:
        """(R, C, h, w) to scores and deltas; R may be 0."""


class MaskHead(Head, ABC):
    """Pooled regions to mask logits. `size` is the (height, width) of its masks; K is 1 if it is class-agnostic."""

    size: tuple[int, int]
    num_classes: int
    class_agnostic: bool = False

    @abstractmethod
    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to (R, K, height, width) logits; K = 1 if class-agnostic. R may be 0."""


class HiddenMaskHead(MaskHead):
    """A mask head that exposes its features, so that the next stage's head can use them (HTC's information flow)."""

    hidden_channels: int

    @abstractmethod
    def hidden(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to features (R, hidden_channels, h, w)."""

    @abstractmethod
    def logits_of(self, hidden: Tensor) -> Tensor:
        """Features (R, hidden_channels, h, w) to logits (R, K, height, width)."""

    def forward(self, regions: Tensor) -> Tensor:
        return self.logits_of(self.hidden(regions))


# Anchors, targets, losses


@frozen(eq=False)
class LevelAnchors:
    """boxes (h*w*A, 4) in the order (row, column, anchor); cells (h*w*A, 2) int64: row and column of each box."""

    boxes: Tensor
    cells: Tensor

    def valid(self, padded_size: tuple[int, int], stride: int) -> Tensor:
        """(h*w*A,) bool: the cell begins inside the padded image `(H, W)`."""
        rows, columns = (math.ceil(side / stride) for side in padded_size)
        return (self.cells[:, 0] < rows) & (self.cells[:, 1] < columns)


class AnchorGenerator(ABC):
    """Makes the anchors of every level."""

    strides: tuple[int, ...]

    @abstractmethod
    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[LevelAnchors]:
        """Anchors for feature sizes (h, w), one per level."""


BACKGROUND = -1
IGNORED = -2


@frozen(eq=False)
class Assignment:
    """objects: (N,) int64, for each candidate the index of its object, BACKGROUND, or IGNORED (neither)."""

    objects: Tensor

    def positive(self) -> Tensor:
        """(p,) int64 candidates that are assigned to an object, ascending."""
        return (self.objects >= 0).nonzero().flatten()

    def negative(self) -> Tensor:
        """(q,) int64 candidates that are assigned to background, ascending."""
        return (self.objects == BACKGROUND).nonzero().flatten()


class Assigner(ABC):
    """Assigns candidate boxes to objects."""

    @abstractmethod
    def __call__(self, boxes: Tensor, objects: Tensor) -> Assignment:
        """Assign candidates (N, 4) to objects (M, 4); either may be empty."""


class BoxCoder(ABC):
    """Encodes boxes as regression targets, and decodes them."""

    @abstractmethod
    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """(n, 4) deltas that transform `anchors` (n, 4) into `boxes` (n, 4)."""

    @abstractmethod
    def decode(self, anchors: Tensor, deltas: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(n, ..., 4) boxes from `anchors` (n, 4) and `deltas` (n, ..., 4), clipped to the image `(h, w)` if given."""

    def clip(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (..., 4) clipped to an image `(h, w)`, as `decode` does."""
        x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
        return torch.stack([x, y], -1).flatten(-2)

    def clip_batch(self, boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Boxes (N, ..., 4) of N images, each clipped to its size (h, w) as `clip` does."""
        return torch.stack([self.clip(own, size) for own, size in zip(boxes, sizes, strict=True)])

    def clip_images(self, boxes: Tensor, sizes: Tensor) -> Tensor:
        """Boxes (N, ..., 4) of N images, each clipped to its size (h, w) in `sizes` (N, 2): for export."""
        raise no_padded_form(self, "clip_images(boxes, sizes)")


@frozen(eq=False)
class Sampled:
    """positive (p,) and negative (q,) int64: indices of candidates; objects (p,) int64: the object of each positive."""

    positive: Tensor
    negative: Tensor
    objects: Tensor


@frozen(eq=False)
class SampledOnHost:
    """`Sampled` as arrays in host memory."""

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    objects: NDArray[np.int64]


class Sampler(ABC):
    """Selects the assigned candidates that a loss uses."""

    @abstractmethod
    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        """The sample of one image. It is random only in the image's key and the consumer's name."""

    def sample_images(
        self, assignments: Sequence[Assignment], keys: Sequence[Key], consumer: str
    ) -> list[SampledOnHost]:
        """The samples of several images: those of `__call__`. Override it if one wait for the device suffices."""
        found = [self(assignment, key, consumer) for assignment, key in zip(assignments, keys, strict=True)]
        return [SampledOnHost(*(x.numpy(force=True) for x in (s.positive, s.negative, s.objects))) for s in found]


class Loss(nn.Module, ABC):
    """Compares predictions with targets element by element; `weight` scales the sum.

    Usually only `elementwise` is written. `decoded` (whether a box loss is given boxes) equals the configuration's.
    """

    decoded = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    @abstractmethod
    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss of each element, neither weighted nor summed: (n, ...), finite, n may be 0.

        predicted: (n, K+1) or (n, K) logits, (n, 4) deltas, or with `decoded` (n, 4) boxes xyxy; never half precision.
        target: (n,) int64 labels, or (n, 4) as `predicted`.
        """

    def forward(self, predicted: Tensor, target: Tensor, count: Tensor | float) -> LossTerm:
        """The weighted sum over all elements, with the count that normalises it."""
        predicted = full_precision(predicted)
        return LossTerm(self.weight * self.elementwise(predicted, target).sum(), count)


# Data and metrics


@frozen
class BadSample:
    """One problem in a data set: what is wrong, the file, and the id of the image, annotation or category."""

    what: str
    file: str
    id: int | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@frozen(eq=False, kw_only=True)
class Sample:
    """One image with its annotations.

    image: (3, H, W) uint8 RGB, or (C, H, W) in the `PixelFormat` of the data set. boxes: (n, 4) float32 xyxy. labels:
    (n,) int64 in 0..K-1. ignored: (n,) bool, crowd regions and difficult objects. masks: compressed, or (n, H, W) uint8
    of 0 and 1, or None. semantic: (H, W) uint8 class ids with 255 ignored, or None. proposals: (p, 4) float32 xyxy,
    best first, or None. pixel_scale: (y, x) factors by which first and last pixels of boxes were multiplied; None if
    their corners were resized as the image. canvas: on which an 8-bit image is placed, but not yet drawn; the sample is
    then of the canvas' size. Only a `PlacingTransform` meets one.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    masks: Tensor | CompressedMasks | None = None
    semantic: Tensor | None = None
    proposals: Tensor | None = None
    file: str = ""
    image_id: int = 0
    pixel_scale: tuple[float, float] | None = None
    canvas: Canvas | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image, or of the canvas that it is placed on."""
        if self.canvas is not None:
            return self.canvas.height, self.canvas.width
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def targets(self) -> Targets:
        """The annotations as training targets."""
        return Targets(
            boxes=self.boxes, labels=self.labels, masks=self.masks, ignored=self.ignored, semantic=self.semantic
        )


class DetectionDataset(ABC):
    """Images with boxes (and masks), stored so that loader processes share the memory: in arrays, not in many objects.

    It is opened and checked as a whole, then pickled for loader processes, in which `load` is called. Evaluators call
    `ground_truth`.

    name: for messages. classes: names of labels 0..K-1 and their ids in the annotation file. sizes: (N, 2) int64
    (height, width). image_ids: (N,) int64, unique. has_masks: whether samples have masks. semantic_classes: number n
    of ids 0..n-1 that the samples' semantic maps may contain besides 255; 0 if samples have no maps. skipped: bad
    samples that were skipped. on_bad_sample: "error", or "skip" or "repair", which skip what cannot be loaded. trained:
    number of annotations that training uses; None if unknown. dropped: numbers of the valid annotations that it does
    not use, by what they are ("crowd regions", "without area"). filtered: number of images that the settings exclude.
    ignored_kind: what the ignored annotations are, for reports. notes: what else opening did to the data, a line each.
    pixels: the format that images are read in.
    """

    name: str
    classes: Classes
    sizes: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    has_masks: bool = False
    semantic_classes: int = 0
    on_bad_sample: OnBadSample = "error"
    trained: int | None = None
    dropped: Mapping[str, int] = MappingProxyType({})
    filtered: int = 0
    ignored_kind: str = "crowd regions"
    notes: Sequence[str] = ()
    pixels: PixelFormat = RGB
    skipped: list[BadSample]

    def __len__(self) -> int:
        return len(self.image_ids)

    def read_as(self, pixels: PixelFormat) -> None:
        """Read images in a format from now on; DataError if the data set reads no such images.

        Recipes call it with the format that the detector takes. A data set reads 8-bit RGB unless it overrides this.
        """
        if pixels != self.pixels:
            raise DataError(
                f"{self.name}: {type(self).__name__} reads only {self.pixels}, but the detector takes {pixels} "
                "(`detector.preprocess`); use a data set of another type, or override `read_as` and read them"
            )

    @abstractmethod
    def file(self, index: int) -> str:
        """Path of an image, for messages."""

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Read an image with its annotations; BadImage if it cannot be used.

        Boxes are inside the image and have an area. The sample has `file` and `image_id` of this index.
        """

    @abstractmethod
    def ground_truth(self) -> dict[str, Any]:
        """All annotations as a new COCO-format dict, for evaluators.

        `categories` have the original ids; `annotations` have `bbox` (xywh), `area`, `iscrowd` and, with masks,
        `segmentation`.
        """

    def object_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of all objects but ignored ones: index of the image (M,), and label (M,).

        This one reads `ground_truth`. Override it if the labels are in arrays.
        """
        import numpy as np

        images = {int(number): index for index, number in enumerate(self.image_ids)}
        labels = {number: label for label, number in enumerate(self.classes.ids)}
        objects = [
            (images[record["image_id"]], labels[record["category_id"]])
            for record in self.ground_truth()["annotations"]
            if not record["iscrowd"]
        ]
        made = np.array(objects, np.int64).reshape(-1, 2)
        return made[:, 0], made[:, 1]


class Transform(Protocol):
    """Returns a transformed sample, and does not change the one that it is given (`attrs.evolve` it).

    Boxes, masks, semantic map and proposals are moved with the pixels; labels, `ignored` and masks stay in the order of
    the boxes. The image is uint8, or float32 after a resize with `arithmetic: float`. Boxes may become empty; they are
    dropped afterwards, with their labels and masks. Masks are bitmaps (n, H, W) uint8, unless the transform is a
    `CompressedMasksTransform`.

    Draw random numbers only from torch's global CPU generator, which `apply_transforms` seeds for each sample; other
    generators (`random`, numpy) are not reproducible.
    """

    def __call__(self, sample: Sample, /) -> Sample: ...


@runtime_checkable
class CompressedMasksTransform(Transform, Protocol):
    """A transform that takes masks as they are: `CompressedMasks` if the data set has them, else bitmaps.

    For transforms that do not look at masks, and for those that only resize by nearest pixel, mirror or crop them.
    """

    takes_compressed_masks: bool


@runtime_checkable
class PlacingTransform(Transform, Protocol):
    """A transform that reads an image through its canvas (`Sample.canvas`), or places it on one.

    All others are given an image with all its pixels.
    """

    def on_canvas(self, sample: Sample, /) -> Sample:
        """The transformed sample, as by a call, of whose image the canvas may not be drawn yet."""


class Samples(Protocol):
    """Samples by index 0..len - 1, such as a data set."""

    def __len__(self) -> int: ...

    def load(self, index: int, /) -> Sample: ...


@runtime_checkable
class MixingTransform(Transform, Protocol):
    """A transform that mixes a sample with others of the data set, such as copy-paste.

    Only training gives it others. Elsewhere the transform is called as any other is, and should raise DataError.
    """

    def mix(self, sample: Sample, another: Callable[[], Sample], /) -> Sample:
        """The mixed sample.

        Each call of `another` draws a sample of the data set, and applies the transforms that precede this one, with
        random numbers of its own.
        """


@frozen(kw_only=True)
class EvaluationResult:
    """Metrics by name, as fractions of 1; nan without ground truth.

    per_class: metrics of each class by its name. table: the metrics as text of at most 80 columns.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] = attrs.field(factory=dict)
    table: str = ""


class Evaluator(ABC):
    """A metric on one data set.

    `encode` is called for every image on the rank that has it; then `compute` is called once with all ranks' records.
    """

    @abstractmethod
    def encode(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        """The detections of an image as JSON-serialisable records, with the image's id; there may be no detections.

        Boxes are xyxy in pixels of the original image, best first. Records of several ranks are joined in any order.
        """

    @abstractmethod
    def compute(self, results: list[dict[str, Any]]) -> EvaluationResult:
        """Metrics from the records of all images; `results` may be empty."""
