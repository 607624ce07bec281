"""`det-core predict --video`: frames by stride, lines with time stamps, drawn videos."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from det_core import DetError, Predictor
from det_core.cli.main import cli
from det_core.engine.predict_video import VideoError, VideoWriter, frame_rate, read_frames

COUNT, RATE, SIZE = 13, 10, (60, 80)


def test_pyav_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        DetError, match=r"^reading and writing videos requires av, which cannot be imported \(.*'det-core\[video\]'"
    ):
        next(read_frames("a.mp4", 1))


@pytest.fixture
def video(tmp_path) -> Path:
    """13 frames of 80 x 60 pixels at 10 a second, each brighter than the one before."""
    pytest.importorskip("av")
    file = tmp_path / "clips" / "deep" / "a.mp4"
    file.parent.mkdir(parents=True)
    with VideoWriter(file, Fraction(RATE)) as writer:
        for number in range(COUNT):
            writer.add(torch.full((3, *SIZE), 15 * number, dtype=torch.uint8))
    return file


def run(checkpoint: Path, *arguments: object) -> Result:
    words = ["predict", "--checkpoint", checkpoint, "--device", "cpu", "--video", *arguments]
    return CliRunner().invoke(cli, [str(word) for word in words])


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_frames_and_their_times(video):
    frames = list(read_frames(str(video), 1))
    assert [f.number for f in frames] == list(range(COUNT))
    assert [f.time for f in frames] == pytest.approx([n / RATE for n in range(COUNT)])
    assert all(tuple(f.pixels.shape) == (3, *SIZE) for f in frames)
    levels = [float(f.pixels.float().mean()) for f in frames]
    assert levels == pytest.approx([15 * n for n in range(COUNT)], abs=6)
    assert [f.number for f in read_frames(str(video), 5)] == [0, 5, 10]
    assert frame_rate(str(video)) == RATE


def test_lines_and_a_drawn_video(tiny_checkpoint, video, tmp_path):
    out = tmp_path / "out"
    given = (video.parents[1], "--out", out, "--stride", 3, "--batch-size", 2, "--threshold", 0.2)
    done = run(tiny_checkpoint, *given)
    assert done.exit_code == 0, done.output
    lines = lines_of(out / "videos" / "deep" / "a.jsonl")
    assert [line["frame"] for line in lines] == [0, 3, 6, 9, 12]
    assert [line["time"] for line in lines] == pytest.approx([0, 0.3, 0.6, 0.9, 1.2])
    assert {(line["file"], line["height"], line["width"]) for line in lines} == {(str(video), *SIZE)}
    predictor = Predictor(tiny_checkpoint)
    for line, frame in zip(lines, read_frames(str(video), 3), strict=True):
        assert len(line["detections"]) == len(predictor(frame.pixels))
    drawn = list(read_frames(str(out / "videos" / "deep" / "a.mp4"), 1))
    assert len(drawn) == 5
    assert float(frame_rate(str(out / "videos" / "deep" / "a.mp4"))) == pytest.approx(RATE / 3, rel=0.01)
    assert f"detections in 5 frames -> {out}/videos/deep/a.jsonl" in done.output
    before = (out / "videos" / "deep" / "a.jsonl").stat().st_mtime_ns
    assert "has the results of an earlier run" in run(tiny_checkpoint, *given).output
    assert run(tiny_checkpoint, *given, "--resume").exit_code == 0
    assert (out / "videos" / "deep" / "a.jsonl").stat().st_mtime_ns == before
    assert "stride was 3, now it is 4" in run(tiny_checkpoint, *given, "--resume", "--stride", 4).output


def test_a_damaged_video(tiny_checkpoint, video, tmp_path):
    (tmp_path / "clips" / "b.mp4").write_bytes(b"none")
    out = tmp_path / "out"
    done = run(tiny_checkpoint, tmp_path / "clips", "--out", out, "--pictures", "none")
    assert done.exit_code == 1
    assert f"error: {tmp_path}/clips/b.mp4: the video cannot be decoded: " in done.output
    assert "error: 1 of 2 videos cannot be read to the end; their last lines say why" in done.output
    (line,) = lines_of(out / "videos" / "b.jsonl")
    assert line["frame"] == 0
    assert "the video cannot be decoded" in line["error"]
    assert len(lines_of(out / "videos" / "deep" / "a.jsonl")) == COUNT
    assert list(out.rglob("*.mp4")) == []
    with pytest.raises(VideoError, match="the video cannot be decoded"):
        list(read_frames(str(tmp_path / "missing.mp4"), 1))
    strict = run(tiny_checkpoint, tmp_path / "clips" / "b.mp4", "--out", tmp_path / "o", "--on-bad-sample", "error")
    assert strict.exit_code == 1
    assert list((tmp_path / "o").rglob("*.mp4")) == []


def test_sides_that_are_odd(tmp_path):
    pytest.importorskip("av")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 61, 83), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
        writer.add(torch.from_numpy(pixels))
    (frame,) = read_frames(str(tmp_path / "a.mp4"), 1)
    assert tuple(frame.pixels.shape) == (3, 60, 82)


def test_a_folder_without_videos(tiny_checkpoint, tmp_path):
    done = run(tiny_checkpoint, tmp_path, "--out", tmp_path / "out")
    assert f"error: {tmp_path}: in this folder and below it there are no videos (.avi, " in done.output
