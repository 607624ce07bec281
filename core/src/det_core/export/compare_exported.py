"""Comparison of an exported file with the detector that it was made from, on real images.

Letters: h w size of an image, n detections of the detector, m of the file. Boxes are xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from det_core.data.images import read_image
from det_core.data.loader import LoadedImage
from det_core.engine.predict import to_batch
from det_core.engine.same_size import same_size_groups
from det_core.errors import DetError, listing
from det_core.export.load_exported import ExportedDetector
from det_core.model.detector import Detector
from det_core.structures import Detections

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "images"
CROPS = ((1.0, 0.7), (0.6, 1.0), (0.5, 0.8))  # parts of the height and the width of the sample's images


@frozen(kw_only=True)
class Tolerances:
    """The largest differences allowed: boxes in pixels of the network's input, scores, and mask probabilities."""

    boxes: float = 1e-3
    scores: float = 1e-4
    masks: float = 1e-3


@frozen(kw_only=True)
class Comparison:
    """How far a file is from its detector. images and detections: compared. boxes, scores, masks: largest differences.

    unmatched: detections of one of the two that the other lacks, other than at the limits of the selection.
    """

    images: int
    detections: int
    boxes: float
    scores: float
    masks: float
    unmatched: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.images} images, {self.detections} detections; largest differences: boxes {self.boxes:.1e} px"
        return f"{text}, scores {self.scores:.1e}, mask probabilities {self.masks:.1e}"


class DisagreementError(DetError):
    """An exported file gives other detections than its detector."""


def sample_images() -> list[Tensor]:
    """Three images of the bundled sample (3, h, w) uint8, cropped to three sizes that are not square."""
    files = sorted(SAMPLE.glob("*.png"))[: len(CROPS)]
    images = [read_image(file) for file in files]
    return [
        image[:, : int(image.shape[1] * rows), : int(image.shape[2] * columns)]
        for image, (rows, columns) in zip(images, CROPS, strict=True)
    ]


def compare(
    detector: Detector, exported: ExportedDetector, images: Sequence[LoadedImage], tolerances: Tolerances
) -> Comparison:
    """The differences between a detector and its exported file on transformed images, those of one size in a batch."""
    expected: dict[int, Detections] = {}
    for group in same_size_groups(images, detector.preprocess.config.pad_divisor):
        found = detector.predict(to_batch(detector, [images[at] for at in group]))
        expected |= {at: d.to("cpu") for at, d in zip(group, found, strict=True)}
    pairs = list(zip((expected[at] for at in range(len(images))), exported.detect(images), images, strict=True))
    parts = [_compare_image(ours, theirs, item, tolerances) for ours, theirs, item in pairs]
    return Comparison(
        images=len(parts),
        detections=sum(p.detections for p in parts),
        boxes=max(p.boxes for p in parts),
        scores=max(p.scores for p in parts),
        masks=max(p.masks for p in parts),
        unmatched=tuple(text for p in parts for text in p.unmatched),
    )


def check(found: Comparison, file: str) -> None:
    """DisagreementError if detections differ by more than the tolerances."""
    if found.unmatched:
        raise DisagreementError(
            "\n".join(
                [
                    f"{file}: not written, since it gives other detections than the detector ({found}):",
                    *listing(found.unmatched),
                    "compare it on other images (--images), allow more (--box-tolerance, --score-tolerance), or write "
                    "it without comparison (--no-check)",
                ]
            )
        )


def _compare_image(ours: Detections, theirs: Detections, item: LoadedImage, allowed: Tolerances) -> Comparison:
    """Match each detection with the nearest one of its class.

    A score near the lowest of all may be on the other side of the threshold, or of the maximum number of detections, so
    the last detections need no match.
    """
    y, x = item.info.scale
    boxes = ((ours.boxes[:, None] - theirs.boxes) * torch.tensor([x, y, x, y])).abs().amax(-1)  # (n, m)
    scores = (ours.scores[:, None] - theirs.scores).abs()
    masks = _mask_differences(ours, theirs)
    apart = (boxes / allowed.boxes).maximum(scores / allowed.scores)
    apart = torch.where(ours.labels[:, None] == theirs.labels, apart, torch.inf)
    rows, columns = matched(apart, 1.0)
    mask = masks[rows, columns] if masks is not None else torch.zeros(len(rows))
    lowest = torch.cat([ours.scores, theirs.scores]).min() if len(ours) + len(theirs) else torch.tensor(0.0)
    size = f"{item.info.original_size[0]} x {item.info.original_size[1]}"
    unmatched = [
        f"image of {size}: {whose} alone finds class {int(d.labels[at])}, score {float(d.scores[at]):.4f}, "
        f"box {[round(v, 2) for v in d.boxes[at].tolist()]}"
        for whose, d, used in (("the detector", ours, rows), ("the file", theirs, columns))
        for at in range(len(d))
        if at not in set(used.tolist()) and float(d.scores[at] - lowest) > allowed.scores
    ]
    unmatched += [
        f"image of {size}: a mask differs by {float(value):.1e}" for value in mask[mask > allowed.masks].tolist()
    ]
    return Comparison(
        images=1,
        detections=len(ours),
        boxes=_largest(boxes[rows, columns]),
        scores=_largest(scores[rows, columns]),
        masks=_largest(mask),
        unmatched=tuple(unmatched),
    )


def _largest(values: Tensor) -> float:
    return float(values.max()) if len(values) else 0.0


def _mask_differences(ours: Detections, theirs: Detections) -> Tensor | None:
    """(n, m) largest differences of mask probabilities; None without masks."""
    if ours.region_masks is None or theirs.region_masks is None:
        return None
    first, second = ours.region_masks.probabilities, theirs.region_masks.probabilities
    rows = [(second - mask).abs().flatten(1).amax(1) for mask in first]
    return torch.stack(rows) if rows else first.new_zeros((0, len(second)))


def matched(apart: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Rows and columns of pairs of (n, m), nearest first, each of both in one pair, none further apart than `limit`."""
    rows, columns = (apart <= limit).nonzero().unbind(1)
    order = apart[rows, columns].argsort(stable=True)
    pairs, used_rows, used_columns = [], set[int](), set[int]()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            pairs.append((row, column))
            used_rows.add(row)
            used_columns.add(column)
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
