"""The RoI head of Hybrid Task Cascade (Chen et al., 2019, section 3).

It adds three things to a cascade with masks. A stage's mask head trains on the stage's refined boxes (interleaved
execution, 3.1). Each mask head takes the features of the previous one (information flow, 3.2). Regions of a semantic
segmentation branch are added to the inputs of box and mask heads (3.3).

Letters: N images, R regions of all images, n boxes of one image, C channels, h w pooled size, K foreground classes,
S side of a mask. Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from det_core.contracts import BoxHead, BoxOutputs, HiddenMaskHead, Losses, RoIHead, RoIPool
from det_core.errors import ConfigError
from det_core.model.layer_config import Conv2dConfig
from det_core.model.layers import ConvNorm, init_convs, kaiming_init, to_rois
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, LossTerm, Targets
from det_plugin_cascade.chain import Chain, mean_probabilities
from det_plugin_htc.config import HTCHeadConfig
from det_plugin_htc.semantic import SemanticBranch, SemanticOutputs
from det_plugin_rcnn.mask_branch import mask_term, region_masks
from det_plugin_rcnn.padded_regions import mean_masks_padded, padded_rois


class HTCHead(RoIHead):
    """Box stages, mask stages and a semantic branch."""

    def __init__(
        self,
        config: HTCHeadConfig,
        *,
        roi_pool: RoIPool,
        box_heads: Sequence[BoxHead],
        mask_roi_pool: RoIPool,
        mask_heads: Sequence[HiddenMaskHead],
        flows: Sequence[nn.Module] = (),
        semantic: SemanticBranch | None = None,
    ) -> None:
        """`flows`: layers from each mask head's features to the next head's input; one fewer than heads, or none."""
        super().__init__()
        self.config = config
        self.roi_pool, self.mask_roi_pool, self.semantic = roi_pool, mask_roi_pool, semantic
        self.box_heads, self.mask_heads = nn.ModuleList(box_heads), nn.ModuleList(mask_heads)
        self.flows = nn.ModuleList(flows)
        self.needs_masks, self.needs_semantic = True, semantic is not None
        self.chain = Chain(config, box_heads)
        self.mask_loss = config.mask_loss.build()
        init_convs(self.flows, kaiming_init)

    def box_outputs(
        self, number: int, features: Sequence[Tensor], semantic: SemanticOutputs | None, boxes: Sequence[Tensor]
    ) -> BoxOutputs:
        """The outputs of a stage's box head for each image's boxes (n, 4)."""
        return self._box_outputs(number, features, semantic, to_rois(list(boxes)))

    def _box_outputs(
        self, number: int, features: Sequence[Tensor], semantic: SemanticOutputs | None, rois: Tensor
    ) -> BoxOutputs:
        """The outputs of a stage's box head for rois (R, 5)."""
        regions = self.roi_pool(features, rois)
        if self.semantic is not None and semantic is not None and self.semantic.config.fuse_boxes:
            regions = regions + self.semantic.regions_of(semantic, rois, self.roi_pool.out.size)
        outputs: BoxOutputs = self.box_heads[number](regions)
        return outputs

    def mask_regions(
        self, features: Sequence[Tensor], semantic: SemanticOutputs | None, boxes: Sequence[Tensor]
    ) -> Tensor:
        """The mask heads' input (R, C, h, w) for each image's boxes (n, 4)."""
        return self._mask_regions(features, semantic, to_rois(list(boxes)))

    def _mask_regions(self, features: Sequence[Tensor], semantic: SemanticOutputs | None, rois: Tensor) -> Tensor:
        """The mask heads' input (R, C, h, w) for rois (R, 5)."""
        regions: Tensor = self.mask_roi_pool(features, rois)
        if self.semantic is not None and semantic is not None and self.semantic.config.fuse_masks:
            regions = regions + self.semantic.regions_of(semantic, rois, self.mask_roi_pool.out.size)
        return regions

    def mask_logits(self, regions: Tensor, numbers: range) -> list[Tensor]:
        """Logits (R, K, S, S) of the mask heads `numbers`.

        With information flow, each head takes the features of the previous one, so earlier heads run too.
        """
        logits, previous = [], None
        for number in range(0 if self.flows else numbers.start, numbers.stop):
            head = cast(HiddenMaskHead, self.mask_heads[number])
            flows = len(self.flows) > 0 and previous is not None
            previous = head.hidden(regions + self.flows[number - 1](previous) if flows else regions)
            if number in numbers:
                logits.append(head.logits_of(previous))
        return logits

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """`semantic`, then `stage1_cls`, `stage1_box`, `stage1_mask` and so on, already weighted.

        Each stage assigns and samples its proposals. The sampled proposals are refined, without ground-truth boxes. The
        stage's mask head trains on them, assigned and sampled again, and the next stage starts from them.
        """
        losses: dict[str, LossTerm] = {}
        semantic = None
        if self.semantic is not None:
            semantic = self.semantic(features)
            losses["semantic"] = self.semantic.losses(semantic, targets, batch.padded_size)
        for number, stage in enumerate(self.chain.stages):
            name = f"stage{number + 1}"
            sampled = stage.sample(proposals, targets, batch.infos, name)
            outputs = self.box_outputs(number, features, semantic, [s.boxes for s in sampled])
            boxes = stage.losses(outputs, sampled, targets)
            proposals = stage.next_proposals(outputs, sampled, batch.infos)
            if self.config.interleaved:
                sampled = stage.sample(proposals, targets, batch.infos, f"{name} masks")
            regions = self.mask_regions(features, semantic, [s.positive for s in sampled])
            logits = self.mask_logits(regions, range(number, number + 1))[0]
            mask = mask_term(self.mask_loss, logits, sampled, targets, self.config.mask_targets)
            terms = {"cls": boxes.cls, "box": boxes.box, "mask": mask}
            losses |= self.chain.weighted_losses(number, terms)
        return losses

    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Boxes of the last stage, mean scores and masks of all stages, NMS within each class."""
        semantic = None if self.semantic is None else self.semantic(features)

        def run_stage(number: int, boxes: Sequence[Tensor]) -> BoxOutputs:
            return self.box_outputs(number, features, semantic, boxes)

        found = self.chain.detect(run_stage, proposals, batch.infos)
        regions = self.mask_regions(features, semantic, found.of_images(found.network))
        logits = self.mask_logits(regions, self._mask_stages())
        probabilities = mean_probabilities(logits, found.labels)
        return found.detections(region_masks(probabilities, found, batch.infos, self.config))

    def predict_padded(
        self, features: Sequence[Tensor], proposals: PaddedProposals, batch: PaddedBatch
    ) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""
        semantic = None if self.semantic is None else self.semantic(features)

        def run_stage(number: int, boxes: Tensor) -> BoxOutputs:
            return self._box_outputs(number, features, semantic, padded_rois(boxes))

        found = self.chain.detect_padded(run_stage, proposals, batch)
        regions = self._mask_regions(features, semantic, padded_rois(found.boxes))
        probabilities = mean_masks_padded(self.mask_logits(regions, self._mask_stages()), found)
        return found.with_masks(probabilities, self.config)

    def _mask_stages(self) -> range:
        """The stages whose masks the detections have."""
        count = len(self.mask_heads)
        return range(0 if self.config.masks_of == "all" else count - 1, count)


def build_htc_head(config: HTCHeadConfig, features: FeatureSpec, num_classes: int) -> HTCHead:
    """Build the head and its parts; ConfigError if the mask head is not a `HiddenMaskHead`."""
    assert config.mask_head is not None
    mask_inputs = config.mask_regions(features)
    mask_heads: list[HiddenMaskHead] = []
    for _ in config.stages:
        head = config.mask_head.build(mask_inputs, num_classes)
        if not isinstance(head, HiddenMaskHead):
            raise ConfigError.at(
                "mask_head",
                f"{config.mask_head.type!r} does not expose its features, which the next stage's mask head requires; "
                "make it a HiddenMaskHead, or use conv_mask_head",
            )
        mask_heads.append(head)
    flows: list[nn.Module] = []
    if config.information_flow:
        flows = [
            ConvNorm(head.hidden_channels, mask_inputs.channels, 1, conv=Conv2dConfig(), relu=True)
            for head in mask_heads[:-1]
        ]
    mask_pool = config.roi_pool if config.mask_roi_pool is None else config.mask_roi_pool
    return HTCHead(
        config,
        roi_pool=config.roi_pool.build(features),
        box_heads=[config.box_head.build(config.box_regions(features), num_classes) for _ in config.stages],
        mask_roi_pool=mask_pool.build(features),
        mask_heads=mask_heads,
        flows=flows,
        semantic=None if config.semantic is None else SemanticBranch(config.semantic, features),
    )
