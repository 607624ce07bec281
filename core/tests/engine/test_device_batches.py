"""Batches that are sent ahead: the order of events on the streams, errors, the end, and what arrives."""

from __future__ import annotations

import weakref
from contextlib import contextmanager

import pytest
import torch

from det_core.compressed_masks import CompressedMasks, RegionMasks
from det_core.data.loader import LoadedImage
from det_core.engine import device_batches
from det_core.engine.device_batches import CudaStreams, SentBatch, fetched, infos_of, on_host, sent_ahead, streams_of
from det_core.engine.predict import to_batch, to_targets
from det_core.errors import DataError
from det_core.model.detector import Preprocess
from det_core.model.detector_config import PreprocessConfig
from det_core.structures import Detections, ImageInfo, Key, Targets

CPU = torch.device("cpu")


class Recorded:
    """Streams of the CPU, on which all is done at once; they record what is asked of them."""

    device = CPU

    def __init__(self) -> None:
        self.events: list[str] = []
        self.side = False

    @contextmanager
    def copying(self):
        self.events.append("copy")
        self.side = True
        try:
            yield
        finally:
            self.side = False

    def wait(self):
        self.events.append("wait")

    def used(self, tensor):
        assert isinstance(tensor, torch.Tensor)
        self.events.append("used")


class Detector:
    """What `to_batch` uses of one."""

    def __init__(self):
        self.preprocess = Preprocess(PreprocessConfig(pad_divisor=8))


def loaded(number: int, size=(6, 9), *, proposals: bool = False, masks: bool = True) -> LoadedImage:
    generator = torch.Generator().manual_seed(number)
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 5.0, 5.0], [2.0, 2.0, 6.0, 6.0]])
    bitmaps = torch.randint(0, 2, (3, *size), dtype=torch.uint8, generator=generator)
    targets = Targets(
        boxes=boxes,
        labels=torch.tensor([2, 0, 1]),
        masks=CompressedMasks.of_bitmaps(bitmaps) if masks else bitmaps,
        ignored=torch.tensor([False, number % 2 == 1, False]),
        semantic=torch.randint(0, 5, size, dtype=torch.uint8, generator=generator),
    )
    return LoadedImage(
        image=torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator),
        targets=targets,
        info=ImageInfo(size=size, original_size=(60, 90), key=Key(index=number), image_id=number),
        proposals=torch.rand(number + 1, 4, generator=generator) if proposals else None,
    )


def sent(batches, streams, *, targets=False):
    return sent_ahead(batches, Preprocess(PreprocessConfig(pad_divisor=8)), streams, targets=targets)


def loading(streams, count, failing=None):
    """Batches of one image; the one of number `failing` cannot be loaded."""
    try:
        for number in range(count):
            streams.events.append(f"load {number}")
            if number == failing:
                raise DataError(f"image {number} cannot be read")
            yield [loaded(number)]
    finally:
        streams.events.append("closed")


def test_each_batch_is_sent_before_the_one_before_it_is_used_and_no_earlier():
    streams = Recorded()
    for batch in sent(loading(streams, 3), streams):
        assert not streams.side
        streams.events.append(f"use {batch.infos[0].image_id}")
    assert streams.events == [
        *("load 0", "copy", "wait", "used", "used"),
        *("load 1", "copy", "use 0", "wait", "used", "used"),
        *("load 2", "copy", "use 1", "wait", "used", "used"),
        *("closed", "use 2"),
    ]


def test_the_memory_of_a_batch_is_given_back_before_the_next_but_one_takes_its_own():
    streams, alive = Recorded(), []

    def batches():
        for number in range(4):
            alive.append(sum(x() is not None for x in seen))
            yield [loaded(number)]

    seen: list[weakref.ref[SentBatch]] = []
    for batch in sent(batches(), streams):
        seen.append(weakref.ref(batch))
        del batch
    assert alive == [0, 0, 0, 0]


def test_an_error_is_raised_only_after_the_batch_before_was_used():
    streams, used = Recorded(), []

    def use_all():
        for batch in sent(loading(streams, 4, failing=2), streams):
            used.append(batch.infos[0].image_id)

    with pytest.raises(DataError, match="image 2 cannot be read"):
        use_all()
    assert used == [0, 1]
    assert streams.events[-1] == "closed"


def test_the_first_batch_may_fail_or_be_missing():
    streams = Recorded()
    with pytest.raises(DataError, match="image 0 cannot be read"):
        next(sent(loading(streams, 1, failing=0), streams))
    assert list(sent([], streams)) == []


def test_what_cannot_be_sent_fails_in_its_turn(monkeypatch):
    streams, used = Recorded(), []
    real = device_batches.send

    def short_of_memory(values, device):
        if used:
            raise torch.OutOfMemoryError("out of memory")
        used.append("sent")
        return real(values, device)

    monkeypatch.setattr(device_batches, "send", short_of_memory)
    batches = sent(loading(streams, 2), streams)
    assert next(batches).infos[0].image_id == 0
    with pytest.raises(torch.OutOfMemoryError):
        next(batches)
    assert not streams.side


def test_ctrl_c_while_the_next_batch_is_loaded_leaves_at_once():
    def batches():
        yield [loaded(0)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(sent(batches(), Recorded()))


def test_leaving_with_a_batch_on_its_way_closes_the_loader():
    streams = Recorded()
    batches = sent(loading(streams, 5), streams)
    next(batches)
    assert streams.events[-1] == "copy"
    batches.close()
    assert streams.events[-1] == "closed"


def test_without_streams_the_batches_are_those_of_the_loader():
    images = [[loaded(0)], [loaded(1)]]
    assert all(a is b for a, b in zip(sent(images, None), images, strict=True))
    assert streams_of(CPU) is None
    assert streams_of(torch.device("mps")) is None


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("proposals", [True, False])
def test_what_arrives_is_what_was_loaded_without_ignored_objects(masks, proposals):
    images = [loaded(n, size, proposals=proposals, masks=masks) for n, size in enumerate([(6, 9), (12, 5)])]
    detector = Detector()
    [arrived] = sent([images], Recorded(), targets=True)
    assert isinstance(arrived, SentBatch)
    assert arrived.pixels.dtype == torch.uint8
    expected, found = to_batch(detector, images), to_batch(detector, arrived)
    assert torch.equal(found.images, expected.images)
    assert found.infos == expected.infos == infos_of(images) == infos_of(arrived)
    assert (found.proposals is None) == (not proposals)
    for a, b in zip(found.proposals or (), expected.proposals or (), strict=True):
        assert torch.equal(a, b)
    rows = zip(to_targets(found, arrived), [t.objects() for t in to_targets(expected, images)], strict=True)
    for a, b in rows:
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.labels, b.labels)
        assert a.ignored is None
        assert a.semantic.dtype == torch.int64
        assert torch.equal(a.semantic, b.semantic)
        assert type(a.masks) is type(b.masks)
        own, theirs = (x.masks.bitmaps() if masks else x.masks for x in (a, b))
        assert torch.equal(own, theirs)


def test_images_are_sent_without_targets_where_none_are_needed():
    [arrived] = sent([[loaded(0)]], Recorded())
    assert arrived.targets == ()
    assert arrived.proposals is None


def test_proposals_of_some_images_only_are_none():
    [arrived] = sent([[loaded(0, proposals=True), loaded(1)]], Recorded())
    assert arrived.proposals is None


def test_the_streams_of_cuda_are_the_current_one_and_one_for_copies(monkeypatch):
    events = []

    class Stream:
        def __init__(self, device):
            self.name = f"new on {device}"

        def wait_stream(self, other):
            events.append(("waits for", other.name))

    class Tensor:
        def record_stream(self, stream):
            events.append(("recorded on", stream.name))

    @contextmanager
    def stream(chosen):
        events.append(("queue on", chosen.name))
        yield

    current = Stream("cuda:1")
    current.name = "current"
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    streams = streams_of(torch.device("cuda:1"))
    assert isinstance(streams, CudaStreams)
    with streams.copying():
        pass
    streams.wait()
    streams.used(Tensor())
    name = "new on cuda:1"
    assert events == [("queue on", name), ("waits for", name), ("recorded on", "current")]


def detections(count: int, masks) -> Detections:
    boxes = torch.arange(4.0 * count).reshape(count, 4)
    return Detections(boxes=boxes, scores=torch.rand(count), labels=torch.arange(count), masks=masks)


def test_detections_of_a_batch_leave_the_device_in_one_copy(monkeypatch):
    regions = RegionMasks(probabilities=torch.rand(2, 28, 28), boxes=torch.rand(2, 4), size=(40, 50))
    mirrored = regions.mirrored()
    bitmaps = torch.rand(3, 5, 6) > 0.5
    given = [
        *(detections(2, regions), detections(2, mirrored), detections(3, bitmaps), detections(0, None)),
        detections(3, CompressedMasks.of_bitmaps(bitmaps)),
    ]
    copies = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(len(self)) or self.clone())
    found = fetched(given)
    monkeypatch.undo()
    assert len(copies) == 1
    for a, b in zip(found, given, strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels)
        assert a.has_masks == b.has_masks
        assert a.mask_codes() == b.mask_codes()
    assert found[1].region_masks.flipped.tolist() == [True, True]


def test_detections_in_host_memory_are_not_copied():
    given = [detections(2, None)]
    assert on_host(given)[0].boxes is given[0].boxes
    assert on_host([]) == []
