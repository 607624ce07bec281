"""Two ranks that disagree."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, ended, one_line
from fault_kinds.runs import to_end, train

SECONDS = 60.0  # until both must have ended
# What differs on rank 1, and what both ranks must say of it.
WAYS = {
    "learning rate": "setting optimizer.lr: 0.01 on rank 0, 0.5",
    "classes": "training classes: ",
    "images": "training images: 17 on rank 0, 16",
    "sizes of images": "training images' ids and sizes: ",
    "step": "step: 2 on rank 0, 1",
    "versions": "version of torch: ",
}


def ranks(sizes: Sizes) -> Iterator[Found]:
    """In each way, both ranks end with one line that names rank and difference, in time, and nothing is trained."""
    for way, wanted in WAYS.items():
        failures, longest = [], 0.0
        for _ in range(sizes.rounds):
            with tempfile.TemporaryDirectory() as name:
                began = time.monotonic()
                problem = _pair(Path(name), way, wanted)
                longest = max(longest, time.monotonic() - began)
                failures += [problem] if problem else []
        yield f"ranks that differ in {way} (at most {longest:.1f} s)", sizes.rounds, failures


def _pair(folder: Path, way: str, wanted: str) -> str:
    """Two processes of one run; returns what is wrong, or an empty text."""
    runs = [folder / "run", folder / ("other" if way == "step" else "run")]
    if way == "step":
        problem = _saved(runs)
        if problem:
            return problem
    before = sorted(folder.glob("*/checkpoints/*"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [Child(_rank(folder, runs[rank], way, rank, port), folder / f"rank{rank}") for rank in (0, 1)]
    began = time.monotonic()
    with ended(*children):
        for child in children:
            child.process.join(max(0.0, SECONDS - (time.monotonic() - began)))
        late = [rank for rank, child in enumerate(children) if child.process.is_alive()]
    if late:
        return f"ranks {late} still ran after {SECONDS:g} seconds"
    lines = [one_line(child) for child in children]
    bad = [line for line in lines if "rank 1 differs from rank 0 (" not in line or wanted not in line]
    if bad:
        return f"expected {wanted!r}: {bad[0]}"
    return "" if sorted(folder.glob("*/checkpoints/*")) == before else "a checkpoint was written"


def _saved(runs: list[Path]) -> str:
    """Runs of two steps and of one, which two ranks with half the batch can go on with."""
    problem = to_end(runs[1], "--max-steps", 1)
    shutil.copytree(runs[1], runs[0])
    return problem or to_end(runs[0], "--max-steps", 2)


def _rank(folder: Path, run: Path, way: str, rank: int, port: int) -> Callable[[], int]:
    """What a rank of the run does."""
    differs = rank == 1
    settings = ["data.images_per_rank=3", f"optimizer.lr={0.5 if way == 'learning rate' and differs else 0.01}"]
    more: list[object] = ["--data", _data(folder / f"data{rank}", way if differs else "")]
    if way == "step":
        settings, more = settings[:1], ["--resume"]

    def call() -> int:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if way == "versions" and differs:
            import torch

            torch.__version__ = torch.torch_version.TorchVersion("0.0.0")
        return train(run, *more, settings=tuple(settings))()

    return call


def _data(root: Path, way: str) -> Path:
    """The bundled sample, with other classes, fewer images or another size in its annotations."""
    from det_core.data.sample_files import sample_folder

    root.mkdir()
    (root / "images").symlink_to(sample_folder() / "images")
    for split in ("train", "val"):
        plain = json.loads((sample_folder() / f"instances_{split}.json").read_text(encoding="utf8"))
        if way == "classes":
            plain["categories"][0]["name"] = "other"
        if way == "images" and split == "train":
            gone = plain["images"].pop()["id"]
            plain["annotations"] = [a for a in plain["annotations"] if a["image_id"] != gone]
        if way == "sizes of images" and split == "train":
            plain["images"][-1]["width"] += 1
        (root / f"instances_{split}.json").write_text(json.dumps(plain))
    return root
