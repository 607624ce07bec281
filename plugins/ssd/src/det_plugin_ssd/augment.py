"""SSD's augmentation with torchvision's v2 transforms (Liu et al., SSD, 2016, section 2.2).

torchvision's crop requires the drawn IoU with at least one object; the published one requires it with all objects.
"""

from __future__ import annotations

from torchvision import tv_tensors
from torchvision.transforms import v2

from det_core.contracts import Sample, Transform
from det_core.data.transforms import V2
from det_core.errors import DataError
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig


def photometric_distort(config: PhotometricDistortConfig) -> Transform:
    """torchvision's RandomPhotometricDistort."""
    return V2(
        v2.RandomPhotometricDistort(
            brightness=config.brightness,
            contrast=config.contrast,
            saturation=config.saturation,
            hue=config.hue,
            p=config.probability,
        )
    )


def zoom_out(config: ZoomOutConfig) -> Transform:
    """torchvision's RandomZoomOut. Masks are filled with 0, semantic maps with the ignored id."""
    fill = {tv_tensors.Image: list(config.fill), "others": 0}
    return V2(v2.RandomZoomOut(fill=fill, side_range=config.sides, p=config.probability))


class IoUCrop:
    """torchvision's RandomIoUCrop. Images without annotations, or too small to crop, are returned unchanged."""

    def __init__(self, config: IoUCropConfig) -> None:
        self.config = config
        self.crop = V2(
            v2.RandomIoUCrop(
                min_scale=config.sides[0],
                max_scale=config.sides[1],
                min_aspect_ratio=config.aspects[0],
                max_aspect_ratio=config.aspects[1],
                sampler_options=list(config.overlaps),
                trials=config.tries,
            )
        )

    def __call__(self, sample: Sample, /) -> Sample:
        if sample.proposals is not None:
            raise DataError("iou_crop does not support proposals; remove it from the transforms")
        too_small = min(sample.size) * self.config.sides[0] < 1
        return sample if too_small or len(sample.boxes) == 0 else self.crop(sample)

    def __repr__(self) -> str:
        return f"IoUCrop({self.config!r})"
