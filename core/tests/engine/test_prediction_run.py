"""Records and pictures that are made while the next batch is detected: order, errors, and what is kept."""

from __future__ import annotations

import threading

import pytest

from det_core.data.image_list import ListedImage
from det_core.engine.predict_files import FileResult
from det_core.engine.prediction_run import written_behind
from det_core.errors import DataError


def results(*indices: int) -> list[FileResult]:
    return [
        FileResult(index=index, image=ListedImage(path=f"{index}.png", image_id=None, name=str(index)))
        for index in indices
    ]


def record(result: FileResult) -> dict[str, object]:
    return {"file": result.image.path}


def test_batches_come_in_order_with_the_records_of_their_images():
    batches = [results(3, 1), results(2), results(), results(7)]
    found = list(written_behind(iter(batches), record))
    assert [batch for batch, _ in found] == batches
    assert [[r["file"] for r in records] for _, records in found] == [["3.png", "1.png"], ["2.png"], [], ["7.png"]]
    assert list(written_behind([], record)) == []


def test_a_batch_is_written_while_the_next_one_is_detected():
    detected = threading.Event()

    def batches():
        yield results(0)
        detected.set()
        yield results(1)

    def waits(result: FileResult) -> dict[str, object]:
        assert detected.wait(30)  # in this thread, the first would wait in vain
        return record(result)

    assert len(list(written_behind(batches(), waits))) == 2


def test_the_results_before_an_error_of_the_loader_are_kept():
    def batches():
        yield results(0)
        yield results(1)
        raise DataError("a loader process has ended")

    kept = []

    def use_all():
        for batch, _ in written_behind(batches(), record):
            kept.append(batch[0].index)

    with pytest.raises(DataError, match="a loader process has ended"):
        use_all()
    assert kept == [0, 1]


def test_an_error_in_writing_comes_through_before_later_results():
    def full(result: FileResult) -> dict[str, object]:
        if result.index == 1:
            raise OSError("no space left")
        return record(result)

    written = written_behind([results(0), results(1), results(2)], full)
    assert next(written)[0][0].index == 0
    with pytest.raises(OSError, match="no space left"):
        next(written)
