"""The double head (Wu et al., Rethinking Classification and Localization for Object Detection, CVPR 2020).

The paper's extended form, in which each branch also does the other's task, is not included.

Letters: N images, R regions of all images, r regions of one image, K foreground classes.
Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from det_core.contracts import Losses, RoIHead, RoIPool
from det_core.model.detection_config import DetectionSettings
from det_core.model.layers import to_rois
from det_core.model.losses import box_loss
from det_core.model.postprocess import Pairs, decode_images, suppress
from det_core.model.sample_regions import SampledRegions, sample_regions
from det_core.structures import Batch, Detections, ImageInfo, Targets, full_precision
from torch import Tensor

from det_plugin_double_head.branches import BoxBranch, ClassBranch
from det_plugin_double_head.config import DoubleHeadConfig
from det_plugin_double_head.windows import enlarge


class DoubleHead(RoIHead):
    """One branch classifies regions, the other regresses boxes. Each pools its own regions."""

    def __init__(
        self, config: DoubleHeadConfig, *, roi_pool: RoIPool, class_branch: ClassBranch, box_branch: BoxBranch
    ) -> None:
        super().__init__()
        self.config = config
        self.roi_pool = roi_pool
        self.class_branch, self.box_branch = class_branch, box_branch
        self.num_classes = class_branch.scores.out_features - 1
        self.assigner, self.sampler = config.assigner.build(), config.sampler.build()
        self.coder = config.coder.build()
        self.cls_loss, self.box_loss = config.cls_loss.build(), config.box_loss.build()
        self.limits = DetectionSettings(
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
        )

    def class_dependent(self) -> tuple[str, ...]:
        return ("class_branch.scores", "box_branch.deltas")

    def scores(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(R, K+1) logits of each image's boxes (r, 4), in order."""
        scores: Tensor = self.class_branch(self.roi_pool(features, to_rois(list(boxes))))
        return full_precision(scores)

    def deltas(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(R, K, 4) deltas of each image's boxes (r, 4), in order, from enlarged regions."""
        windows = [enlarge(b, self.config.box_region_scale) for b in boxes]
        deltas: Tensor = self.box_branch(self.roi_pool(features, to_rois(windows)))
        return full_precision(deltas)

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """`roi_cls` of sampled regions, `roi_box` of positive ones; normalised by the number of sampled regions."""
        sampled = [self._sample(p, t, i) for p, t, i in zip(proposals, targets, batch.infos, strict=True)]
        labels = torch.cat([s.labels for s in sampled])
        positive = [s.positive for s in sampled]
        own = labels[labels < self.num_classes]
        deltas = self.deltas(features, positive)[torch.arange(len(own), device=own.device), own]
        objects = torch.cat([t.boxes[s.objects] for t, s in zip(targets, sampled, strict=True)])
        count = float(len(labels))
        return {
            "roi_cls": self.cls_loss(self.scores(features, [s.boxes for s in sampled]), labels, count),
            "roi_box": box_loss(self.box_loss, self.coder, torch.cat(positive), deltas, objects, count),
        }

    def _sample(self, proposals: Tensor, target: Targets, info: ImageInfo) -> SampledRegions:
        """Sample one image's regions from the proposals and the ground-truth boxes."""
        return sample_regions(
            proposals,
            target,
            assigner=self.assigner,
            sampler=self.sampler,
            num_classes=self.num_classes,
            key=info.key,
            consumer="double_head",
        )

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Softmax scores, decoded boxes, then NMS within each class in original pixels."""
        scores = self.scores(features, proposals).softmax(-1)[:, :-1]
        sizes = [info.size for info in batch.infos]
        boxes = decode_images(self.coder, proposals, self.deltas(features, proposals), sizes)
        pairs = Pairs.where(scores > self.limits.score_threshold, boxes, scores)
        return suppress(pairs, batch.infos, self.limits)
