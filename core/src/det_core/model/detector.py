"""The detector: preprocess, backbone, neck, dense head and RoI head of every model.

Letters: N images, n objects or detections of one image, H W padded input size. Boxes are xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from det_core.boxes.device_copies import send
from det_core.contracts import Backbone, DenseHead, Neck, ProposalHead, RoIHead, Trunk, class_dependent
from det_core.data.data_config import ResizeConfig
from det_core.errors import DetError, counted
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.model.fold_batch_norm import NormAffines
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals
from det_core.slots import TransformConfig
from det_core.structures import Batch, Classes, Detections, ImageInfo, LossTerm, Targets

Proposals = TypeVar("Proposals", Sequence[Tensor], PaddedProposals)


class Preprocess(nn.Module):
    """Images, by default 8-bit RGB, to a padded, normalised batch in the detector's dtype."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: PreprocessConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)

    def forward(
        self, images: Sequence[Tensor], infos: Sequence[ImageInfo], proposals: Sequence[Tensor] | None = None
    ) -> Batch:
        """A batch of images (C, h, w), each in the top-left corner, padded with 0 after normalisation.

        They are uint8, or floating point in the same range. Raises DetError for images of other channels.
        """
        device = self.mean.device
        if device.type == "cuda" and not any(i.is_cuda for i in images):  # there transfers and launches count
            return self.normalised(send(self.canvas(images, pinned=True), device), infos, proposals)
        # Pixel by pixel, as images are loaded, and as the convolutions of a trained or loaded detector take them.
        height, width = self._padded_size(images)
        channels = len(self.mean)
        out = self.mean.new_zeros((len(images), height, width * channels))
        for row, image in zip(out, images, strict=True):
            self._normalise(image.to(out.device, non_blocking=True), row)
        return self._batch(out.view(len(images), height, width, channels), infos, proposals)

    def canvas(self, images: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
        """Images (C, h, w) in the top-left corners of one (N, H, W, C) in host memory, 0 elsewhere.

        It is uint8, or float32 if an image is floating point. pinned: in pinned memory.
        """
        dtype = torch.float32 if any(image.is_floating_point() for image in images) else torch.uint8
        out = torch.zeros(len(images), *self._padded_size(images), len(self.mean), dtype=dtype, pin_memory=pinned)
        for row, image in zip(out, images, strict=True):
            row[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
        return out

    def normalised(
        self, canvas: Tensor, infos: Sequence[ImageInfo], proposals: Sequence[Tensor] | None = None
    ) -> Batch:
        """The batch of a `canvas` (N, H, W, C) on the device, bit for bit as `forward`, all images at once."""
        pixels = canvas.flip(3) if self.config.order == "bgr" else canvas
        out = torch.sub(pixels, self.mean.flatten()).div_(self.std.flatten())
        for row, (height, width) in zip(out, (info.size for info in infos), strict=True):
            if height < row.shape[0]:
                row[height:].zero_()
            if width < row.shape[1]:
                row[:height, width:].zero_()
        return self._batch(out, infos, proposals)

    def _padded_size(self, images: Sequence[Tensor]) -> tuple[int, int]:
        """(H, W) of a batch of images (C, h, w); DetError if one has other channels than the detector takes."""
        for image in images:
            if len(image) != len(self.mean):
                raise DetError(
                    f"an image has {counted(len(image), 'channel')}, but the detector takes {self.config.pixels()}; "
                    "call `read_as(detector.preprocess.config.pixels())` of a data set that you opened yourself"
                )
        divisor = self.config.pad_divisor
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def _batch(self, maps: Tensor, infos: Sequence[ImageInfo], proposals: Sequence[Tensor] | None) -> Batch:
        """A batch of normalised images (N, H, W, C)."""
        given = None if proposals is None else tuple(p.to(maps.device, maps.dtype) for p in proposals)
        return Batch(images=maps.permute(0, 3, 1, 2), infos=tuple(infos), proposals=given)

    def _normalise(self, image: Tensor, out: Tensor) -> None:
        """An image (C, h, w) into the corner of (H, W * C), in which whole rows are computed at once."""
        pixels = (image.flip(0) if self.config.order == "bgr" else image).permute(1, 2, 0)
        height, width, channels = pixels.shape
        mean, std = (x.flatten().repeat(width) for x in (self.mean, self.std))
        corner = out[:height, : width * channels]
        torch.sub(pixels.reshape(height, width * channels), mean, out=corner).div_(std)


class Detector(nn.Module):
    """preprocess -> backbone -> neck -> dense head -> RoI head; the last three are optional.

    classes: names of labels 0..K-1 and the data set's ids. config: the configuration it was built from, if any.
    test_transforms: the transforms of images at test time.
    """

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        backbone: Backbone,
        neck: Neck | None = None,
        dense_head: DenseHead[Any] | None = None,
        roi_head: RoIHead | None = None,
        classes: Classes,
        config: DetectorConfig | None = None,
        test_transforms: tuple[TransformConfig, ...] = (ResizeConfig(),),
    ) -> None:
        super().__init__()
        if dense_head is None and roi_head is None:
            raise TypeError("a detector needs a dense_head, a roi_head, or both")
        if roi_head is not None and dense_head is not None and not isinstance(dense_head, ProposalHead):
            raise TypeError(
                f"{type(dense_head).__name__} proposes no boxes, so {type(roi_head).__name__} cannot follow"
            )
        self.preprocess = preprocess
        self.backbone = backbone
        self.neck = neck
        self.dense_head = dense_head
        self.roi_head = roi_head
        self.classes = classes
        self.config = config
        self.test_transforms = test_transforms
        self.norm_affines = NormAffines()

    @property
    def needs_masks(self) -> bool:
        """Whether training needs instance masks."""
        return self.roi_head is not None and self.roi_head.needs_masks

    @property
    def needs_semantic(self) -> bool:
        """Whether training needs semantic maps."""
        return self.roi_head is not None and self.roi_head.needs_semantic

    @property
    def takes_proposals(self) -> bool:
        """Whether images need proposals, because no part proposes boxes (Fast R-CNN)."""
        return self.dense_head is None

    @property
    def found_classes(self) -> Classes:
        """The classes of its detections: its classes, or one class `object` if it only proposes regions."""
        if self.roi_head is None and isinstance(self.dense_head, ProposalHead):
            return Classes(names=("object",), ids=(1,))
        return self.classes

    def features(self, batch: Batch) -> list[Tensor]:
        """The feature maps (N, C, h, w) that the heads receive, finest first."""
        return self.maps_of(batch.images)

    def maps_of(self, images: Tensor) -> list[Tensor]:
        """The feature maps (N, C, h, w) of normalised images (N, C, H, W)."""
        # Convolutions on CPUs and tensor cores compute in this layout, and their outputs keep it.
        maps: list[Tensor] = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return maps if self.neck is None else self.neck(maps)

    def losses(self, batch: Batch, targets: Sequence[Targets]) -> dict[str, LossTerm]:
        """Loss terms by name, finite even if no image has objects. Ignored targets are dropped here."""
        objects = [t.objects() for t in targets]
        with self.norm_affines.computed(self):
            return self._losses(batch, objects)

    def _losses(self, batch: Batch, objects: Sequence[Targets]) -> dict[str, LossTerm]:
        features = self.features(batch)
        terms: dict[str, LossTerm] = {}
        proposals = batch.proposals
        if self.dense_head is not None:
            outputs = self.dense_head(features)
            terms.update(self.dense_head.losses(outputs, objects, batch))
            if self.roi_head is not None and isinstance(self.dense_head, ProposalHead):
                proposals = tuple(self.dense_head.proposals(outputs, batch, self.dense_head.train_limits))
        if self.roi_head is not None:
            terms.update(self.roi_head.losses(features, _require_proposals(proposals), objects, batch))
        return terms

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Detections]:
        """Detections per image, best first, in pixels of the original images."""
        features = self.features(batch)
        proposals = batch.proposals
        if self.dense_head is not None:
            outputs = self.dense_head(features)
            if self.roi_head is None:
                return self.dense_head.predict(outputs, batch)
            if isinstance(self.dense_head, ProposalHead):
                proposals = tuple(self.dense_head.proposals(outputs, batch, self.dense_head.test_limits))
        assert self.roi_head is not None
        return self.roi_head.predict(features, _require_proposals(proposals), batch)

    @torch.no_grad()
    def predict_padded(self, batch: PaddedBatch) -> PaddedDetections:
        """As `predict`, in tensors of fixed size: for export, CUDA graphs and compiled code.

        Raises:
            NotExportableError: for a part, or a setting, that has no such form.
            DetError: if it `takes_proposals` and the batch has none.
        """
        features = self.maps_of(batch.images)
        proposals = batch.proposals
        if self.dense_head is not None:
            outputs = self.dense_head(features)
            if self.roi_head is None:
                return self.dense_head.predict_padded(outputs, batch)
            if isinstance(self.dense_head, ProposalHead):
                proposals = self.dense_head.proposals_padded(outputs, batch, self.dense_head.test_limits)
        assert self.roi_head is not None
        return self.roi_head.predict_padded(features, _require_proposals(proposals), batch)

    def forward(self, batch: Batch, targets: Sequence[Targets] | None = None) -> dict[str, LossTerm] | list[Detections]:
        """`losses` if targets are given, otherwise `predict`; wrappers such as DDP need one entry point."""
        return self.predict(batch) if targets is None else self.losses(batch, targets)

    def load_initial_weights(self) -> None:
        """Load the initial weights that the backbone and RoI trunks name, if any. Called before training."""
        self.backbone.load_initial_weights()
        for module in self.modules():
            if isinstance(module, Trunk):
                module.load_initial_weights()

    def class_dependent(self) -> list[str]:
        """Names of all parameters and buffers whose shape depends on the number of classes, as the heads declare."""
        return class_dependent(self)


def _require_proposals(proposals: Proposals | None) -> Proposals:
    if proposals is None:
        raise DetError(
            "this detector has a roi_head but no dense_head that proposes boxes, and the batch has no proposals; "
            "add a proposal head (type: rpn) or give the data set a proposals file"
        )
    return proposals


def build_detector(config: DetectorConfig, num_classes: int | None, classes: Classes | None) -> Detector:
    """Build every part from its configuration and the features of the part before it."""
    if (num_classes is None) == (classes is None):
        raise TypeError("give either num_classes or classes")
    count = len(classes) if classes is not None else num_classes or 0
    if count < 1:
        what = "classes are empty" if classes is not None else f"num_classes is {count}"
        raise ValueError(f"{what}; a detector needs at least 1 foreground class")
    classes = classes if classes is not None else Classes.numbered(count)
    backbone = config.backbone.build()
    features = backbone.out
    neck = None
    if config.neck is not None:
        neck = config.neck.build(features)
        features = neck.out
    return Detector(
        preprocess=Preprocess(config.preprocess),
        backbone=backbone,
        neck=neck,
        dense_head=None if config.dense_head is None else config.dense_head.build(features, count),
        roi_head=None if config.roi_head is None else config.roi_head.build(features, count),
        classes=classes,
        config=config,
    )
