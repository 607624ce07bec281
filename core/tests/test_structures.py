"""The values that travel between parts."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest
import torch
from hypothesis import given, strategies as st

from det_core.structures import Batch, Classes, Detections, ImageInfo, Key, LossTerm, Targets, semantic_batch

NUMBER_OF_NO_KEY = 7789326580081199562
NUMBER_OF_1_2_3_4 = 7160806516853227302


def some_targets(ignored: list[bool] | None = None) -> Targets:
    masks = torch.zeros(3, 5, 7, dtype=torch.uint8)
    masks[torch.arange(3), torch.arange(3), torch.arange(3)] = 1
    return Targets(
        boxes=torch.arange(12.0).view(3, 4),
        labels=torch.tensor([4, 5, 6]),
        masks=masks,
        ignored=None if ignored is None else torch.tensor(ignored),
        semantic=torch.full((5, 7), 255),
    )


def some_detections(masks: bool = True) -> Detections:
    return Detections(
        boxes=torch.arange(12.0).view(3, 4),
        scores=torch.tensor([0.9, 0.5, 0.1]),
        labels=torch.tensor([0, 2, 1]),
        masks=torch.eye(3, dtype=torch.bool)[:, None].expand(3, 4, 3) if masks else None,
    )


# keys


def test_a_keys_number_is_the_same_on_every_machine_and_in_every_release():
    assert Key().number("flip") == NUMBER_OF_NO_KEY
    assert Key(seed=1, epoch=2, repeat=3, index=4).number("sample/rpn") == NUMBER_OF_1_2_3_4


def test_a_keys_number_hangs_on_no_hash_seed():
    code = "from det_core.structures import Key; print(Key(seed=1, epoch=2, repeat=3, index=4).number('sample/rpn'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == NUMBER_OF_1_2_3_4


@given(st.integers(), st.integers(), st.text(max_size=20))
def test_a_keys_number_fits_a_seed(seed, index, consumer):
    assert 0 <= Key(seed=seed, index=index).number(consumer) < 2**63


@pytest.mark.parametrize("field", ["seed", "epoch", "repeat", "index"])
def test_every_part_of_a_key_and_the_consumer_matter(field):
    changed = attrs.evolve(Key(), **{field: 1})
    assert changed.number("flip") != Key().number("flip")
    assert changed.number("flip") != changed.number("crop")


def test_parts_of_a_key_do_not_run_together():
    assert Key(seed=1, epoch=11).number("x") != Key(seed=11, epoch=1).number("x")


def test_a_generator_begins_anew_each_time():
    key = Key(seed=3)
    first, second = (torch.rand(4, generator=key.generator("flip")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=key.generator("crop")))


# batch, targets, detections


def test_a_batchs_size_is_height_then_width():
    batch = Batch(images=torch.zeros(2, 3, 32, 64), infos=(ImageInfo(size=(30, 60), original_size=(15, 30)),) * 2)
    assert batch.padded_size == (32, 64)
    assert len(batch) == 2


def test_objects_are_what_is_not_ignored():
    found = some_targets([False, True, False]).objects()
    assert len(found) == 2
    assert found.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert found.labels.tolist() == [4, 6]
    assert found.masks is not None
    assert found.masks.nonzero().tolist() == [[0, 0, 0], [1, 2, 2]]
    assert found.ignored is None
    assert found.semantic is not None
    assert found.semantic.shape == (5, 7)


@pytest.mark.parametrize("ignored", [None, [False] * 3])
def test_where_nothing_is_ignored_all_are_objects(ignored):
    given = some_targets(ignored)
    found = given.objects()
    assert found.ignored is None
    assert found.boxes is given.boxes
    assert found.masks is given.masks


def test_where_all_is_ignored_there_is_no_object():
    found = some_targets([True] * 3).objects()
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks is not None
    assert found.masks.shape == (0, 5, 7)


def test_objects_without_masks():
    found = attrs.evolve(some_targets([True, False, False]), masks=None, semantic=None).objects()
    assert (found.masks, found.semantic) == (None, None)
    assert len(found) == 2


def test_targets_go_to_a_device_and_their_boxes_to_a_precision():
    moved = some_targets([False, True, False]).to("meta", torch.float64)
    assert moved.boxes.dtype == torch.float64
    assert moved.labels.dtype == torch.int64
    for value in (moved.boxes, moved.labels, moved.masks, moved.ignored, moved.semantic):
        assert value is not None
        assert value.device.type == "meta"
    kept = attrs.evolve(some_targets(), masks=None, semantic=None).to("cpu")
    assert kept.boxes.dtype == torch.float32
    assert (kept.masks, kept.ignored, kept.semantic) == (None, None, None)


def test_class_ids_are_widened_when_targets_move():
    given = attrs.evolve(some_targets(), semantic=torch.tensor([[0, 200, 255]], dtype=torch.uint8))
    moved = given.to("cpu").semantic
    assert moved is not None
    assert moved.dtype == torch.int64
    assert moved.tolist() == [[0, 200, 255]]


def test_the_maps_of_a_batch_are_padded_to_the_right_and_below_with_unlabelled():
    maps = [torch.zeros(2, 3, dtype=torch.uint8), torch.full((3, 1), 181)]
    padded = semantic_batch([attrs.evolve(some_targets(), semantic=m) for m in maps], (3, 4))
    assert padded.dtype == torch.int64
    assert padded[0].tolist() == [[0, 0, 0, 255], [0, 0, 0, 255], [255] * 4]
    assert padded[1].tolist() == [[181, 255, 255, 255]] * 3


def test_an_image_without_a_map_is_named():
    with pytest.raises(ValueError, match="image 1 of the batch has no semantic map; data sets load them only if"):
        semantic_batch([some_targets(), attrs.evolve(some_targets(), semantic=None)], (5, 7))


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(0, 2), [0, 1]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([False, True, True]), [1, 2]),
        (slice(0, 0), []),
    ],
)
def test_detections_are_chosen_all_through(index, rows):
    given = some_detections()
    found = given[index]
    assert len(found) == len(rows)
    assert found.boxes.tolist() == [given.boxes[r].tolist() for r in rows]
    assert found.scores.tolist() == [given.scores[r].item() for r in rows]
    assert found.labels.tolist() == [given.labels[r].item() for r in rows]
    assert found.masks is not None
    assert given.masks is not None
    assert torch.equal(found.masks, given.masks[rows])
    assert some_detections(masks=False)[index].masks is None


def test_detections_go_to_a_device():
    moved = some_detections().to("meta")
    assert moved.masks is not None
    assert {t.device.type for t in (moved.boxes, moved.scores, moved.labels, moved.masks)} == {"meta"}
    assert some_detections(masks=False).to("meta").masks is None


def test_a_loss_terms_value_keeps_its_gradient():
    total = torch.tensor(6.0, requires_grad=True)
    LossTerm(total, torch.tensor(4.0)).value().backward()
    assert total.grad is not None
    assert total.grad.item() == 0.25


# classes


def test_numbered_classes_have_ids_from_1():
    assert Classes.numbered(2) == Classes(names=("class 0", "class 1"), ids=(1, 2))
    assert len(Classes.numbered(2)) == 2


def test_a_name_for_every_id():
    with pytest.raises(ValueError, match="^1 class names but 2 ids$"):
        Classes(names=("cat",), ids=(1, 2))


def test_the_values_are_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        some_targets().labels = torch.zeros(3)  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Key().seed = 3  # type: ignore[misc]
