"""A detection server in one file: batches of requests, health, metrics.

    pip install fastapi uvicorn
    python serve.py runs/mine --port 8000
    curl --data-binary @image.jpg http://127.0.0.1:8000/predict

`POST /predict` takes the bytes of one image file and returns its objects. Requests that wait at the same time are
detected in one batch. `GET /healthz` answers once the detector is loaded and warm, `GET /metrics` in Prometheus' text
format. One process, one detector: put several processes behind a proxy for several devices. There is no authentication
and no encryption here; leave both to the proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

from det_core import Detections, DetError, Predictor

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Counts since the start, as Prometheus reads them."""

    def __init__(self) -> None:
        self.responses: Counter[int] = Counter()
        self.batches: Counter[int] = Counter()  # by number of images
        self.waits: list[float] = [0.0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def answered(self, status: int, seconds: float) -> None:
        """Count a response and the time since its request."""
        self.responses[status] += 1
        self.seconds += seconds
        self.waits[sum(seconds > limit for limit in BUCKETS)] += 1

    def text(self, waiting: int) -> str:
        """The metrics, and the number of requests that wait now."""
        total, lines = 0.0, ["# TYPE det_responses_total counter"]
        lines += [f'det_responses_total{{status="{s}"}} {n}' for s, n in sorted(self.responses.items())]
        lines += ["# TYPE det_batches_total counter"]
        lines += [f'det_batches_total{{images="{size}"}} {n}' for size, n in sorted(self.batches.items())]
        lines += ["# TYPE det_response_seconds histogram"]
        for limit, count in zip((*BUCKETS, "+Inf"), self.waits, strict=True):
            total += count
            lines.append(f'det_response_seconds_bucket{{le="{limit}"}} {total:.0f}')
        lines += [f"det_response_seconds_sum {self.seconds:.6f}", f"det_response_seconds_count {total:.0f}"]
        return "\n".join([*lines, "# TYPE det_waiting gauge", f"det_waiting {waiting}"]) + "\n"


class Batcher:
    """Gathers images that wait at the same time, and detects them in a thread of its own, batch by batch."""

    def __init__(self, predictor: Predictor, metrics: Metrics, wait: float, queue: int) -> None:
        self.predictor, self.metrics, self.wait = predictor, metrics, wait
        self.waiting: asyncio.Queue[tuple[bytes, asyncio.Future[Detections]]] = asyncio.Queue(queue)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="detector")

    async def __call__(self, image: bytes) -> Detections:
        """The detections of the bytes of an image file; asyncio.QueueFull if too many requests wait."""
        found: asyncio.Future[Detections] = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((image, found))
        return await found

    async def run(self) -> None:
        """Detect batch after batch, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            self.metrics.batches[len(batch)] += 1
            results = await loop.run_in_executor(self.thread, self._detect, [image for image, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if future.cancelled():  # whoever asked has gone
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _next_batch(self) -> list[tuple[bytes, asyncio.Future[Detections]]]:
        """The next image, and those that come within `wait` seconds, up to a full batch."""
        batch = [await self.waiting.get()]
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(self.wait):
                while len(batch) < self.predictor.batch_size:
                    batch.append(await self.waiting.get())
        return batch

    def _detect(self, images: list[bytes]) -> list[Detections | Exception]:
        """The detections of a batch; if one image cannot be read, those of each by itself, or why not."""
        try:
            return list(self.predictor(images))
        except Exception:
            return [self._alone(image) for image in images]

    def _alone(self, image: bytes) -> Detections | Exception:
        try:
            return self.predictor(image)
        except Exception as error:
            return error


def answer(found: Detections, names: tuple[str, ...]) -> dict[str, Any]:
    """The objects of an image: boxes are x1, y1, x2, y2 in pixels of the image."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return {"objects": [{"box": box, "score": score, "class": names[label]} for box, score, label in rows]}


def make_app(predictor: Predictor, *, wait: float = 0.005, queue: int = 64, most_bytes: int = 32 << 20) -> FastAPI:
    """The application.

    wait: seconds that a request waits for others to fill its batch. queue: requests that may wait; a further one gets
    503. most_bytes: of an image file; a larger one gets 413.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = Batcher(predictor, metrics, wait, queue)
        task = asyncio.create_task(app.state.batcher.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        app.state.batcher.thread.shutdown()

    app = FastAPI(title="det", lifespan=lifespan)

    async def body(request: Request) -> bytes:
        """The request's body; it is not read further than allowed."""
        found = bytearray()
        async for part in request.stream():
            found += part
            if len(found) > most_bytes:
                raise HTTPException(413, f"the image file has more than {most_bytes} bytes")
        if not found:
            raise HTTPException(400, "the request has no body; send the bytes of an image file")
        return bytes(found)

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        try:
            found = await app.state.batcher(await body(request))
        except asyncio.QueueFull:
            raise HTTPException(503, f"{queue} requests wait already; try again later") from None
        except DetError as error:
            raise HTTPException(400, str(error)) from None
        return answer(found, predictor.classes.names)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics_text() -> Response:
        return Response(metrics.text(app.state.batcher.waiting.qsize()), media_type="text/plain; version=0.0.4")

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Any:
        start = time.monotonic()
        response = await call_next(request)
        if request.url.path == "/predict":
            metrics.answered(response.status_code, time.monotonic() - start)
        return response

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a run folder, or a checkpoint")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--wait", type=float, default=0.005, help="seconds to wait for a fuller batch")
    parser.add_argument("--queue", type=int, default=64, help="requests that may wait")
    parser.add_argument("--most-bytes", type=int, default=32 << 20, help="of an image file")
    options = parser.parse_args()
    predictor = Predictor(options.checkpoint, options.device, options.precision, options.batch_size)
    predictor.warm_up([(480, 640)])
    app = make_app(predictor, wait=options.wait, queue=options.queue, most_bytes=options.most_bytes)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
