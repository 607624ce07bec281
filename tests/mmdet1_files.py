"""Writes a detector's weights as mmdet 0.x and 1.x named and laid them out. It is no test."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from det_core.model.detector import Detector
from det_core.weights.translate_names import detector_names, locate


def written_in_1x(detector: Detector, *, plain_towers: bool = False) -> dict[str, Tensor]:
    """A detector's weights as mmdet 1.x names and lays them out: background is the first class."""
    assert detector.config is not None
    parts = detector_names("mmdet", detector.config, ["bbox_head."] if detector.roi_head is None else [])
    two_stage, ssd = detector.roi_head is not None, hasattr(detector.neck, "l2_norm")
    found = {}
    for key, value in detector.state_dict().items():
        name = locate("mmdet", parts, key).name.removeprefix("roi_head.")
        if ssd:
            name = re.sub(r"^neck\.extra_layers\.(\d+)\.(\d+)\.conv\.", _extra, name)
            name = re.sub(r"^neck\.l2_norm", "backbone.l2_norm", name)
            name = re.sub(r"^(bbox_head\.\w+_convs\.\d+)\.0\.", r"\1.", name)
        if plain_towers:
            name = name.replace(".conv.", ".") if name.startswith("bbox_head.") else name
        found[name] = _with_background(name, value, detector, two_stage=two_stage, ssd=ssd)
    if any(name.startswith("mask_head.1.conv_res.") for name in found):
        for kind in ("weight", "bias"):  # written although nothing uses it
            found[f"mask_head.0.conv_res.conv.{kind}"] = found[f"mask_head.1.conv_res.conv.{kind}"].clone()
    return found


def _extra(match: re.Match[str]) -> str:
    return f"backbone.extra.{2 * int(match[1]) + int(match[2])}."


def _with_background(name: str, value: Tensor, detector: Detector, *, two_stage: bool, ssd: bool) -> Tensor:
    """The value with background as the first class, or a row for it that is never used."""
    classes = len(detector.classes)
    if ssd and ".cls_convs." in name:
        return value.unflatten(0, (-1, classes + 1)).roll(1, 1).flatten(0, 1)
    if two_stage and ".fc_cls." in name:
        return value.roll(1, 0)
    if two_stage and ".fc_reg." in name and not detector.config.roi_head.box_head.class_agnostic:  # type: ignore[union-attr]
        return torch.cat([torch.randn_like(value[:4]), value])
    if two_stage and name.startswith("mask_head.") and ".conv_logits." in name:
        return torch.cat([torch.randn_like(value[:1]), value])
    return value
