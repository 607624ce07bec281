"""The second stages of Cascade R-CNN and Cascade Mask R-CNN (Cai and Vasconcelos, 2018; journal version 2019).

Letters: N images, R regions of all images, n proposals or detections of one image, C channels, h w pooled size.
Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from det_core.contracts import BoxHead, BoxOutputs, Losses, MaskHead, RoIHead, RoIPool, Trunk
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, LossTerm, Targets
from det_plugin_cascade.chain import mean_probabilities, run_chain, weighted
from det_plugin_cascade.config import CascadeHeadConfig
from det_plugin_rcnn.box_stage import BoxStage
from det_plugin_rcnn.detections import choose_detections, found_labels, to_detections
from det_plugin_rcnn.mask_branch import mask_term, paste
from det_plugin_rcnn.pooling import pool_regions, positive_regions


class CascadeHead(RoIHead):
    """Box heads in a row, each on what the one before it refined, and a mask head for each where there are masks."""

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
        self._stages = nn.ModuleList(
            BoxStage(stage, head.num_classes, class_agnostic=head.class_agnostic)
            for stage, head in zip(config.stages, box_heads, strict=True)
        )
        self.mask_loss = config.mask_loss.build()

    @property
    def stages(self) -> list[BoxStage]:
        """First to last."""
        return cast("list[BoxStage]", list(self._stages))

    def box_regions(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(R, C, h, w), what the box heads see of each image's boxes (n, 4)."""
        return pool_regions(features, boxes, self.roi_pool, self.trunk)

    def mask_regions(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(R, C, h, w), what the mask heads see of each image's boxes (n, 4)."""
        if self.mask_roi_pool is None:
            return self.box_regions(features, boxes)
        return pool_regions(features, boxes, self.mask_roi_pool)

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """`stage1_cls`, `stage1_box`, `stage1_mask` and so on, already weighted.

        Each stage assigns and samples anew. What it sampled it refines for the next, without the objects' own boxes;
        where nothing else is left, the next has these again, and no others.
        """
        losses: dict[str, LossTerm] = {}
        for number, stage in enumerate(self.stages):
            sampled = stage.sample(proposals, targets, batch.infos, f"stage{number + 1}")
            regions = self.box_regions(features, [s.boxes for s in sampled])
            outputs = self.box_heads[number](regions)
            boxes = stage.losses(outputs, sampled, targets)
            terms = {"cls": boxes.cls, "box": boxes.box}
            if self.needs_masks:
                seen = positive_regions(features, sampled, regions, self.mask_roi_pool)
                terms["mask"] = mask_term(self.mask_loss, self.mask_heads[number](seen), sampled, targets)
            weight = self.config.stages[number].loss_weight
            losses |= {f"stage{number + 1}_{name}": weighted(term, weight) for name, term in terms.items()}
            if number < len(self.stages) - 1:
                proposals = stage.next_proposals(outputs, sampled, batch.infos)
        return losses

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Boxes of the last stage, scores and masks of all, NMS inside each class."""

        def run_stage(number: int, boxes: Sequence[Tensor]) -> BoxOutputs:
            return self.box_heads[number](self.box_regions(features, boxes))

        end = run_chain(self.stages, run_stage, proposals, batch.infos)
        rows = zip(end.boxes, end.scores, batch.infos, strict=True)
        found = [choose_detections(*row, self.config) for row in rows]
        if not self.needs_masks:
            return to_detections(found)
        regions = self.mask_regions(features, [f.boxes for f in found])
        probabilities = mean_probabilities([head(regions) for head in self.mask_heads], found_labels(found))
        return to_detections(found, paste(probabilities, found, batch.infos, self.config))


def build_cascade_head(config: CascadeHeadConfig, features: FeatureSpec, num_classes: int) -> CascadeHead:
    """Build the parts from what the neck hands on: pooling and trunk once, the heads for each stage."""
    mask_heads: list[MaskHead] = []
    if config.mask_head is not None:
        seen = config.mask_regions(features)
        mask_heads = [config.mask_head.build(seen, num_classes) for _ in config.stages]
    return CascadeHead(
        config,
        roi_pool=config.roi_pool.build(features),
        trunk=None if config.trunk is None else config.trunk.build(config.roi_pool.region_spec(features)),
        box_heads=[config.box_head.build(config.box_regions(features), num_classes) for _ in config.stages],
        mask_roi_pool=None if config.mask_roi_pool is None else config.mask_roi_pool.build(features),
        mask_heads=mask_heads,
    )
