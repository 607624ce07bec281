"""The proposals of a detector's first stage on a whole data set, the images spread over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from det_core.contracts import DetectionDataset, ProposalHead
from det_core.data.loader import LoadedImage, test_loader
from det_core.data.proposals_file import ImageProposals
from det_core.engine.distributed import World, gather
from det_core.engine.predict import autocast, to_batch
from det_core.engine.prepare_inference import for_inference
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.slots import TransformConfig


def propose(
    detector: Detector,
    dataset: DetectionDataset,
    *,
    transforms: Sequence[TransformConfig] | None = None,
    workers: int = 0,
    precision: str = "fp32",
    world: World | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ImageProposals]:
    """What the detector's proposal head finds in every image, by its `test_limits`; all ranks get all of it.

    Args:
        detector: put into evaluation mode; stays on its device. Its RoI head, if it has one, takes no part.
        dataset: its annotations play no part.
        transforms: from file to input; by default the detector's own.
        workers: loader processes of this rank.
        precision: `fp32`, `bf16` or `fp16`.
        world: the ranks that share the work; by default this process alone.
        progress: called with images done and to do on this rank.

    Raises:
        DetError: if the detector has no proposal head.
    """
    detector = for_inference(detector)
    head = detector.dense_head
    if not isinstance(head, ProposalHead):
        kind = "no dense_head" if head is None else f"a {type(head).__name__}, which proposes no boxes"
        raise DetError(f"the detector has {kind}; proposals come from an RPN, or from a two-stage detector")
    world = world or World(0, 1, detector.preprocess.mean.device)
    steps = [t.build() for t in (detector.test_transforms if transforms is None else transforms)]
    loader = test_loader(dataset, steps, workers, world.rank, world.size)
    found = []
    for done, image in enumerate(loader, 1):
        found.append(_of_image(detector, head, image, precision))
        progress(done, len(loader))
    return [image for part in gather(found, world) for image in part]


@torch.no_grad()
def _of_image(detector: Detector, head: ProposalHead[Any], image: LoadedImage, precision: str) -> ImageProposals:
    """One image's proposals, clipped to it."""
    batch = to_batch(detector, [image])
    with autocast(batch.images.device, precision):
        found = head.predict(head(detector.features(batch)), batch)[0].to("cpu")
    height, width = image.info.original_size
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = torch.minimum(found.boxes.float().clamp(min=0), limits)
    info = image.info
    return ImageProposals(info.image_id, info.file, info.original_size, boxes, found.scores.float())
