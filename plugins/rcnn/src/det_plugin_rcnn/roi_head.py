"""The second stage of Faster and Mask R-CNN (Ren et al., 2015; He et al., 2017).

Letters: N images, R regions of all images, p positives among them, K foreground classes, S side of a mask.
Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import evolve
from torch import Tensor

from det_core.config.base import FeatureSpec
from det_core.model.contracts import BoxHead, Losses, MaskHead, RoIHead, RoIPool, Trunk
from det_core.model.layers import to_rois
from det_core.model.losses import box_loss, full_precision
from det_core.model.masks import PASTE, mask_targets
from det_core.model.postprocess import Chosen, class_wise_nms, to_original
from det_core.model.regions import SampledRegions, sample_regions
from det_core.structures import Batch, Detections, ImageInfo, LossTerm, Targets
from det_plugin_rcnn.config import RCNNHeadConfig


class RCNNHead(RoIHead):
    """Pools proposals, classifies and regresses them, and segments them where there is a mask head."""

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
        self.assigner = config.assigner.build()
        self.sampler = config.sampler.build()
        self.coder = config.coder.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()
        self.mask_loss = config.mask_loss.build()

    def box_regions(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """What the box head sees: pooled features, through the shared trunk if there is one."""
        regions: Tensor = self.roi_pool(features, rois)
        return regions if self.trunk is None else self.trunk(regions)

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """`roi_cls` and `roi_box` over the sampled regions, `roi_mask` over the positive ones."""
        sampled = [self._sample(p, t, info) for p, t, info in zip(proposals, targets, batch.infos, strict=True)]
        regions = self.box_regions(features, to_rois([s.boxes for s in sampled]))
        losses = self._box_losses(regions, sampled, targets)
        if self.mask_head is not None:
            losses["roi_mask"] = self._mask_loss(features, regions, sampled, targets)
        return losses

    def _sample(self, proposals: Tensor, target: Targets, info: ImageInfo) -> SampledRegions:
        return sample_regions(
            proposals,
            target,
            assigner=self.assigner,
            sampler=self.sampler,
            num_classes=self.box_head.num_classes,
            key=info.key,
            add_objects=self.config.add_ground_truth,
        )

    def _box_losses(
        self, regions: Tensor, sampled: Sequence[SampledRegions], targets: Sequence[Targets]
    ) -> dict[str, LossTerm]:
        outputs = self.box_head(regions)
        labels = torch.cat([s.labels for s in sampled])
        count = float(len(labels))
        positive = (labels < self.box_head.num_classes).nonzero().flatten()
        deltas = outputs.deltas[positive]
        if not self.box_head.class_agnostic:
            rows = torch.arange(len(positive), device=deltas.device)
            deltas = deltas.unflatten(1, (-1, 4))[rows, labels[positive]]
        anchors = torch.cat([s.positive for s in sampled])
        boxes = torch.cat([t.boxes[s.objects] for s, t in zip(sampled, targets, strict=True)])
        return {
            "roi_cls": self.cls_loss(outputs.scores, labels, count),
            "roi_box": box_loss(self.box_loss, self.coder, anchors, deltas, boxes, count),
        }

    def _mask_loss(
        self, features: Sequence[Tensor], regions: Tensor, sampled: Sequence[SampledRegions], targets: Sequence[Targets]
    ) -> LossTerm:
        assert self.mask_head is not None
        labels = torch.cat([s.positive_labels for s in sampled])
        if self.mask_roi_pool is None:
            positive = torch.cat([s.labels < self.box_head.num_classes for s in sampled])
            regions = regions[positive]
        else:
            regions = self.mask_roi_pool(features, to_rois([s.positive for s in sampled]))
        logits = self._of_class(self.mask_head(regions), labels)
        wanted = torch.cat(
            [
                mask_targets(_masks_of(t), s.objects, s.positive, self.mask_head.size)
                for s, t in zip(sampled, targets, strict=True)
            ]
        )
        pixels = self.mask_head.size[0] * self.mask_head.size[1]
        term = self.mask_loss(logits, wanted, float(len(labels)))
        return LossTerm(term.total / pixels, term.count)

    def _of_class(self, masks: Tensor, labels: Tensor) -> Tensor:
        """(R, K, S, S) masks to (R, S, S): each region's own class."""
        assert self.mask_head is not None
        if self.mask_head.class_agnostic:
            return masks[:, 0]
        return masks[torch.arange(len(labels), device=masks.device), labels]

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Softmax scores, decoded boxes, NMS inside each class, then masks of what is left."""
        outputs = self.box_head(self.box_regions(features, to_rois(list(proposals))))
        sizes = [len(p) for p in proposals]
        scores = full_precision(outputs.scores).softmax(-1)[:, :-1].split(sizes)
        deltas = full_precision(outputs.deltas).split(sizes)
        chosen, network_boxes = [], []
        for row, info in enumerate(batch.infos):
            boxes, kept = self._choose(proposals[row], scores[row], deltas[row], info)
            network_boxes.append(boxes)
            chosen.append(kept)
        masks: Sequence[Tensor | None] = [None] * len(chosen)
        if self.mask_head is not None:
            masks = self._predict_masks(features, network_boxes, chosen, batch.infos)
        return [
            Detections(boxes=c.boxes, scores=c.scores, labels=c.labels, masks=m)
            for c, m in zip(chosen, masks, strict=True)
        ]

    def _choose(self, proposals: Tensor, scores: Tensor, deltas: Tensor, info: ImageInfo) -> tuple[Tensor, Chosen]:
        """One image's detections: their boxes in network pixels, and all of them in original pixels."""
        config = self.config
        agnostic = self.box_head.class_agnostic
        boxes = self.coder.decode(proposals, deltas if agnostic else deltas.unflatten(1, (-1, 4)), info.size)
        if config.min_size:
            large = ((boxes[..., 2:] - boxes[..., :2]) >= config.min_size).all(-1)  # (R,) or (R, K)
            scores = scores.where(large[:, None] if agnostic else large, scores.new_tensor(-1.0))
        chosen = class_wise_nms(
            boxes if config.nms_in == "network" else to_original(boxes, info),
            scores,
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
            soft=config.soft_nms,
            class_agnostic=config.class_agnostic_nms,
        )
        if config.nms_in == "network":
            return chosen.boxes, evolve(chosen, boxes=to_original(chosen.boxes, info))
        return boxes[chosen.rows] if agnostic else boxes[chosen.rows, chosen.labels], chosen

    def _predict_masks(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], chosen: Sequence[Chosen], infos: Sequence[ImageInfo]
    ) -> list[Tensor]:
        """Per image (n, height, width) bool masks in the original image."""
        assert self.mask_head is not None
        rois = to_rois(list(boxes))
        regions = self.box_regions(features, rois) if self.mask_roi_pool is None else self.mask_roi_pool(features, rois)
        logits = self._of_class(self.mask_head(regions), torch.cat([c.labels for c in chosen]))
        probabilities = full_precision(logits).sigmoid().split([len(b) for b in boxes])
        paste = PASTE[self.config.mask_paste]
        return [
            paste(p, c.boxes, info.original_size, self.config.mask_threshold)
            for p, c, info in zip(probabilities, chosen, infos, strict=True)
        ]


def _masks_of(target: Targets) -> Tensor:
    if target.masks is None:
        raise ValueError("a mask head trains on masks, but the targets have none; load the data set with masks=True")
    return target.masks


def build_rcnn_head(config: RCNNHeadConfig, features: FeatureSpec, num_classes: int) -> RCNNHead:
    """Build the parts from what the neck hands on."""
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
