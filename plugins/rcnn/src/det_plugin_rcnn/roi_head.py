"""The second stage of Faster and Mask R-CNN (Ren et al., 2015; He et al., 2017).

Letters: N images, R regions of all images, n proposals or detections of one image, K foreground classes.
Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from det_core.contracts import BoxHead, Losses, MaskHead, RoIHead, RoIPool, Trunk
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, Targets, full_precision
from det_plugin_rcnn.box_stage import BoxStage
from det_plugin_rcnn.config import RCNNHeadConfig
from det_plugin_rcnn.detections import choose_detections
from det_plugin_rcnn.mask_branch import mask_term, of_class, region_masks
from det_plugin_rcnn.padded_regions import choose_padded, mask_regions_padded, mean_masks_padded, pool_padded
from det_plugin_rcnn.pooling import mask_regions, pool_regions, positive_regions


class RCNNHead(RoIHead):
    """Pools proposals, classifies and regresses them, and predicts masks if there is a mask head."""

    def __init__(
        self,
        config: RCNNHeadConfig,
        *,
        roi_pool: RoIPool,
        box_head: BoxHead,
        trunk: Trunk | None = None,
        mask_roi_pool: RoIPool | None = None,
        mask_head: MaskHead | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.roi_pool, self.trunk, self.box_head = roi_pool, trunk, box_head
        self.mask_roi_pool, self.mask_head = mask_roi_pool, mask_head
        self.needs_masks = mask_head is not None
        self.stage = BoxStage(config, box_head.num_classes, class_agnostic=box_head.class_agnostic)
        self.mask_loss = config.mask_loss.build()

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """`roi_cls` and `roi_box` of the sampled regions, `roi_mask` of the positive ones."""
        sampled = self.stage.sample(proposals, targets, batch.infos)
        regions = pool_regions(features, [s.boxes for s in sampled], self.roi_pool, self.trunk)
        boxes = self.stage.losses(self.box_head(regions), sampled, targets)
        losses = {"roi_cls": boxes.cls, "roi_box": boxes.box}
        if self.mask_head is not None:
            logits = self.mask_head(positive_regions(features, sampled, regions, self.mask_roi_pool))
            losses["roi_mask"] = mask_term(self.mask_loss, logits, sampled, targets, self.config.mask_targets)
        return losses

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Softmax scores, decoded boxes, NMS within each class, then the masks of the detections."""
        outputs = self.box_head(pool_regions(features, proposals, self.roi_pool, self.trunk))
        scores = full_precision(outputs.scores).softmax(-1)[:, :-1]
        original = self.config.decode_in == "original"
        decode = self.stage.decode_original if original else self.stage.decode
        boxes = decode(outputs.deltas, proposals, batch.infos)
        found = choose_detections(boxes, scores, batch.infos, self.config, original=original)
        if self.mask_head is None:
            return found.detections()
        kept = found.of_images(found.network)
        logits = self.mask_head(mask_regions(features, kept, self.roi_pool, self.trunk, self.mask_roi_pool))
        probabilities = full_precision(of_class(logits, found.labels)).sigmoid()
        return found.detections(region_masks(probabilities, found, batch.infos, self.config))

    def predict_padded(
        self, features: Sequence[Tensor], proposals: PaddedProposals, batch: PaddedBatch
    ) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""
        outputs = self.box_head(pool_padded(features, proposals.boxes, self.roi_pool, self.trunk))
        scores = full_precision(outputs.scores).softmax(-1)[:, :-1]
        original = self.config.decode_in == "original"
        boxes = self.stage.decode_padded(outputs.deltas, proposals.boxes, batch, original=original)
        found = choose_padded(boxes, scores, proposals.valid, batch, self.config, original=original)
        if self.mask_head is None:
            return found.detections
        regions = mask_regions_padded(features, found.boxes, self.roi_pool, self.trunk, self.mask_roi_pool)
        return found.with_masks(mean_masks_padded([self.mask_head(regions)], found), self.config)


def build_rcnn_head(config: RCNNHeadConfig, features: FeatureSpec, num_classes: int) -> RCNNHead:
    """Build the head and its parts from the features' spec."""
    mask_head = None
    if config.mask_head is not None:
        mask_head = config.mask_head.build(config.mask_regions(features), num_classes)
    return RCNNHead(
        config,
        roi_pool=config.roi_pool.build(features),
        trunk=None if config.trunk is None else config.trunk.build(config.roi_pool.region_spec(features)),
        box_head=config.box_head.build(config.box_regions(features), num_classes),
        mask_roi_pool=None if config.mask_roi_pool is None else config.mask_roi_pool.build(features),
        mask_head=mask_head,
    )
