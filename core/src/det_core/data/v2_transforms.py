"""torchvision's v2 transforms as transforms of samples."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from det_core.compressed_masks import bitmaps_of, mask_boxes
from det_core.contracts import Sample, Transform
from det_core.data.transforms import V2, ImageOnly
from det_core.data.v2_config import PIXELS, V2Config
from det_core.errors import DetError

# They turn or bend: the box of a turned box is larger than the box of the turned object.
BENDING = ("ElasticTransform", "RandomAffine", "RandomPerspective", "RandomRotation")
# They take only 8-bit images, or have an argument in 0..255.
ON_BYTES = ("JPEG", "RandomEqualize", "RandomErasing", "RandomPosterize", "RandomSolarize")


def by_name(config: V2Config) -> Transform:
    """The transform that a configuration names; DetError with torchvision's reason if it refuses the arguments."""
    made = _made(config)
    if config.name in PIXELS:
        return ImageOnly(_OnBytes(made) if config.name in ON_BYTES else made)
    if config.name == "ElasticTransform":
        return BoxesOfMasks(CornersInPixels(V2(made)))
    return BoxesOfMasks(V2(made)) if config.name in BENDING else V2(made)


def sometimes(config: V2Config, probability: float) -> Transform:
    """A transform of pixels, applied with a probability."""
    made = by_name(config)
    assert isinstance(made, ImageOnly)
    return ImageOnly(v2.RandomApply([made.transform], p=probability))


def jpeg(quality: tuple[int, int], probability: float) -> Transform:
    """Compression as a JPEG of a quality drawn from a range, applied with a probability; by Pillow."""
    return ImageOnly(v2.RandomApply([_OnBytes(partial(_compressed, quality=quality))], p=probability))


def _compressed(image: Tensor, quality: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8, compressed and decompressed."""
    drawn = int(torch.randint(quality[0], quality[1] + 1, ()))
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file, format="JPEG", quality=drawn)
    with Image.open(file) as opened:
        return torch.from_numpy(np.array(opened)).permute(2, 0, 1).contiguous()


def _made(config: V2Config) -> Any:
    arguments = config.arguments()
    if config.name == "Grayscale":
        arguments["num_output_channels"] = 3
    if "interpolation" in arguments:
        arguments["interpolation"] = InterpolationMode(arguments["interpolation"])
    if "fill" in arguments:  # masks and semantic maps get 0: no object, unlabelled
        fill = arguments["fill"]
        arguments["fill"] = {tv_tensors.Image: list(fill) if isinstance(fill, tuple) else fill, "others": 0}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    try:
        return getattr(v2, config.name)(**lists)
    except (TypeError, ValueError) as error:
        raise DetError(f"transform {config.name} of torchvision: {error}") from None


class _OnBytes:
    """Applies a transform that takes only 8-bit images; a float image in 0..1 is rounded to 255 levels before."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        if not image.is_floating_point():
            return self.transform(image)
        pixels = (image * 255).round().clamp(0, 255).to(torch.uint8)
        return tv_tensors.Image(self.transform(tv_tensors.Image(pixels)).to(image.dtype) / 255)


class CornersInPixels:
    """A transform that looks up the pixel of each corner of a box: corners at the far edges are moved to the last one.

    torchvision 0.26 fails at such corners.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, sample: Sample, /) -> Sample:
        height, width = sample.size
        last = sample.boxes.new_tensor([width - 1, height - 1, width - 1, height - 1])
        proposals = None if sample.proposals is None else sample.proposals.minimum(last)
        return self.transform(attrs.evolve(sample, boxes=sample.boxes.minimum(last), proposals=proposals))

    def __repr__(self) -> str:
        return f"CornersInPixels({self.transform!r})"


class BoxesOfMasks:
    """A transform after which the boxes of objects with masks are those of the masks."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, sample: Sample, /) -> Sample:
        return boxes_of_masks(self.transform(sample))

    def __repr__(self) -> str:
        return f"BoxesOfMasks({self.transform!r})"


def boxes_of_masks(sample: Sample) -> Sample:
    """The sample with the boxes of its masks, empty where a mask has no pixels; without masks, the sample."""
    if sample.masks is None or len(sample.boxes) == 0:
        return sample
    bitmaps: Tensor = bitmaps_of(sample.masks)
    return attrs.evolve(sample, boxes=mask_boxes(bitmaps).to(sample.boxes.dtype))
