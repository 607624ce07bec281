"""Pictures of a page: each image once, and drawings of boxes over it.

Letters: n boxes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import PurePath

import numpy as np
from attrs import frozen
from PIL import Image

from det_core.contracts import DetectionDataset
from det_core.data.bad_samples import BadImage
from det_core.reports.drawing import shown

LONGEST = 440  # pixels of the longer side of a picture
QUALITY = 78


@frozen(eq=False)
class Mark:
    """A box to draw. box: xyxy in pixels of the image. style: `truth`, `found`, `error` or `target`."""

    box: Sequence[float]
    text: str
    style: str


class Pictures:
    """The pictures that a page embeds, up to `limit` images; they are drawn as often as they are referred to."""

    def __init__(self, dataset: DetectionDataset, limit: int) -> None:
        self.limit = limit
        self.missing: list[str] = []
        self._dataset = dataset
        self._wanted: dict[int, None] = {}

    def want(self, image: int) -> bool:
        """Ask for the picture of an image, by its position; False if there are enough."""
        if image not in self._wanted and len(self._wanted) >= self.limit:
            return False
        self._wanted[image] = None
        return True

    def __contains__(self, image: int) -> bool:
        return image in self._wanted

    def name(self, image: int) -> str:
        """The name of an image's file."""
        return PurePath(self._dataset.file(image)).name

    def draw(self, image: int, marks: Sequence[Mark], text: str) -> str:
        """An `svg` element: the picture of an image with boxes over it. text: its description."""
        height, width = (int(side) for side in self._dataset.sizes[image])
        photo = f'<use href="#i{image}"/>' if image in self else ""
        body = "".join(_mark(mark, height, width) for mark in marks)
        return (
            f'<svg class="photo" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(text)}">'
            f'<rect class="nothing" width="{width}" height="{height}"/>{photo}{body}</svg>'
        )

    def definitions(self) -> Iterator[str]:
        """The embedded pictures, as `image` elements to refer to; empty ones for those that cannot be read."""
        for image in self._wanted:
            height, width = (int(side) for side in self._dataset.sizes[image])
            data = self._embedded(image)
            size = f'width="{width}" height="{height}"'
            yield f'<image id="i{image}" {size} href="{data}"/>' if data else f'<g id="i{image}"/>'

    def _embedded(self, image: int) -> str:
        try:
            sample = self._dataset.load(image)
        except BadImage as error:
            self.missing.append(str(error))
            return ""
        picture = Image.fromarray(np.ascontiguousarray(shown(sample.image).permute(1, 2, 0).numpy()))
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mark(mark: Mark, height: int, width: int) -> str:
    """A box with its text. Lines and letters have a size that suits the size of the picture, not of the image."""
    x, y, x2, y2 = (round(float(value), 1) for value in mark.box)
    unit = max(height, width) / LONGEST
    letters = 13 * unit
    top = y - 4 * unit if y > letters + 4 * unit else min(y + letters, height - 2 * unit)
    left = min(x, width - 0.56 * letters * len(mark.text)) if mark.text else x
    return (
        f'<g class="{mark.style}"><rect x="{x}" y="{y}" width="{max(x2 - x, 0):.1f}" height="{max(y2 - y, 0):.1f}" '
        f'stroke-width="{2.2 * unit:.1f}"/><text x="{max(left, 0):.0f}" y="{top:.0f}" font-size="{letters:.1f}" '
        f'stroke-width="{3 * unit:.1f}">{escape(mark.text)}</text></g>'
    )
