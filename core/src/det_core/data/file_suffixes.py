"""Suffixes of images, videos and lists of them, and the images below a folder. Imports no numpy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
LIST_SUFFIXES = frozenset({".txt", ".lst"})


def image_files(folder: Path) -> Iterator[str]:
    """Paths, relative to a folder and sorted, of the images in it and below it."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES and not file.startswith("."):
                yield os.path.relpath(os.path.join(place, file), folder)
