"""The configuration of a detector: which parts, composed how. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from det_core.errors import ConfigError, Problem
from det_core.settings import configclass, setting
from det_core.slots import BackboneConfig, DenseHeadConfig, NeckConfig, ProposalHeadConfig, RoIHeadConfig
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_core.model.detector import Detector
    from det_core.structures import Classes


@configclass
class PreprocessConfig:
    """From 8-bit images to a batch: colour order, normalisation, padding."""

    order: Literal["rgb", "bgr"] = setting("colour order that the backbone was trained on", default="rgb")
    mean: tuple[float, float, float] = setting("subtracted, 0..255, in `order`", default=(123.675, 116.28, 103.53))
    std: tuple[float, float, float] = setting("divided by, in `order`", default=(58.395, 57.12, 57.375))
    pad_divisor: int = setting("height and width are padded to a multiple of it", default=32, least=1)


@configclass
class DetectorConfig:
    """preprocess -> backbone -> neck -> dense head -> RoI head; the last three where the model has them."""

    preprocess: PreprocessConfig = setting("colour order, normalisation, padding", default=PreprocessConfig())
    backbone: BackboneConfig = setting("images to feature maps")
    neck: NeckConfig | None = setting("feature maps to feature maps", default=None)
    dense_head: DenseHeadConfig | None = setting("works on every location, or proposes boxes", default=None)
    roi_head: RoIHeadConfig | None = setting("works on proposals", default=None)

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
        """Whether each part can take what the one before it hands on; ConfigError with the path otherwise."""
        with _at("backbone"):
            features = self.backbone.feature_spec()
        if self.neck is not None:
            with _at("neck"):
                features = self.neck.feature_spec(features)
        if self.dense_head is not None:
            with _at("dense_head"):
                self.dense_head.check(features)
        if self.roi_head is not None:
            with _at("roi_head"):
                self.roi_head.check(features)

    def needs_masks(self) -> bool:
        """Whether training needs instance masks."""
        return self.roi_head is not None and self.roi_head.needs_masks()

    def needs_semantic(self) -> bool:
        """Whether training needs semantic maps."""
        return self.roi_head is not None and self.roi_head.needs_semantic()

    def feature_spec(self) -> FeatureSpec:
        """The features that the heads get."""
        features = self.backbone.feature_spec()
        return features if self.neck is None else self.neck.feature_spec(features)

    def build(self, num_classes: int | None = None, *, classes: Classes | None = None) -> Detector:
        """The detector, with fresh weights; give the number of foreground classes, or the classes themselves."""
        from det_core.model.detector import build_detector

        return build_detector(self, num_classes, classes)


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Place the ConfigErrors of a part's check under the part's name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([p.under(path) for p in error.problems]) from None
