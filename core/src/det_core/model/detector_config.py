"""The configuration of a detector. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from det_core.errors import ConfigError, Problem, counted
from det_core.settings import configclass, setting
from det_core.slots import BackboneConfig, DenseHeadConfig, NeckConfig, ProposalHeadConfig, RoIHeadConfig
from det_core.specs import RGB, FeatureSpec, PixelFormat

if TYPE_CHECKING:
    from det_core.model.detector import Detector
    from det_core.structures import Classes


@configclass
class PreprocessConfig:
    """Conversion of images to a batch: format of their pixels, colour order, normalisation, padding.

    Images have as many channels as `mean` has values, and are read so for training, evaluation and prediction: 3 are
    RGB, 1 is gray, others are read as they are stored.
    """

    order: Literal["rgb", "bgr"] = setting("colour order that the backbone was trained on", default="rgb")
    mean: tuple[float, ...] = setting(
        "mean to subtract, a value for each channel, of values 0..255 (0..65535 with `bits: 16`), in `order`",
        default=(123.675, 116.28, 103.53),
        min_items=1,
    )
    std: tuple[float, ...] = setting(
        "standard deviation to divide by, a value for each channel", default=(58.395, 57.12, 57.375), min_items=1
    )
    bits: Literal[8, 16] = setting(
        "bits of a channel's values; 16: gray PNG and TIFF files of 16 bits, and .npy files of uint16", default=8
    )
    pad_divisor: int = setting("pad height and width to a multiple of this", default=32, least=1)

    def __attrs_post_init__(self) -> None:
        if len(self.std) != len(self.mean):
            found = f"found {counted(len(self.std), 'value')}, but `mean` has {len(self.mean)}"
            raise ConfigError.at("std", f"{found}; give both a value for each channel")
        if self.order == "bgr" and len(self.mean) != RGB.channels:
            found = f"found 'bgr', but `mean` has {counted(len(self.mean), 'value')}"
            raise ConfigError.at("order", f"{found}; only images of 3 channels have such an order; set it to rgb")

    def pixels(self) -> PixelFormat:
        """The format of the images that the detector takes."""
        return PixelFormat(len(self.mean), self.bits)


@configclass
class DetectorConfig:
    """preprocess -> backbone -> neck -> dense head -> RoI head; the last three are optional."""

    preprocess: PreprocessConfig = setting("colour order, normalisation, padding", default=PreprocessConfig())
    backbone: BackboneConfig = setting("images to feature maps")
    neck: NeckConfig | None = setting("feature maps to feature maps", default=None)
    dense_head: DenseHeadConfig | None = setting("head on every location; detects or proposes boxes", default=None)
    roi_head: RoIHeadConfig | None = setting("head on proposals", default=None)

    def __attrs_post_init__(self) -> None:
        if self.dense_head is None and self.roi_head is None:
            raise ConfigError([Problem("", "a detector needs a dense_head, a roi_head, or both")])
        proposes = self.dense_head is None or isinstance(self.dense_head, ProposalHeadConfig)
        if self.roi_head is not None and self.dense_head is not None and not proposes:
            what = f"{self.dense_head.type!r} proposes no boxes, so a roi_head cannot follow it"
            remedy = "use a proposal head such as type: rpn, or leave out the roi_head"
            raise ConfigError([Problem("dense_head", f"{what}; {remedy}")])
        self.check()

    def check(self) -> None:
        """Raise ConfigError, with the path, if a part cannot take the features of the part before it."""
        with _problems_under("backbone"):
            self._check_channels()
            features = self.backbone.feature_spec()
        if self.neck is not None:
            with _problems_under("neck"):
                features = self.neck.feature_spec(features)
        if self.dense_head is not None:
            with _problems_under("dense_head"):
                self.dense_head.check(features)
        if self.roi_head is not None:
            with _problems_under("roi_head"):
                self.roi_head.check(features)

    def _check_channels(self) -> None:
        """Raise ConfigError if the backbone takes images of another number of channels."""
        taken, given = self.backbone.input_channels(), len(self.preprocess.mean)
        if taken != given:
            found = f"{self.backbone.type!r} takes images of {counted(taken, 'channel')}"
            message = f"{found}, but `preprocess.mean` has {counted(given, 'value')}"
            raise ConfigError.at("", f"{message}; set `in_channels: {given}` if the backbone has it, or change `mean`")

    def needs_masks(self) -> bool:
        """Whether training needs instance masks."""
        return self.roi_head is not None and self.roi_head.needs_masks()

    def needs_semantic(self) -> bool:
        """Whether training needs semantic maps."""
        return self.roi_head is not None and self.roi_head.needs_semantic()

    def feature_spec(self) -> FeatureSpec:
        """The features that the heads receive."""
        features = self.backbone.feature_spec()
        return features if self.neck is None else self.neck.feature_spec(features)

    def build(self, num_classes: int | None = None, *, classes: Classes | None = None) -> Detector:
        """Build the detector, with random weights. Give the number of foreground classes, or the classes."""
        from det_core.model.detector import build_detector

        return build_detector(self, num_classes, classes)


@contextmanager
def _problems_under(path: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise error.under(path) from None
