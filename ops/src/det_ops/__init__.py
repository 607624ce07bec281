"""Operators of object detection, each with one definition and several implementations.

`nms`, `batched_nms` and `roi_align` are served by torchvision where its definition agrees, else by the plain PyTorch
reference in `det_ops.reference`; `status()` says which. Importing this package compiles nothing and needs torch alone.
"""

from det_ops.dispatch import OpStatus, batched_nms, nms, roi_align, status

__all__ = ["OpStatus", "batched_nms", "nms", "roi_align", "status"]
__version__ = "0.1.0"
