"""The server of `examples/server`, asked over HTTP: single and simultaneous requests, bad ones, health and metrics."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from det_core import Predictor

SERVER = Path(__file__).resolve().parents[1] / "examples" / "server" / "serve.py"
MOST_BYTES = 30_000


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[str]:
    """The server's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--device", "cpu", "--batch-size", "4", "--wait", "0.2"]
    process = subprocess.Popen(
        [sys.executable, SERVER, tiny_checkpoint, *options, "--queue", "8", "--most-bytes", str(MOST_BYTES)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                assert asked(f"{address}/healthz") == (200, {"status": "ok"})
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        assert process.wait(60) in (0, -15)


def asked(url: str, data: bytes | None = None) -> tuple[int, Any]:
    """Status and content of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def image(seed: int, size: tuple[int, int] = (60, 80)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_it_answers_what_the_predictor_finds(server: str, tiny_checkpoint: Path) -> None:
    predictor = Predictor(tiny_checkpoint, "cpu")
    images = [image(seed, size) for seed, size in enumerate([(60, 80), (50, 90), (60, 80), (70, 40), (60, 80)])]
    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(lambda data: asked(f"{server}/predict", data), images))
    for data, (status, answer) in zip(images, answers, strict=True):
        found = predictor(data)
        assert status == 200
        assert [o["class"] for o in answer["objects"]] == [predictor.classes.names[i] for i in found.labels]
        assert [o["score"] for o in answer["objects"]] == pytest.approx(found.scores.tolist(), abs=1e-5)
        boxes = torch.tensor([o["box"] for o in answer["objects"]])
        torch.testing.assert_close(boxes, found.boxes, atol=1e-3, rtol=1e-4)


def test_requests_that_wait_together_are_a_batch_and_a_bad_one_costs_no_other(server: str) -> None:
    images = [image(1), b"no image", image(2)]
    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(lambda data: asked(f"{server}/predict", data), images))
    assert [status for status, _ in answers] == [200, 400, 200]
    assert "not a readable image" in answers[1][1]["detail"]
    with urllib.request.urlopen(f"{server}/metrics") as response:
        text = response.read().decode()
    batches = {int(n): int(count) for n, count in re.findall(r'det_batches_total{images="(\d+)"} (\d+)', text)}
    assert max(batches) > 1
    assert re.search(r'det_responses_total{status="400"} [1-9]', text)
    count = int(re.findall(r"det_response_seconds_count (\d+)", text)[0])
    assert f'det_response_seconds_bucket{{le="+Inf"}} {count}' in text


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 400, "the request has no body; send the bytes of an image file"),
        (b"x" * (MOST_BYTES + 1), 413, f"the image file has more than {MOST_BYTES} bytes"),
    ],
)
def test_what_is_refused(server: str, data: bytes, status: int, message: str) -> None:
    assert asked(f"{server}/predict", data) == (status, {"detail": message})


def test_a_full_queue_is_said(server: str) -> None:
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda seed: asked(f"{server}/predict", image(seed)), range(40)))
    full = [answer for status, answer in answers if status == 503]
    assert {status for status, _ in answers} <= {200, 503}
    assert all(answer == {"detail": "8 requests wait already; try again later"} for answer in full)
    assert sum(status == 200 for status, _ in answers) >= 8
