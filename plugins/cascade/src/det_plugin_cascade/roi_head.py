"""The RoI head of Cascade R-CNN and Cascade Mask R-CNN (Cai and Vasconcelos, 2018; journal version 2019).

Letters: N images, R regions of all images, n proposals or detections of one image, C channels, h w pooled size.
Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from det_core.boxes.device_copies import rows_of
from det_core.contracts import BoxHead, BoxOutputs, Losses, MaskHead, RoIHead, RoIPool, Trunk
from det_core.model.sample_regions import SampledRegions
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, ImageInfo, LossTerm, Targets
from det_plugin_cascade.chain import Chain, mean_probabilities
from det_plugin_cascade.config import CascadeHeadConfig
from det_plugin_rcnn.box_stage import BoxStage
from det_plugin_rcnn.mask_branch import mask_term, region_masks
from det_plugin_rcnn.padded_regions import mask_regions_padded, mean_masks_padded, pool_padded
from det_plugin_rcnn.pooling import mask_regions, pool_regions, positive_regions


class CascadeHead(RoIHead):
    """Box heads in sequence, each on the boxes refined by the previous one, and mask heads (optional)."""

    def __init__(
        self,
        config: CascadeHeadConfig,
        *,
        roi_pool: RoIPool,
        box_heads: Sequence[BoxHead],
        trunk: Trunk | None = None,
        mask_roi_pool: RoIPool | None = None,
        mask_heads: Sequence[MaskHead] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.roi_pool, self.trunk, self.mask_roi_pool = roi_pool, trunk, mask_roi_pool
        self.box_heads, self.mask_heads = nn.ModuleList(box_heads), nn.ModuleList(mask_heads)
        self.needs_masks = len(mask_heads) > 0
        self.chain = Chain(config, box_heads)
        self.mask_loss = config.mask_loss.build()

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """`stage1_cls`, `stage1_box`, `stage1_mask` and so on, already weighted.

        Each stage assigns and samples its proposals. The next stage starts from the sampled proposals, refined, without
        ground-truth boxes (`refine_objects`: with them); if none remain, the next stage samples ground-truth boxes
        only.
        """
        losses: dict[str, LossTerm] = {}
        stages = self.chain.stages
        for number, stage in enumerate(stages):
            sampled = stage.sample(proposals, targets, batch.infos, f"stage{number + 1}")
            regions = pool_regions(features, [s.boxes for s in sampled], self.roi_pool, self.trunk)
            outputs = self.box_heads[number](self._with_gradient(regions))
            boxes = stage.losses(outputs, sampled, targets)
            terms = {"cls": boxes.cls, "box": boxes.box}
            if number < len(self.mask_heads):
                mask_inputs = positive_regions(features, sampled, regions, self.mask_roi_pool)
                logits = self.mask_heads[number](mask_inputs)
                terms["mask"] = mask_term(self.mask_loss, logits, sampled, targets, self.config.mask_targets)
            losses |= self.chain.weighted_losses(number, terms)
            if number < len(stages) - 1:
                proposals = self._next_proposals(stage, outputs, sampled, batch.infos)
        return losses

    def _with_gradient(self, regions: Tensor) -> Tensor:
        """The regions (R, C, h, w), with `shared_gradient` with a gradient divided by the number of stages."""
        if not self.config.shared_gradient:
            return regions
        fixed = regions.detach()
        return fixed + (regions - fixed) / len(self.box_heads)

    def _next_proposals(
        self, stage: BoxStage, outputs: BoxOutputs, sampled: Sequence[SampledRegions], infos: Sequence[ImageInfo]
    ) -> list[Tensor]:
        """Per image the refined boxes (n, 4) of a stage, the proposals of the next; may be empty."""
        if not self.config.refine_objects:
            return stage.next_proposals(outputs, sampled, infos)
        labels = torch.cat([s.labels for s in sampled])
        refined = stage.refine(outputs, [s.boxes for s in sampled], infos, labels)
        real = rows_of([(boxes[:, 2:] > boxes[:, :2]).all(1) for boxes in refined])
        return [boxes[rows] for boxes, rows in zip(refined, real, strict=True)]

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Boxes of the last stage, mean scores and masks of all stages, NMS within each class."""

        def run_stage(number: int, boxes: Sequence[Tensor]) -> BoxOutputs:
            return self.box_heads[number](pool_regions(features, boxes, self.roi_pool, self.trunk))

        found = self.chain.detect(run_stage, proposals, batch.infos)
        if not self.needs_masks:
            return found.detections()
        regions = mask_regions(features, found.of_images(found.network), self.roi_pool, self.trunk, self.mask_roi_pool)
        probabilities = mean_probabilities([head(regions) for head in self.mask_heads], found.labels)
        return found.detections(region_masks(probabilities, found, batch.infos, self.config))

    def predict_padded(
        self, features: Sequence[Tensor], proposals: PaddedProposals, batch: PaddedBatch
    ) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""

        def run_stage(number: int, boxes: Tensor) -> BoxOutputs:
            return self.box_heads[number](pool_padded(features, boxes, self.roi_pool, self.trunk))

        found = self.chain.detect_padded(run_stage, proposals, batch)
        if not self.needs_masks:
            return found.detections
        regions = mask_regions_padded(features, found.boxes, self.roi_pool, self.trunk, self.mask_roi_pool)
        return found.with_masks(mean_masks_padded([head(regions) for head in self.mask_heads], found), self.config)


def build_cascade_head(config: CascadeHeadConfig, features: FeatureSpec, num_classes: int) -> CascadeHead:
    """Build pooling and trunk once and the heads for each stage, from the features' spec."""
    mask_heads: list[MaskHead] = []
    if config.mask_head is not None:
        mask_inputs = config.mask_regions(features)
        count = len(config.stages) if config.masks_by == "stages" else 1
        mask_heads = [config.mask_head.build(mask_inputs, num_classes) for _ in range(count)]
    return CascadeHead(
        config,
        roi_pool=config.roi_pool.build(features),
        trunk=None if config.trunk is None else config.trunk.build(config.roi_pool.region_spec(features)),
        box_heads=[config.box_head.build(config.box_regions(features), num_classes) for _ in config.stages],
        mask_roi_pool=None if config.mask_roi_pool is None else config.mask_roi_pool.build(features),
        mask_heads=mask_heads,
    )
