"""How the boxes of a second stage learn and move: what `RCNNHead` does once, a cascade does several times.

Letters: N images, R regions of all images, r regions of one image, n proposals of one image, m objects, p positives,
K foreground classes. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

from det_core.contracts import BoxOutputs
from det_core.model.losses import box_loss
from det_core.model.sample_regions import SampledRegions, sample_regions
from det_core.structures import ImageInfo, LossTerm, Targets, full_precision
from det_plugin_rcnn.config import BoxStageConfig


@frozen(eq=False)
class BoxLosses:
    """Of classification and of box regression, both normalised by the number of sampled regions."""

    cls: LossTerm
    box: LossTerm


class BoxStage(nn.Module):
    """Chooses regions, compares a box head's outputs with the objects, and moves boxes by them.

    The box head itself is not in here: whoever runs it hands its outputs in, so that a head is free in what it shows
    to it (a trunk's regions, semantic features).
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
        """Which of each image's proposals (n, 4) train, and the objects' own boxes among them.

        consumer: the name under which random numbers are drawn from an image's key; stages have different ones.
        """
        return [
            sample_regions(
                boxes,
                target,
                assigner=self.assigner,
                sampler=self.sampler,
                num_classes=self.num_classes,
                key=info.key,
                consumer=consumer,
                add_objects=self.add_ground_truth,
            )
            for boxes, target, info in zip(proposals, targets, infos, strict=True)
        ]

    def losses(self, outputs: BoxOutputs, sampled: Sequence[SampledRegions], targets: Sequence[Targets]) -> BoxLosses:
        """The losses of a box head's outputs on all sampled regions (R, K+1) and (R, 4K) or (R, 4)."""
        labels = torch.cat([s.labels for s in sampled])
        count = float(len(labels))
        positive = (labels < self.num_classes).nonzero().flatten()
        deltas = self._of_class(outputs.deltas[positive], labels[positive])
        anchors = torch.cat([s.positive for s in sampled])
        boxes = torch.cat([t.boxes[s.objects] for s, t in zip(sampled, targets, strict=True)])
        return BoxLosses(
            cls=self.cls_loss(outputs.scores, labels, count),
            box=box_loss(self.box_loss, self.coder, anchors, deltas, boxes, count),
        )

    def decode(self, deltas: Tensor, boxes: Sequence[Tensor], infos: Sequence[ImageInfo]) -> list[Tensor]:
        """Per image the boxes (r, 4) moved by their deltas and clipped to the image: (r, K, 4), or (r, 4) if agnostic.

        deltas: (R, 4K) or (R, 4) of all images' boxes in order.
        """
        deltas = full_precision(deltas if self.class_agnostic else deltas.unflatten(1, (-1, 4)))
        rows = zip(boxes, deltas.split([len(b) for b in boxes]), infos, strict=True)
        return [self.coder.decode(b, d, info.size) for b, d, info in rows]

    @torch.no_grad()
    def refine(
        self,
        outputs: BoxOutputs,
        boxes: Sequence[Tensor],
        infos: Sequence[ImageInfo],
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """Per image one box (r, 4) for each of its boxes, moved and clipped; without gradient.

        Where each class has a box of its own, it is that of the class in `labels` (R,), K for the best foreground
        class, which all get without `labels`.
        """
        deltas = outputs.deltas
        if not self.class_agnostic:
            best = outputs.scores[:, :-1].argmax(1)
            chosen = best if labels is None else torch.where(labels == self.num_classes, best, labels)
            deltas = self._of_class(deltas, chosen)
        rows = zip(boxes, full_precision(deltas).split([len(b) for b in boxes]), infos, strict=True)
        return [self.coder.decode(b, d, info.size) for b, d, info in rows]

    def next_proposals(
        self, outputs: BoxOutputs, sampled: Sequence[SampledRegions], infos: Sequence[ImageInfo]
    ) -> list[Tensor]:
        """Per image the refined boxes (n, 4) of the regions that trained, without the objects' own; may be none."""
        labels = torch.cat([s.labels for s in sampled])
        refined = self.refine(outputs, [s.boxes for s in sampled], infos, labels)
        return [boxes[s.proposed] for boxes, s in zip(refined, sampled, strict=True)]

    def _of_class(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """(R, 4K) deltas to (R, 4): those of each region's class (R,); or (R, 4) as they are."""
        if self.class_agnostic:
            return deltas
        return deltas.unflatten(1, (-1, 4))[torch.arange(len(labels), device=deltas.device), labels]
