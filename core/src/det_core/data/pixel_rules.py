"""Which images a transform can resize. Imports no torch."""

from __future__ import annotations

from det_core.specs import RGB, PixelFormat


def resize_refusal(arithmetic: str, pixels: PixelFormat) -> str:
    """Why a resize in an arithmetic of `ResizeConfig` cannot take images of a format, or ""."""
    if pixels.bits != RGB.bits and arithmetic != "float":
        return f"with `arithmetic: {arithmetic}` resizes only 8-bit images; set `arithmetic: float`"
    if arithmetic == "antialiased" and pixels.channels != RGB.channels:
        return "with `arithmetic: antialiased` resizes only images of 3 channels; set `arithmetic: float`"
    return ""
