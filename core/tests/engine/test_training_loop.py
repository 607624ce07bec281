"""The training loop's arithmetic of steps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from det_core.engine.training_loop import TrainingLoop


@pytest.mark.parametrize(
    ("accumulate", "batches", "expected"),
    [(1, 3, [1, 1, 1, 1, 1, 1]), (2, 3, [2, 1, 2, 1]), (2, 4, [2, 2, 2, 2]), (4, 3, [3, 3])],
)
def test_a_step_takes_no_batch_of_the_next_epoch(accumulate, batches, expected):
    steps = -(-batches // accumulate)
    setup = SimpleNamespace(steps_per_epoch=steps, sampler=SimpleNamespace(steps_per_epoch=batches))
    recipe = SimpleNamespace(schedule=SimpleNamespace(accumulate=accumulate))
    loops = [SimpleNamespace(step=step, setup=setup, recipe=recipe) for step in range(2 * steps)]
    assert [TrainingLoop._micro_batches(loop) for loop in loops] == expected
