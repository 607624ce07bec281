"""Prediction on videos, read and written with PyAV: JSON lines with time stamps, and a drawn video.

Letters: h w size of a frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from det_core.engine.prediction_run import plain_detections
from det_core.engine.predictor import Predictor
from det_core.engine.result_log import Record
from det_core.errors import DetError
from det_core.optional_packages import require
from det_core.reports.drawing import draw
from det_core.safe_write import replacing
from det_core.specs import RGB

ENCODERS = ("libx264", "mpeg4")  # the first that PyAV was built with


@frozen(eq=False)
class Frame:
    """A frame of a video: its number from 0, its time in seconds, and (3, h, w) uint8 RGB, as it is to be shown."""

    number: int
    time: float
    pixels: Tensor


@frozen
class VideoCounts:
    """Frames that were looked at, their detections, and why the video could not be read (further), or ""."""

    frames: int
    detections: int
    error: str = ""


def read_frames(path: str, stride: int) -> Iterator[Frame]:
    """Every `stride`-th frame of a video's first video stream, from the first on.

    Raises:
        DetError: if PyAV is not installed.
        VideoError: if the file is missing, no video, or damaged; frames before the damage are given.
    """
    av = _av()
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise VideoError("it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number % stride == 0:
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    time = number / float(stream.average_rate or 1) if frame.time is None else frame.time
                    yield Frame(number, time, torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))
    except (av.FFmpegError, OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else None
        raise VideoError(f"the video cannot be decoded: {what or error}") from None


class VideoError(DetError):
    """A video cannot be read."""


def predict_video(
    predictor: Predictor, path: str, lines: Path, drawn: Path | None, *, model: str, stride: int, threshold: float
) -> VideoCounts:
    """Detect on every `stride`-th frame of a video; files appear when they are whole.

    Args:
        predictor: its `batch_size` is the number of frames that are detected at once.
        path: of the video.
        lines: the file of JSON lines: `file`, `frame` (its number from 0), `time` (seconds), `model`, `height`, `width`
            and `detections` as of images; if the video is damaged, a last line with `error`.
        drawn: the file of the drawn video, of the frames that were looked at, in their pace; None: no such video.
        model: its name for the lines.
        threshold: least score of drawn detections.

    Raises:
        DetError: if PyAV is not installed.
        WriteError: if a file cannot be written.
    """
    if predictor.pixels != RGB:
        raise DetError(f"{path}: a video has {RGB}, but the detector takes {predictor.pixels}; give it images")
    frames = read_frames(path, stride)
    done = found = 0
    error = ""
    with ExitStack() as files:
        text = files.enter_context(files.enter_context(replacing(lines)).open("w", encoding="utf8"))
        video = None
        if drawn is not None:
            video = files.enter_context(VideoWriter(files.enter_context(replacing(drawn)), frame_rate(path) / stride))
        while True:
            batch, error = _next(frames, predictor.batch_size)
            for frame, detections in zip(batch, predictor([f.pixels for f in batch]), strict=True):
                height, width = frame.pixels.shape[-2:]
                record: Record = {"file": path, "frame": frame.number, "time": round(frame.time, 6), "model": model}
                record |= {"height": height, "width": width}
                record["detections"] = plain_detections(detections, predictor.classes)
                text.write(json.dumps(record) + "\n")
                if video is not None:
                    video.add(draw(frame.pixels, detections, predictor.classes, threshold, zoom=1))
                found += len(detections)
            done += len(batch)
            if error or len(batch) < predictor.batch_size:
                break
        if error:
            text.write(json.dumps({"file": path, "frame": done * stride, "model": model, "error": error}) + "\n")
    if drawn is not None and not done:
        drawn.unlink(missing_ok=True)  # a video without frames is none
    return VideoCounts(done, found, error)


def _next(frames: Iterator[Frame], count: int) -> tuple[list[Frame], str]:
    """The next frames, and why there are no more, if the video is damaged."""
    batch: list[Frame] = []
    try:
        for frame in islice(frames, count):
            batch.append(frame)
    except VideoError as error:
        return batch, str(error)
    return batch, ""


def frame_rate(path: str) -> Fraction:
    """Frames per second of a video; 25 if it does not say, or cannot be read."""
    av = _av()
    try:
        with av.open(path) as container:
            return Fraction(container.streams.video[0].average_rate or 25)
    except (av.FFmpegError, OSError, IndexError):
        return Fraction(25)


class VideoWriter:
    """Writes frames to an MP4 file; sides that are odd lose a pixel, as its pixels are stored in pairs."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._path, self._rate = path, rate.limit_denominator(60_000)
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        self._path.touch()
        return self

    def add(self, pixels: Tensor) -> None:
        """Append a frame (3, h, w) uint8 RGB; frames of another size than the first are an error of the encoder."""
        av = _av()
        height, width = (side - side % 2 for side in pixels.shape[-2:])
        if self._container is None:
            self._container = av.open(str(self._path), "w", format="mp4")
            self._stream = self._container.add_stream(_encoder(av), rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        array = pixels[:, :height, :width].permute(1, 2, 0).contiguous().numpy()
        self._write(av.VideoFrame.from_ndarray(array, format="rgb24"))

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if self._container is not None:
            if kind is None:
                self._write(None)
            self._container.close()

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _encoder(av: Any) -> str:
    """The first of `ENCODERS` that is there."""
    return next((name for name in ENCODERS if name in av.codecs_available), ENCODERS[-1])


def _av() -> Any:
    return require("av", "reading and writing videos", "video")
