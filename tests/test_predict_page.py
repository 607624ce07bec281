"""The Python of docs/predict.md and examples/ray_data.py runs; Ray Data itself, if it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class StandIn:
    """What the page uses of a data set of Ray 2: batches of columns, through a class that is made once per worker."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns = columns

    def map_batches(
        self,
        work: type[Callable],
        *,
        fn_constructor_kwargs: dict,
        concurrency: int,
        batch_size: int,
        num_gpus: float = 0,
    ) -> StandIn:
        assert concurrency >= 1
        assert batch_size >= 1
        assert num_gpus == 0
        return StandIn(work(**fn_constructor_kwargs)(self.columns))

    def select_columns(self, names: list[str]) -> StandIn:
        return StandIn({name: self.columns[name] for name in names})

    def write_parquet(self, folder: str) -> None:
        written[folder] = self.columns

    def count(self) -> int:
        return len(self.columns["error"])


written: dict[str, dict[str, np.ndarray]] = {}


def read_binary_files(folder: str, *, include_paths: bool) -> StandIn:
    files = sorted(Path(folder).iterdir())
    contents = np.array([file.read_bytes() for file in files], dtype=object)
    return StandIn({"bytes": contents} | ({"path": np.array([str(f) for f in files])} if include_paths else {}))


@pytest.fixture
def place(tiny_checkpoint, tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with what the page names: runs/mine, photos, a.jpg and b.jpg."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tiny_checkpoint)
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for name in ("a.jpg", "b.jpg", "photos/a.jpg", "photos/b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "photos" / "c.jpg").write_bytes(b"none")
    yield tmp_path
    written.clear()


@pytest.fixture
def ray(monkeypatch) -> None:
    module = types.ModuleType("ray")
    module.data = types.SimpleNamespace(
        read_binary_files=read_binary_files, read_parquet=lambda folder: StandIn(written[folder])
    )
    monkeypatch.setitem(sys.modules, "ray", module)


@pytest.mark.usefixtures("place", "ray")
def test_the_page_runs(capsys):
    blocks = BLOCK.findall((ROOT / "docs" / "predict.md").read_text(encoding="utf8"))
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/predict.md", "exec"), {})
    assert list(written["found"]) == ["path", "boxes", "scores", "labels", "error"]
    assert [bool(error) for error in written["found"]["error"]] == [False, False, True]
    assert [len(boxes) > 0 for boxes in written["found"]["boxes"]] == [True, True, False]


@pytest.mark.usefixtures("place", "ray")
def test_the_example_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ray_data.py", "runs/mine", "photos", "out"])
    source = (ROOT / "examples" / "ray_data.py").read_text(encoding="utf8")
    exec(compile(source, "ray_data.py", "exec"), {"__name__": "__main__", "__doc__": "help"})
    assert capsys.readouterr().out == "3 rows -> out\n"
    assert set(written["out"]) == {"path", "boxes", "scores", "labels", "classes", "error"}


@pytest.mark.slow
def test_the_example_runs_with_ray(place):
    pytest.importorskip("ray")
    words = [
        sys.executable,
        ROOT / "examples" / "ray_data.py",
        "runs/mine",
        "photos",
        str(place / "out"),
        "--workers",
        "1",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"3 rows -> {place / 'out'}"
