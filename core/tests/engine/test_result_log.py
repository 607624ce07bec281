"""Files of results: what a killed process leaves at their end is cut off before anything is appended."""

import json

import pytest

from det_core.engine import result_log
from det_core.engine.result_log import ResultLog, records_of
from det_core.errors import DetError

LINE = '{"file": "a.png"}\n'


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize(
    ("found", "kept"), [("", ""), ('{"file', ""), (LINE, LINE), (LINE * 2 + '{"file": "torn', LINE * 2), ("\n", "\n")]
)
def test_a_torn_line_is_cut_off_and_nothing_else(found, kept, block, tmp_path, monkeypatch):
    monkeypatch.setattr(result_log, "BLOCK", block)
    path = tmp_path / "predictions.jsonl"
    path.write_text(found)
    log = ResultLog(path)
    assert path.read_text() == kept
    log.append([json.loads(LINE)])
    log.close()
    assert path.read_text() == kept + LINE


def test_a_file_is_open_once(tmp_path):
    log = ResultLog(tmp_path / "predictions.jsonl")
    with pytest.raises(DetError, match=r"predictions.jsonl is in use by another process; wait for it, end it, or cho"):
        ResultLog(tmp_path / "predictions.jsonl")
    log.close()
    ResultLog(tmp_path / "predictions.jsonl").close()


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(LINE + "[1]\n" + LINE)
    records = records_of(path)
    assert next(records) == {"file": "a.png"}
    with pytest.raises(DetError, match=r"predictions.jsonl:2: not a record of predictions; remove the line, and make "):
        next(records)
