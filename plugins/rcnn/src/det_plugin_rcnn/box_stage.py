"""One box stage of a RoI head: sampling, losses, refinement. `RCNNHead` has one stage, a cascade has several.

Letters: N images, R regions of all images, r regions of one image, n proposals of one image, m objects, p positives,
K foreground classes. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from det_core.contracts import BoxOutputs
from det_core.model.losses import box_loss
from det_core.model.padded_detection import to_original_images
from det_core.model.postprocess import decode_images, to_original
from det_core.model.sample_regions import SampledRegions, positive_rows, sample_image_regions
from det_core.padded import PaddedBatch
from det_core.structures import ImageInfo, LossTerm, Targets, full_precision
from det_plugin_rcnn.config import BoxStageConfig


@frozen(eq=False)
class BoxLosses:
    """The losses of classification and box regression, both normalised by the number of sampled regions."""

    cls: LossTerm
    box: LossTerm


class BoxStage(nn.Module):
    """Samples regions, computes the losses of a box head's outputs, and refines boxes with them. It has no weights.

    The caller runs the box head and passes its outputs, so that each RoI head chooses the box head's input (a trunk's
    regions, semantic features).
    """

    def __init__(self, config: BoxStageConfig, num_classes: int, *, class_agnostic: bool) -> None:
        super().__init__()
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        self.add_ground_truth = config.add_ground_truth
        self.assigner = config.assigner.build()
        self.sampler = config.sampler.build()
        self.coder = config.coder.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()

    def sample(
        self,
        proposals: Sequence[Tensor],
        targets: Sequence[Targets],
        infos: Sequence[ImageInfo],
        consumer: str = "roi",
    ) -> list[SampledRegions]:
        """Sample each image's proposals (n, 4), to which ground-truth boxes are added if the configuration says so.

        consumer: name for drawing random numbers from an image's key; each stage uses its own.
        """
        return sample_image_regions(
            proposals,
            targets,
            assigner=self.assigner,
            sampler=self.sampler,
            num_classes=self.num_classes,
            keys=[info.key for info in infos],
            consumer=consumer,
            add_objects=self.add_ground_truth,
        )

    def losses(self, outputs: BoxOutputs, sampled: Sequence[SampledRegions], targets: Sequence[Targets]) -> BoxLosses:
        """The losses of a box head's outputs on all sampled regions: scores (R, K+1), deltas (R, 4K) or (R, 4)."""
        labels = torch.cat([s.labels for s in sampled])
        count = float(len(labels))
        deltas = self._of_class(positive_rows(outputs.deltas, sampled), torch.cat([s.positive_labels for s in sampled]))
        anchors = torch.cat([s.positive for s in sampled])
        boxes = torch.cat([t.boxes[s.objects] for s, t in zip(sampled, targets, strict=True)])
        return BoxLosses(
            cls=self.cls_loss(outputs.scores, labels, count),
            box=box_loss(self.box_loss, self.coder, anchors, deltas, boxes, count),
        )

    def decode(self, deltas: Tensor, boxes: Sequence[Tensor], infos: Sequence[ImageInfo]) -> list[Tensor]:
        """Decode and clip each image's boxes (r, 4): (r, K, 4), or (r, 4) if the head is class-agnostic.

        deltas: (R, 4K) or (R, 4), of all images' boxes in order.
        """
        deltas = full_precision(deltas if self.class_agnostic else deltas.unflatten(1, (-1, 4)))
        return decode_images(self.coder, boxes, deltas, [info.size for info in infos])

    def decode_original(self, deltas: Tensor, boxes: Sequence[Tensor], infos: Sequence[ImageInfo]) -> list[Tensor]:
        """As `decode`, in pixels of the original image, in which the boxes and the size to clip to are first given."""
        originals = [attrs.evolve(info, size=info.original_size) for info in infos]
        return self.decode(deltas, [to_original(b, info) for b, info in zip(boxes, infos, strict=True)], originals)

    def decode_padded(self, deltas: Tensor, boxes: Tensor, batch: PaddedBatch, *, original: bool = False) -> Tensor:
        """As `decode`, or with `original` as `decode_original`, of each image's boxes (N, n, 4): (N, n, K, 4), or
        (N, n, 4) if the head is class-agnostic.
        """
        count = boxes.shape[1]
        anchors = to_original_images(boxes, batch) if original else boxes
        deltas = full_precision(deltas if self.class_agnostic else deltas.unflatten(1, (-1, 4)))
        moved = self.coder.decode(anchors.flatten(0, 1), deltas).unflatten(0, (-1, count))
        return self.coder.clip_images(moved, batch.original_sizes if original else batch.sizes)

    def refine_padded(self, outputs: BoxOutputs, boxes: Tensor, batch: PaddedBatch) -> Tensor:
        """As `refine` without labels, of each image's boxes (N, n, 4): as many boxes."""
        deltas = self._of_class(outputs.deltas, outputs.scores[:, :-1].argmax(1))
        moved = self.coder.decode(boxes.flatten(0, 1), full_precision(deltas)).unflatten(0, (-1, boxes.shape[1]))
        return self.coder.clip_images(moved, batch.sizes)

    @torch.no_grad()
    def refine(
        self,
        outputs: BoxOutputs,
        boxes: Sequence[Tensor],
        infos: Sequence[ImageInfo],
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """Refine each image's boxes (r, 4) to as many decoded and clipped boxes, without gradient.

        If each class has its own deltas, those of the class in `labels` (R,) are used. Background (K) and missing
        labels use the foreground class with the highest score.
        """
        deltas = outputs.deltas
        if not self.class_agnostic:
            best = outputs.scores[:, :-1].argmax(1)
            chosen = best if labels is None else torch.where(labels == self.num_classes, best, labels)
            deltas = self._of_class(deltas, chosen)
        return decode_images(self.coder, boxes, full_precision(deltas), [info.size for info in infos])

    def next_proposals(
        self, outputs: BoxOutputs, sampled: Sequence[SampledRegions], infos: Sequence[ImageInfo]
    ) -> list[Tensor]:
        """Per image the refined boxes (n, 4) of the sampled proposals, without ground-truth boxes; may be empty."""
        labels = torch.cat([s.labels for s in sampled])
        refined = self.refine(outputs, [s.boxes for s in sampled], infos, labels)
        return [boxes[s.proposed_rows] for boxes, s in zip(refined, sampled, strict=True)]

    def _of_class(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """(R, 4K) deltas to (R, 4): those of each region's class (R,). Class-agnostic deltas (R, 4) are unchanged."""
        if self.class_agnostic:
            return deltas
        return deltas.unflatten(1, (-1, 4))[torch.arange(labels.shape[0], device=deltas.device), labels]
