"""Operators for object detection, each with one definition and several implementations.

An operator runs as a native C++ kernel if one can be built, else in torchvision if its definition agrees, else as the
plain PyTorch reference in `det_ops.reference`; `status()` lists which. Importing this package compiles nothing and
requires only torch.
"""

from det_ops.adjust_colors import ColorStep, adjust_colors
from det_ops.box_overlaps import box_overlaps
from det_ops.deform_conv2d import deform_conv2d
from det_ops.deform_psroi_pool import deform_psroi_pool
from det_ops.deform_roi_pool import deform_roi_pool
from det_ops.dispatch import OpStatus, status
from det_ops.mask_targets import mask_targets
from det_ops.masked_conv2d import masked_conv2d
from det_ops.max_iou_assign import max_iou_assign
from det_ops.nms import batched_nms, nms, nms_images, nms_padded
from det_ops.paste_masks import PasteRule, paste_mask_codes, paste_masks
from det_ops.resize_bilinear import Canvas, resize_bilinear
from det_ops.roi_align import multi_level_roi_align, roi_align, roi_levels
from det_ops.roi_pool import roi_pool
from det_ops.sigmoid_focal_loss import sigmoid_focal_loss
from det_ops.soft_nms import soft_nms
from det_ops.try_crops import try_crops

__all__ = [
    "Canvas",
    "ColorStep",
    "OpStatus",
    "PasteRule",
    "adjust_colors",
    "batched_nms",
    "box_overlaps",
    "deform_conv2d",
    "deform_psroi_pool",
    "deform_roi_pool",
    "mask_targets",
    "masked_conv2d",
    "max_iou_assign",
    "multi_level_roi_align",
    "nms",
    "nms_images",
    "nms_padded",
    "paste_mask_codes",
    "paste_masks",
    "resize_bilinear",
    "roi_align",
    "roi_levels",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
    "status",
    "try_crops",
]
__version__ = "0.1.0"
