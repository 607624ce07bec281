"""The Python of docs/analyze.md runs; that for FiftyOne if it is installed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "analyze.md").read_text(encoding="utf8"))


def test_page_has_both_kinds_of_blocks():
    assert ["import fiftyone" in block for block in BLOCKS] == [False, True]


def test_python_of_the_page_runs(capsys):
    exec(compile(BLOCKS[0], "docs/analyze.md", "exec"), {})
    threshold, missed, cost = capsys.readouterr().out.split()
    assert 0 < float(threshold) < 0.9
    assert int(missed) > 0
    assert 0 < float(cost) < 1


def test_fiftyone_reads_detections(tmp_path, monkeypatch, capsys):
    """On the bundled sample, with its annotations as detections: mAP 1."""
    fiftyone = pytest.importorskip("fiftyone", reason="FiftyOne is not installed")
    try:
        fiftyone.list_datasets()
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne has no MongoDB to store its data in: {error}")
    from det_core.data.data_config import SampleConfig
    from det_core.engine.result_files import write_results

    dataset = SampleConfig(split="val").build("")
    truth = dataset.ground_truth()
    (tmp_path / "my_data" / "images").mkdir(parents=True)
    for index, image in enumerate(truth["images"]):
        file = Path(dataset.file(index))
        image["file_name"] = file.name
        shutil.copy(file, tmp_path / "my_data" / "images" / file.name)
    (tmp_path / "my_data" / "instances_val.json").write_text(json.dumps(truth))
    records = [{k: t[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for t in truth["annotations"]]
    write_results(tmp_path / "found.json", records, dataset)
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[1], "docs/analyze.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(1, abs=0.01)
