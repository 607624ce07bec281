"""The proposals of a detector on a whole data set, with the images distributed over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from det_core.contracts import DetectionDataset, ProposalHead
from det_core.data.loader import test_loader
from det_core.data.loader_watch import worker_errors
from det_core.data.proposals_file import ImageProposals
from det_core.engine.device_batches import Loaded, on_host, sent_ahead, streams_of
from det_core.engine.distributed import World, gather
from det_core.engine.predict import inference_autocast, to_batch
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
    """The proposals of the detector's proposal head in every image, limited by its `test_limits`, on all ranks.

    Args:
        detector: put into evaluation mode; stays on its device. A RoI head is ignored.
        dataset: its annotations are ignored.
        transforms: of the images; by default the detector's test transforms.
        workers: loader processes of this rank.
        precision: `fp32`, `bf16` or `fp16`.
        world: the ranks that share the work; by default only this process.
        progress: called with the number of finished images and of all images of this rank.

    Raises:
        DetError: if the detector has no proposal head; if a loader process or another rank has ended, or does not
            answer within the world's timeout.
    """
    detector = for_inference(detector)
    head = detector.dense_head
    if not isinstance(head, ProposalHead):
        kind = "no dense_head" if head is None else f"a {type(head).__name__}, which proposes no boxes"
        raise DetError(f"the detector has {kind}; use an RPN or a two-stage detector")
    world = world or World(0, 1, detector.preprocess.mean.device)
    steps = [t.build() for t in (detector.test_transforms if transforms is None else transforms)]
    loader = test_loader(dataset, steps, workers, world.rank, world.size, world.timeout)
    streams, found = streams_of(detector.preprocess.mean.device), list[ImageProposals]()
    single = ([image] for image in loader)
    with worker_errors(), closing(sent_ahead(single, detector.preprocess, streams, targets=False)) as sent:
        for done, image in enumerate(sent, 1):
            found.append(_of_image(detector, head, image, precision))
            progress(done, len(loader))
    return [image for part in gather(found, world, "the proposals") for image in part]


@torch.no_grad()
def _of_image(detector: Detector, head: ProposalHead[Any], image: Loaded, precision: str) -> ImageProposals:
    """The proposals of a batch of one image, clipped to it."""
    batch = to_batch(detector, image)
    with inference_autocast(batch.images.device, precision):
        found = on_host(head.predict(head(detector.features(batch)), batch))[0]
    info = batch.infos[0]
    height, width = info.original_size
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = torch.minimum(found.boxes.float().clamp(min=0), limits)
    return ImageProposals(info.image_id, info.file, info.original_size, boxes, found.scores.float())
