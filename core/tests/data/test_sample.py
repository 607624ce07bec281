"""The bundled sample is complete, small, and right."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from det_core.compressed_masks import bitmaps_of
from det_core.data.categories import check_same_categories
from det_core.data.data_config import SampleConfig
from det_core.data.sample_files import sample_folder
from det_core.errors import DataError


def test_counts_and_size() -> None:
    train, val = SampleConfig(split="train").build(""), SampleConfig(split="val").build("/nowhere")
    assert (len(train), len(val)) == (17, 7)
    assert len(train.ground_truth()["annotations"]) == 396
    assert len(val.ground_truth()["annotations"]) == 167
    assert not set(map(train.file, range(17))) & set(map(val.file, range(7)))
    assert sum(f.stat().st_size for f in sample_folder().rglob("*") if f.is_file()) < 3_000_000
    assert "CC0" in (sample_folder() / "README.md").read_text()
    check_same_categories(train, val)


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_agree_with_boxes(split: str) -> None:
    data = SampleConfig(split=split).build("", masks=True)  # type: ignore[arg-type]
    areas = {a["id"]: a["area"] for a in data.ground_truth()["annotations"]}
    found = []
    for index in range(len(data)):
        sample = data.load(index)
        assert sample.size == (256, 256)
        for mask, box in zip(bitmaps_of(sample.masks).numpy(), sample.boxes.tolist(), strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            found.append(int(mask.sum()))
    assert Counter(found) == Counter(map(int, areas.values()))


def test_missing_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("det_core.data.sample_files.resources.files", lambda _: tmp_path)
    with pytest.raises(DataError, match="the bundled sample is not part of this installation; reinstall det-core"):
        SampleConfig(split="train").build("")
