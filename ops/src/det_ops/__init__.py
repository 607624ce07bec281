"""Operators of object detection, each with one definition and several implementations.

Native C++ kernels serve where they can be built, else torchvision where its definition agrees, else the plain PyTorch
reference in `det_ops.reference`; `status()` says which. Importing this package compiles nothing and needs torch alone.
"""

from det_ops import flops, gradients, operators, shapes  # noqa: F401 - registers the operators
from det_ops.boxes import batched_nms, box_overlaps, max_iou_assign, nms, nms_padded, soft_nms
from det_ops.convolution import deform_conv2d, masked_conv2d
from det_ops.focal import sigmoid_focal_loss
from det_ops.pooling import deform_psroi_pool, deform_roi_pool, multi_level_roi_align, roi_align, roi_levels, roi_pool
from det_ops.service import OpStatus, status

__all__ = [
    "OpStatus",
    "batched_nms",
    "box_overlaps",
    "deform_conv2d",
    "deform_psroi_pool",
    "deform_roi_pool",
    "masked_conv2d",
    "max_iou_assign",
    "multi_level_roi_align",
    "nms",
    "nms_padded",
    "roi_align",
    "roi_levels",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
    "status",
]
__version__ = "0.1.0"
