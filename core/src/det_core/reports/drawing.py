"""Pictures of detections and of annotations.

Letters: n boxes, H W the size of an image. Images are (3, H, W) uint8 RGB, boxes xyxy in pixels of the image.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from det_core.compressed_masks import bitmaps_of
from det_core.safe_write import replacing
from det_core.structures import Classes, Detections, Targets

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

MASK_ALPHA = 0.45
GOLDEN = 0.61803398875  # consecutive multiples of it, taken as hues, stay far apart
SMALLEST = 480  # pixels; pictures whose longer side is below this are enlarged by a whole factor to be readable

Color = tuple[int, int, int]


def color(index: int) -> Color:
    """The index-th of an endless list of distinct colours; always the same."""
    hue = (0.02 + index * GOLDEN) % 1
    saturation, value = ((0.85, 0.95), (0.65, 1.0), (0.95, 0.75))[index // 8 % 3]
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * r), round(255 * g), round(255 * b)


def shown(image: Tensor) -> Tensor:
    """An image (C, H, W) as it is read, as (3, H, W) uint8 RGB to draw on.

    Gray is repeated, of 2 channels the first, and of more than 3 the first three are shown. Floating-point values, of
    images of 16 bits, are scaled by their maximum.
    """
    if image.is_floating_point():
        image = image.mul(255 / image.amax().clamp(min=1)).round().clamp(0, 255).to(torch.uint8)
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def draw(
    image: Tensor,
    detections: Detections,
    classes: Classes | None = None,
    threshold: float = 0.5,
    max_boxes: int = 100,
    zoom: int | None = None,
) -> Tensor:
    """The image with its detections of at least this score, the best `max_boxes` of them: (3, H', W') uint8.

    Boxes have their class's colour, masks one of each instance. The picture is `zoom` times as large as the image;
    None enlarges small images, so that labels can be read, and keeps the size of others. Raises ValueError if image is
    not (3, H, W) uint8.
    """
    found = detections.to("cpu")
    best = torch.argsort(found.scores, descending=True, stable=True)
    chosen = found[best[found.scores[best] >= threshold][:max_boxes]]
    texts = [
        f"{_name(classes, label)} {score:.2f}"
        for label, score in zip(chosen.labels.tolist(), chosen.scores.tolist(), strict=True)
    ]
    return _picture(image, chosen.boxes, chosen.labels.tolist(), texts, chosen.masks, zoom)


def draw_targets(image: Tensor, targets: Targets, classes: Classes | None = None, zoom: int | None = None) -> Tensor:
    """The image with its annotations, as `draw` draws detections; ignored ones are marked `(ignored)`."""
    labels = targets.labels.tolist()
    ignored = [False] * len(labels) if targets.ignored is None else targets.ignored.tolist()
    texts = [_name(classes, label) + (" (ignored)" if off else "") for label, off in zip(labels, ignored, strict=True)]
    bitmaps = bitmaps_of(targets.masks)
    masks = None if bitmaps is None else bitmaps.bool().cpu()
    return _picture(image, targets.boxes.cpu(), labels, texts, masks, zoom)


def picture_names(files: Sequence[Path]) -> dict[Path, str]:
    """A file name for the picture of each image; images of one name from several folders get numbers."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        name, number = f"{file.stem}.png", 1
        while name in taken:
            number += 1
            name = f"{file.stem}-{number}.png"
        taken.add(name)
        names[file] = name
    return names


def save_png(image: Tensor, path: str | Path) -> None:
    """Write a (3, H, W) uint8 RGB image to a temporary file and rename it; its folder is made if it is not there."""
    with replacing(Path(path)) as temporary:
        Image.fromarray(_array(image)).save(temporary, format="PNG")


def _name(classes: Classes | None, label: int) -> str:
    return classes.names[label] if classes is not None and 0 <= label < len(classes) else f"class {label}"


def _picture(
    image: Tensor, boxes: Tensor, labels: list[int], texts: list[str], masks: Tensor | None, zoom: int | None
) -> Tensor:
    """The image with boxes (n, 4), their texts in the colours of their labels, and masks (n, H, W) bool."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected an image (3, H, W) uint8, found {tuple(image.shape)} {image.dtype}")
    zoom = zoom or max(1, math.ceil(SMALLEST / max(image.shape[-2:])))
    picture = _enlarged(image.cpu(), zoom)
    if not labels:
        return picture
    if masks is not None and bool(masks.any()):
        colors = [color(i) for i in range(len(labels))]
        picture = draw_segmentation_masks(picture, _enlarged(masks.bool(), zoom), MASK_ALPHA, list(colors))
    boxes = _drawable(boxes * zoom, picture)
    colors = [color(label) for label in labels]
    order = list(range(len(colors)))[::-1]  # the best last, on top
    picture = draw_bounding_boxes(picture, boxes[order], colors=[colors[i] for i in order], width=line_width(picture))
    return _with_texts(picture, boxes, texts, colors)


def line_width(image: Tensor) -> int:
    """Pixels of a box's line, for the size of its image (3, H, W)."""
    return max(1, round(max(image.shape[-2:]) / 400))


def _enlarged(image: Tensor, zoom: int) -> Tensor:
    """(..., H, W) with every pixel repeated `zoom` times both ways."""
    return image.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)


def _drawable(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes in whole pixels within the image."""
    height, width = image.shape[-2:]
    limits = torch.tensor([width - 1, height - 1] * 2)
    boxes = torch.minimum(boxes.float().round().clamp(min=0), limits)
    return torch.cat([boxes[:, :2], torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)


def _with_texts(image: Tensor, boxes: Tensor, texts: Sequence[str], colors: Sequence[Color]) -> Tensor:
    """Texts on filled plates above their boxes (inside, where there is no room).

    A text that would cover part of the plate of a better box is left out.
    """
    picture = Image.fromarray(_array(image))
    pen = ImageDraw.Draw(picture)
    font = _font(image, len(texts))
    taken: list[tuple[float, float, float, float]] = []
    for box, text, fill in zip(boxes.tolist(), texts, colors, strict=True):
        plate = _plate(pen, font, box, text, picture.size)
        if any(_covered(plate, other) > 0.1 for other in taken):
            continue
        taken.append(plate)
        pen.rectangle(plate, fill=fill)
        pen.text((plate[0] + 2, plate[1] + 1), text, font=font, fill=_ink(fill))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _font(image: Tensor, count: int) -> FreeTypeFont | ImageFont.ImageFont:
    """A font for the size of the image; a smaller one where there is much to write."""
    size = max(image.shape[-2:]) / (48 if count <= 30 else 64)
    return ImageFont.load_default(min(max(size, 9), 40))


def _plate(
    pen: ImageDraw.ImageDraw, font: Any, box: Sequence[float], text: str, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Where a text goes: (x1, y1, x2, y2), within a picture of `size` (width, height)."""
    left, _, right, _ = pen.textbbox((0, 0), text, font=font)
    _, top, _, bottom = pen.textbbox((0, 0), "Ag", font=font)
    width, height = right - left + 4, bottom + top / 2 + 2
    x = max(0.0, min(box[0], size[0] - width))
    y = box[1] - height if box[1] >= height else min(box[1], size[1] - height)
    return x, y, x + width, y + height


def _covered(plate: Sequence[float], other: Sequence[float]) -> float:
    """The share of the smaller of two plates that both have in common."""
    w = min(plate[2], other[2]) - max(plate[0], other[0])
    h = min(plate[3], other[3]) - max(plate[1], other[1])
    smaller = min((p[2] - p[0]) * (p[3] - p[1]) for p in (plate, other))
    return max(w, 0) * max(h, 0) / smaller


def _ink(fill: Color) -> Color:
    """Black or white, whichever reads better on a colour."""
    return (0, 0, 0) if 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] > 140 else (255, 255, 255)


def _array(image: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return image.permute(1, 2, 0).contiguous().cpu().numpy()


def side_by_side(pictures: Mapping[str, Tensor]) -> Tensor:
    """Pictures (3, H, W) uint8 of one height from left to right, each below its title: (3, H', W') uint8."""
    parts = [_titled(title, picture) for title, picture in pictures.items()]
    gap = torch.full((3, parts[0].shape[1], line_width(parts[0]) * 4), 255, dtype=torch.uint8)
    return torch.cat([x for part in parts for x in (part, gap)][:-1], dim=2)


def _titled(title: str, picture: Tensor) -> Tensor:
    """A picture below a white band with its title."""
    size = min(max(picture.shape[2] / 32, 11), 32)
    band = Image.new("RGB", (picture.shape[2], round(1.6 * size)), (255, 255, 255))
    ImageDraw.Draw(band).text((4, 0.2 * size), title, font=ImageFont.load_default(size), fill=(0, 0, 0))
    return torch.cat([torch.from_numpy(np.array(band)).permute(2, 0, 1), picture], dim=1)
