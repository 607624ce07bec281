"""Instance masks of annotation files: polygons and run-length codes, stored in flat arrays.

Letters: M annotations, n of them, R polygon rings, H W the size of an image. Run-length codes are COCO's: column-major
runs, starting with zeros; "compressed" is COCO's text form.
"""

from __future__ import annotations

import math
from array import array
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen
from pycocotools import mask as coco_mask

from det_core.compressed_masks import CompressedMasks
from det_core.data.bounds import TOLERANCE, is_finite
from det_core.data.polygons import MIN_RING, polygon_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

SURE_AREA = 4.0  # square pixels of a polygon that has pixels for sure; a smaller one is drawn to know


@frozen(eq=False, kw_only=True)
class Segmentations:
    """Masks of M annotations. Polygons are float64, as in the file, so that masks equal those of pycocotools.

    rings: (M + 1,) int64, the rings of annotation k are rings[k]..rings[k + 1]. points: (R + 1,) int64, the offsets of
    each ring's numbers in `coordinates` (x, y, x, y, ...). codes: (M + 1,) int64, the offsets of each annotation's
    compressed run-length code in `code_bytes`. An annotation has rings or a code.
    """

    rings: NDArray[np.int64]
    points: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    codes: NDArray[np.int64]
    code_bytes: NDArray[np.uint8]

    def encoded(self, index: int, height: int, width: int) -> dict[str, Any]:
        """The mask of an annotation as one compressed run-length code: {"size": [H, W], "counts": bytes}."""
        code = self._code(index)
        if code:
            return {"size": [height, width], "counts": code}
        drawn = coco_mask.frPyObjects(self._rings(index), height, width)
        return {"size": [height, width], "counts": _joined(drawn)}

    def masks(self, indices: NDArray[np.int64], height: int, width: int) -> CompressedMasks:
        """The n masks of these annotations of one image."""
        given = [self._code(i) for i in indices.tolist()]
        rings = [[] if code else self._rings(i) for code, i in zip(given, indices.tolist(), strict=True)]
        drawn = iter(coco_mask.frPyObjects(list(chain.from_iterable(rings)), height, width) if any(rings) else [])
        codes = [code or _joined(list(islice(drawn, len(own)))) for code, own in zip(given, rings, strict=True)]
        return CompressedMasks.of_codes(codes, (height, width))

    def plain(self, index: int, height: int, width: int) -> list[list[float]] | dict[str, Any]:
        """The mask of an annotation in COCO JSON form: polygons, or {"size": [H, W], "counts": text}."""
        code = self._code(index)
        return {"size": [height, width], "counts": code.decode("ascii")} if code else self._rings(index)

    def _code(self, index: int) -> bytes:
        return self.code_bytes[self.codes[index] : self.codes[index + 1]].tobytes()

    def _rings(self, index: int) -> list[list[float]]:
        rings = range(int(self.rings[index]), int(self.rings[index + 1]))
        return [self.coordinates[self.points[r] : self.points[r + 1]].tolist() for r in rings]


def _joined(codes: list[dict[str, Any]]) -> bytes:
    """The code of the union of the masks of these codes."""
    code: bytes = (codes[0] if len(codes) == 1 else coco_mask.merge(codes))["counts"]
    return code


class SegmentationBuilder:
    """Collects checked segmentations, one per annotation, in order."""

    def __init__(self) -> None:
        self._rings, self._points, self._codes = array("q", [0]), array("q", [0]), array("q", [0])
        self._coordinates, self._bytes = array("d"), bytearray()

    def add(self, value: Any, height: int, width: int) -> None:
        """Add a segmentation without `segmentation_problem`; rings with less than three points are dropped."""
        if isinstance(value, dict):
            self._bytes += _compressed(value, height, width)
        else:
            for ring in value:
                if len(ring) >= MIN_RING:
                    self._coordinates.extend(ring)
                    self._points.append(len(self._coordinates))
        self._rings.append(len(self._points) - 1)
        self._codes.append(len(self._bytes))

    def build(self) -> Segmentations:
        return Segmentations(
            rings=np.array(self._rings, np.int64),
            points=np.array(self._points, np.int64),
            coordinates=np.array(self._coordinates, np.float64),
            codes=np.array(self._codes, np.int64),
            code_bytes=np.frombuffer(bytes(self._bytes), np.uint8),
        )


def has_pixels(value: Any, height: int, width: int) -> bool:
    """Whether the mask of a segmentation without `segmentation_problem` has any pixel."""
    if isinstance(value, dict):
        return bool(coco_mask.area({"size": [height, width], "counts": _compressed(value, height, width)}))
    rings = [ring for ring in value if len(ring) >= MIN_RING]
    if any(polygon_area(ring) >= SURE_AREA for ring in rings):
        return True
    drawn = coco_mask.frPyObjects(rings, height, width)
    return bool(coco_mask.area(coco_mask.merge(drawn)))  # merged: `area` fails for more than 255 codes


def _compressed(value: dict[str, Any], height: int, width: int) -> bytes:
    counts = value["counts"]
    if isinstance(counts, str):
        return counts.encode("ascii")
    code: bytes = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return code


def segmentation_problem(value: Any, height: int, width: int) -> str:
    """The problem of an annotation's `segmentation` in an image of this size, or ""."""
    if value is None or (isinstance(value, (list, dict)) and not value):
        return "has no segmentation, but the model trains on masks"
    if isinstance(value, list):
        return _polygon_problem(value, height, width)
    if isinstance(value, dict):
        return _code_problem(value, height, width)
    return f"segmentation is {type(value).__name__}, expected a list of polygons or a run-length code"


def _polygon_problem(rings: list[Any], height: int, width: int) -> str:
    for ring in rings:
        if not isinstance(ring, list):
            return f"segmentation holds {type(ring).__name__}, expected polygons [x, y, x, y, ...]"
        if len(ring) % 2:
            return f"segmentation has a polygon of {len(ring)} numbers, expected pairs x, y"
        if not _all_finite(ring):
            return "segmentation has a polygon with a value that is not a finite number"
        if ring and not _within(ring, height, width):
            return f"segmentation has a polygon that reaches outside its image of {width}x{height} pixels"
    if not any(len(ring) >= MIN_RING for ring in rings):
        return "segmentation has no polygon of three points or more"
    return ""


def _all_finite(ring: list[Any]) -> bool:
    """Whether all values are finite numbers; the sum of finite ones is, unless they are huge."""
    try:
        return set(map(type, ring)) <= {int, float} and (math.isfinite(sum(ring)) or all(map(is_finite, ring)))
    except OverflowError:  # an int of hundreds of digits
        return all(map(is_finite, ring))


def _within(ring: list[float], height: int, width: int) -> bool:
    """Whether a polygon is in its image, as a box must be: pycocotools takes memory for every pixel that it crosses."""
    xs, ys = ring[::2], ring[1::2]
    low, right, bottom = -TOLERANCE, width + TOLERANCE, height + TOLERANCE
    return low <= min(xs) and low <= min(ys) and max(xs) <= right and max(ys) <= bottom


def _code_problem(code: dict[str, Any], height: int, width: int) -> str:
    size, counts = code.get("size"), code.get("counts")
    if size != [height, width]:
        return f"segmentation is a run-length code of size {size}, but the image's [height, width] is {[height, width]}"
    if isinstance(counts, str):
        pixels = code_pixels(counts)
    elif isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts):
        pixels = sum(counts)
    else:
        return "segmentation is a run-length code without usable `counts` (text, or a list of whole numbers)"
    if pixels is None:
        return "segmentation is a run-length code whose text is damaged"
    if pixels != height * width:
        return f"segmentation is a run-length code of {pixels} pixels, but the image has {height * width}"
    return ""


def code_pixels(text: str) -> int | None:
    """The number of pixels of a compressed run-length code; None if it is damaged.

    pycocotools does not check this and decodes a truncated code to a wrong mask.
    """
    symbols = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if len(symbols) == 0 or symbols.min() < 0 or symbols.max() > 63 or symbols[-1] & 0x20:
        return None
    ends = np.flatnonzero((symbols & 0x20) == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 8:
        return None
    shifts = 5 * (np.arange(len(symbols)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((symbols & 0x1F) << shifts, starts)
    runs -= np.where(symbols[ends] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])  # from the fourth run on, a code stores the difference to the run before last
    runs[2::2] = np.cumsum(runs[2::2])
    return int(runs.sum()) if runs.min() >= 0 else None
