"""The training losses on validation data, with the images distributed over ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from det_core.contracts import DetectionDataset, Losses
from det_core.data.loader import test_loader
from det_core.data.loader_watch import worker_errors
from det_core.engine.distributed import World, gather
from det_core.engine.evaluate import EvaluationStopped
from det_core.engine.predict import inference_autocast, to_batch, to_targets
from det_core.model.detector import Detector
from det_core.slots import TransformConfig

PREFIX = "val_loss"
Sums = dict[str, tuple[float, float]]  # total and count by the name of a loss


def validation_losses(
    detector: Detector,
    dataset: DetectionDataset,
    transforms: Sequence[TransformConfig],
    *,
    workers: int,
    precision: str,
    world: World,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Each loss and their sum (`val_loss/total`): its sum over all images, divided by its normaliser over all images.

    They do not depend on the number of ranks. Norms use their running statistics. Random samples (of anchors, of
    proposals) are those of each image's key, the same at every evaluation.

    Args:
        detector: put into evaluation mode.
        dataset: with all annotations that training needs.
        transforms: of the images, without augmentation.
        workers: loader processes of this rank.
        precision: `fp32`, `bf16` or `fp16`.
        world: the ranks that share the images.
        should_stop: called after every image.

    Raises:
        DetError: if a loader process or another rank has ended.
        EvaluationStopped: if `should_stop` returned True on a rank.
    """
    detector.eval()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    stopped = False
    built = [t.build() for t in transforms]
    with worker_errors(), torch.no_grad():
        for image in test_loader(dataset, built, workers, world.rank, world.size, world.timeout):
            batch = to_batch(detector, [image])
            with inference_autocast(detector.preprocess.mean.device, precision):
                terms = detector.losses(batch, to_targets(batch, [image]))
            for name, total, count in zip(terms, *_numbers(terms), strict=True):
                sums[name][0] += total
                sums[name][1] += count
            if should_stop():
                stopped = True
                break
    gathered = gather((stopped, {k: (total, count) for k, (total, count) in sums.items()}), world, "validation losses")
    if any(s for s, _ in gathered):
        raise EvaluationStopped
    return _means([part for _, part in gathered])


def _numbers(terms: Losses) -> tuple[list[float], list[float]]:
    """Totals and counts of losses; waits for the device once."""
    totals = torch.stack([term.total for term in terms.values()])
    counts = torch.stack([torch.as_tensor(term.count).to(totals) for term in terms.values()])
    found: list[list[float]] = torch.stack([totals, counts]).tolist()
    return found[0], found[1]


def _means(parts: Sequence[Sums]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    values = {}
    for name in names:
        totals, counts = zip(*(part.get(name, (0.0, 0.0)) for part in parts), strict=True)
        values[f"{PREFIX}/{name}"] = sum(totals) / max(sum(counts), 1.0)
    return {**values, f"{PREFIX}/total": sum(values.values())}
