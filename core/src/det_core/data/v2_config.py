"""Configurations of torchvision's v2 transforms: a few under names of their own, the others by name. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from det_core.errors import nearest
from det_core.settings import configclass, fields_of, setting
from det_core.slots import TransformConfig
from det_core.specs import PixelFormat

if TYPE_CHECKING:
    from det_core.contracts import Transform

Range = float | tuple[float, ...] | None

# The settings of each transform that changes only pixels, and of each that moves boxes, too.
PIXELS: dict[str, tuple[str, ...]] = {
    "ColorJitter": ("brightness", "contrast", "saturation", "hue"),
    "GaussianBlur": ("kernel_size", "sigma"),
    "GaussianNoise": ("mean", "sigma", "clip"),
    "Grayscale": (),
    "JPEG": ("quality",),
    "RandomAdjustSharpness": ("sharpness_factor", "p"),
    "RandomAutocontrast": ("p",),
    "RandomChannelPermutation": (),
    "RandomEqualize": ("p",),
    "RandomErasing": ("p", "scale", "ratio", "value"),
    "RandomGrayscale": ("p",),
    "RandomInvert": ("p",),
    "RandomPhotometricDistort": ("brightness", "contrast", "saturation", "hue", "p"),
    "RandomPosterize": ("bits", "p"),
    "RandomSolarize": ("threshold", "p"),
}
GEOMETRY: dict[str, tuple[str, ...]] = {
    "CenterCrop": ("size",),
    "ElasticTransform": ("alpha", "sigma", "interpolation", "fill"),
    "Pad": ("padding", "fill"),
    "RandomAffine": ("degrees", "translate", "scale", "shear", "interpolation", "fill"),
    "RandomCrop": ("size", "padding", "pad_if_needed", "fill"),
    "RandomHorizontalFlip": ("p",),
    "RandomIoUCrop": ("min_scale", "max_scale", "min_aspect_ratio", "max_aspect_ratio", "sampler_options", "trials"),
    "RandomPerspective": ("distortion_scale", "p", "interpolation", "fill"),
    "RandomResize": ("min_size", "max_size", "interpolation", "antialias"),
    "RandomResizedCrop": ("size", "scale", "ratio", "interpolation", "antialias"),
    "RandomRotation": ("degrees", "interpolation", "expand", "fill"),
    "RandomShortestSize": ("min_size", "max_size", "interpolation", "antialias"),
    "RandomVerticalFlip": ("p",),
    "RandomZoomOut": ("fill", "side_range", "p"),
    "Resize": ("size", "interpolation", "max_size", "antialias"),
    "ScaleJitter": ("target_size", "scale_range", "interpolation", "antialias"),
}
SETTINGS = {**PIXELS, **GEOMETRY}
UNSUPPORTED = {
    "AutoAugment": "it does not move boxes",
    "AugMix": "it does not move boxes",
    "RandAugment": "it does not move boxes",
    "TrivialAugmentWide": "it does not move boxes",
    "CutMix": "it is for classification; use `mosaic` or `copy_paste`",
    "MixUp": "it is for classification; use `mix_up`",
    "FiveCrop": "it makes several images of one",
    "TenCrop": "it makes several images of one",
    "Normalize": "`detector.preprocess` normalises",
    "SanitizeBoundingBoxes": "empty boxes are dropped after the transforms anyway",
}


def _check_name(name: str) -> str:
    if name in SETTINGS:
        return ""
    if name in UNSUPPORTED:
        return UNSUPPORTED[name]
    return f"no such transform{nearest(name, SETTINGS) or '; allowed: ' + ', '.join(sorted(SETTINGS))}"


@configclass
class V2Config(TransformConfig):
    """A transform of `torchvision.transforms.v2` by its name, with its arguments as settings.

    `{type: v2, name: RandomPosterize, bits: 4}`. Masks follow by nearest pixel, and pixels that are added to a semantic
    map are unlabelled. Where there are masks, the boxes of what a transform turns or bends are those of the masks.
    """

    type: ClassVar[str] = "v2"

    name: str = setting("the transform's class", check=_check_name)
    p: float | None = setting("probability", default=None, least=0, most=1)
    alpha: Range = setting("magnitude of displacements in pixels", default=None)
    antialias: bool | None = setting("whether to antialias where the image shrinks", default=None)
    bits: int | None = setting("bits to keep of each channel", default=None, least=0, most=8)
    brightness: Range = setting("change of brightness: x for 1 - x .. 1 + x, or a range", default=None)
    clip: bool | None = setting("whether to clip noise to the valid range", default=None)
    contrast: Range = setting("change of contrast: x for 1 - x .. 1 + x, or a range", default=None)
    degrees: Range = setting("rotation: x for -x .. x, or a range", default=None)
    distortion_scale: float | None = setting("strength of the perspective", default=None, least=0, most=1)
    expand: bool | None = setting("whether the image grows to hold what is rotated", default=None)
    fill: Range = setting("value of pixels that are added, 0..255, or one for each channel", default=None)
    hue: Range = setting("change of hue: x for -x .. x, or a range", default=None)
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = setting("of images", default=None)
    kernel_size: int | tuple[int, ...] | None = setting("odd size of the kernel, or (width, height)", default=None)
    max_aspect_ratio: float | None = setting("largest width / height of a crop", default=None, above=0)
    max_scale: float | None = setting("largest part of a side that a crop keeps", default=None, above=0)
    max_size: int | None = setting("largest size in pixels", default=None, least=1)
    mean: float | None = setting("mean of the noise, for values of 0..1", default=None)
    min_aspect_ratio: float | None = setting("smallest width / height of a crop", default=None, above=0)
    min_scale: float | None = setting("smallest part of a side that a crop keeps", default=None, above=0)
    min_size: int | tuple[int, ...] | None = setting("smallest size in pixels, or several to choose from", default=None)
    pad_if_needed: bool | None = setting("whether to pad an image that is smaller than the crop", default=None)
    padding: int | tuple[int, ...] | None = setting("pixels at each side, or left, top, right, bottom", default=None)
    quality: int | tuple[int, ...] | None = setting("JPEG quality 1..100, or a range", default=None, least=1, most=100)
    ratio: tuple[float, float] | None = setting("range of width / height", default=None, above=0)
    sampler_options: tuple[float, ...] | None = setting("minimum IoUs to choose from; above 1: no crop", default=None)
    saturation: Range = setting("change of saturation: x for 1 - x .. 1 + x, or a range", default=None)
    scale: tuple[float, float] | None = setting("range of the factor, or of the part of the area", default=None)
    scale_range: tuple[float, float] | None = setting("range of the factor", default=None, above=0)
    sharpness_factor: float | None = setting("0: blurred, 1: as it is, 2: sharper", default=None, least=0)
    shear: Range = setting("shear in degrees: x for -x .. x, or a range", default=None)
    side_range: tuple[float, float] | None = setting("range of the new side / the old", default=None, least=1)
    sigma: Range = setting("standard deviation, or a range of it", default=None)
    size: int | tuple[int, ...] | None = setting("size in pixels, or (height, width)", default=None)
    target_size: tuple[int, int] | None = setting("(height, width) that a factor of 1 fits", default=None, least=1)
    threshold: float | None = setting("values from here on are inverted, 0..255", default=None)
    translate: tuple[float, float] | None = setting("largest shift as a part of width and height", default=None)
    trials: int | None = setting("tries to find a crop", default=None, least=1)
    value: float | None = setting("value of erased pixels", default=None)

    def __attrs_post_init__(self) -> None:
        wrong = [name for name in self.arguments() if name not in SETTINGS[self.name]]
        if wrong:
            allowed = ", ".join(SETTINGS[self.name]) or "none"
            raise ValueError(f"{self.name} has no setting {', '.join(wrong)}; allowed: {allowed}")

    def arguments(self) -> dict[str, Any]:
        """The arguments that are given."""
        values = {f.name: getattr(self, f.name) for f in fields_of(type(self)) if f.name != "name"}
        return {name: value for name, value in values.items() if value is not None}

    def build(self) -> Transform:
        """The transform; DetError with torchvision's reason if it refuses the arguments."""
        from det_core.data.v2_transforms import by_name

        return by_name(self)


@configclass
class GrayscaleConfig(TransformConfig):
    """Make the image grey, still with three channels."""

    type: ClassVar[str] = "grayscale"

    probability: float = setting("probability of applying the transform", default=0.1, least=0, most=1)

    def build(self) -> Transform:
        from det_core.data.v2_transforms import by_name

        return by_name(V2Config(name="RandomGrayscale", p=self.probability))


def _check_kernel(size: int) -> str:
    return "" if size % 2 else "the size must be odd"


@configclass
class GaussianBlurConfig(TransformConfig):
    """Blur the image with a Gaussian."""

    type: ClassVar[str] = "gaussian_blur"

    kernel_size: int = setting("odd size of the kernel in pixels", default=5, least=1, check=_check_kernel)
    sigma: tuple[float, float] = setting("range of the standard deviation in pixels", default=(0.1, 2.0), above=0)
    probability: float = setting("probability of applying the transform", default=0.5, least=0, most=1)

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return ""

    def build(self) -> Transform:
        from det_core.data.v2_transforms import sometimes

        return sometimes(
            V2Config(name="GaussianBlur", kernel_size=self.kernel_size, sigma=self.sigma), self.probability
        )


@configclass
class JPEGConfig(TransformConfig):
    """Compress and decompress the image as a JPEG of random quality."""

    type: ClassVar[str] = "jpeg"

    quality: tuple[int, int] = setting("range of the quality", default=(40, 95), least=1, most=100)
    probability: float = setting("probability of applying the transform", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_core.data.v2_transforms import jpeg

        return jpeg(self.quality, self.probability)
