"""The first random crop that overlaps an object enough: by hand, the reference, and errors."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import SERVERS, boxes, generator, native, reference, serve

import det_ops

SIDES, ASPECTS = [0.25, 0.75], [0.5, 2.0]
OBJECT = torch.tensor([[10.0, 10.0, 30.0, 30.0]])


@pytest.mark.parametrize("server", SERVERS)
def test_by_hand(server):
    """In 40 x 80 pixels: the first try is 20 x 30 at the corner, the second too flat, the third is accepted."""
    numbers = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 0.5] + [0.0] * 10)
    found = serve(server, "try_crops", OBJECT, numbers, 40, 80, SIDES, ASPECTS, 0.6)
    # 40 x 20 from (0, 10): 20 x 20 of the object in it, 400 / (400 + 800 - 400) = 0.5; not enough.
    assert found.tolist() == [0, 0, 0, 0, len(numbers) - 2]
    found = serve(server, "try_crops", OBJECT, numbers, 40, 80, SIDES, ASPECTS, 0.5)
    assert found.tolist() == [0, 10, 40, 30, 10]
    # The corner has 10 x 20 of the object: 200 / (400 + 600 - 200) = 0.25, but not its centre, which is at its edge.
    assert serve(server, "try_crops", OBJECT, numbers, 40, 80, SIDES, ASPECTS, 0.25).tolist() == [0, 10, 40, 30, 10]


@pytest.mark.parametrize("server", SERVERS)
def test_without_objects_no_crop_is_accepted(server):
    numbers = torch.rand(40, generator=generator())
    found = serve(server, "try_crops", torch.zeros(0, 4), numbers, 40, 80, SIDES, ASPECTS, 0.0).tolist()
    assert found[:4] == [0] * 4
    assert 20 <= found[4] <= 40


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 12),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.floats(0.05, 0.5), st.floats(0.5, 1.0)),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]),
    st.integers(0, 99),
)
def test_the_kernel_equals_the_reference(native_library, count, size, sides, overlap, seed):
    numbers = torch.rand(4 * 20, generator=generator(seed))
    given = (boxes(count, seed), numbers, *size, list(sides), ASPECTS, overlap)
    assert native("try_crops", *given).tolist() == reference("try_crops", *given).tolist()


def test_an_overlap_that_is_not_a_number_is_never_enough():
    endless = torch.tensor([[float("-inf"), 10.0, float("inf"), 30.0]])
    for server in SERVERS:
        given = (torch.cat([OBJECT, endless]), torch.rand(80, generator=generator()), 40, 80, SIDES, ASPECTS, 0.0)
        assert serve(server, "try_crops", *given).tolist()[2] > 0, server  # nan is no centre inside


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((torch.zeros(2, 3), torch.rand(8), (4, 4)), ValueError, r"boxes have shape \(2, 3\), expected \(N, 4\)"),
        ((OBJECT.double(), torch.rand(8), (4, 4)), TypeError, "boxes have dtype torch.float64, expected torch.float32"),
        ((OBJECT, torch.rand(8).double(), (4, 4)), TypeError, "numbers have dtype torch.float64"),
        ((OBJECT, torch.rand(7), (4, 4)), ValueError, r"numbers have shape \(7,\), expected \(4 \* tries,\)"),
        ((OBJECT, torch.rand(8), (0, 4)), ValueError, r"size is \(0, 4\), expected at least 1 each"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        det_ops.try_crops(*given, (0.3, 1.0), (0.5, 2.0), 0.1)
