"""What an exported file says of itself: classes, test transforms, layout of its inputs and outputs, masks.

Letters: N images, H W size of the input, P proposals of an image, D detections of an image, S side of a mask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import frozen

from det_core.config.convert import structure
from det_core.config.plain import unstructure
from det_core.errors import DetError
from det_core.padded import MaskPaste
from det_core.settings import configclass, setting
from det_core.slots import TransformConfig
from det_core.structures import Classes

FORMAT = "det-export 1"
INPUTS = ("images", "sizes", "original_sizes", "scales")
PROPOSAL_INPUTS = ("proposals", "proposal_counts")
OUTPUTS = ("boxes", "scores", "labels", "counts", "masks")
LAYOUT = {
    "images": "(N, 3, H, W) RGB of 0..255, each resized as test_transforms say, in the top-left corner",
    "sizes": "(N, 2) int64, height and width of each image in images",
    "original_sizes": "(N, 2) int64, height and width of each image before it was resized",
    "scales": "(N, 2) float32, factors by which height and width were resized",
    "proposals": "(N, P, 4) float32, x1 y1 x2 y2 in pixels of the original image; those after the last have any values",
    "proposal_counts": "(N,) int64, proposals of each image",
    "boxes": "(N, D, 4) float32, x1 y1 x2 y2 in pixels of the original image, best first; 0 after the last",
    "scores": "(N, D) float32; 0 after the last",
    "labels": "(N, D) int64, index into classes; -1 after the last",
    "counts": "(N,) int64, detections of each image",
    "masks": "(N, D, S, S) float32, probabilities within the box of each detection; mask_paste says how to paste them",
}


@configclass
class _Transforms:
    """A list of transforms, as a configuration."""

    transforms: tuple[TransformConfig, ...] = setting("of images, in order", default=())


@frozen(kw_only=True)
class ExportedHeader:
    """The metadata of an exported file.

    classes: of its detections. transforms: of images before they are its input. inclusive: as in `ImageInfo`.
    pixels: dtype of the input, which is float32 if the transforms keep fractions. pad_divisor: the file pads its input
    to multiples of it. max_detections: D. paste: of masks, if it has any. takes_proposals: whether its inputs have
    proposals. recipe: name of the recipe, or empty. precision: that layers compute in.
    """

    classes: Classes
    transforms: tuple[TransformConfig, ...]
    inclusive: bool
    pixels: Literal["uint8", "float32"]
    pad_divisor: int
    max_detections: int
    paste: MaskPaste | None = None
    takes_proposals: bool = False
    recipe: str = ""
    precision: Literal["fp32", "int8"] = "fp32"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its inputs, in order."""
        return (*INPUTS, *PROPOSAL_INPUTS) if self.takes_proposals else INPUTS

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs, in order."""
        return OUTPUTS if self.paste is not None else OUTPUTS[:-1]

    def to_metadata(self) -> dict[str, str]:
        """Text by name: JSON, but for `format`, `recipe` and `precision`."""
        values = {
            "classes": {"names": self.classes.names, "ids": self.classes.ids},
            "test_transforms": unstructure(self.transforms),
            "inclusive": self.inclusive,
            "pixels": self.pixels,
            "pad_divisor": self.pad_divisor,
            "max_detections": self.max_detections,
            "mask_paste": None if self.paste is None else attrs.asdict(self.paste),
            "takes_proposals": self.takes_proposals,
            "layout": {name: LAYOUT[name] for name in (*self.inputs, *self.outputs)},
        }
        texts = {"format": FORMAT, "recipe": self.recipe, "precision": self.precision}
        return texts | {name: json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: str) -> ExportedHeader:
        """The header of a file; DetError if it is not one that det exported, or is damaged."""
        if metadata.get("format") != FORMAT:
            found = metadata.get("format", "no format")
            raise DetError(
                f"{file}: found {found!r} in its metadata, expected {FORMAT!r}; export it with det-core export"
            )
        try:
            values: dict[str, Any] = {name: json.loads(text) for name, text in metadata.items() if name in _JSON}
            classes, paste = values["classes"], values["mask_paste"]
            return cls(
                classes=Classes(names=tuple(classes["names"]), ids=tuple(classes["ids"])),
                transforms=structure({"transforms": values["test_transforms"]}, _Transforms, file).transforms,
                inclusive=bool(values["inclusive"]),
                pixels="float32" if values["pixels"] == "float32" else "uint8",
                pad_divisor=int(values["pad_divisor"]),
                max_detections=int(values["max_detections"]),
                paste=None if paste is None else MaskPaste(**paste),
                takes_proposals=bool(values.get("takes_proposals")),
                recipe=metadata.get("recipe", ""),
                precision="int8" if metadata.get("precision") == "int8" else "fp32",
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DetError(f"{file}: its metadata is damaged ({type(error).__name__}: {error})") from None


_JSON = (
    *("classes", "test_transforms", "inclusive", "pixels", "pad_divisor", "max_detections", "mask_paste"),
    "takes_proposals",
)
