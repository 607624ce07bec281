"""`schedule.compile`: the same losses and names, and few graphs however many sizes the images have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from det_core import Detector, load_recipe
from det_core.engine.training_setup import compiled_parts
from det_core.testing.tiny_inputs import blank_batch, objects

SIZES = [(64, 64), (64, 96), (128, 96), (160, 128), (64, 160)]
RECIPES = ["rpn/r18-fpn-demo", "ssd/vgg16-demo", pytest.param("retinanet/r18-fpn-demo", marks=pytest.mark.slow)]
GRAPHS_OF_A_PART = 4  # of one size, then of any width, of any height and width, and of squares


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def losses(detector: Detector, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    terms = detector.train().losses(blank_batch(*size), [objects((4, 4, 30, 30))])
    values = {name: term.value() for name, term in terms.items()}
    sum(values.values(), torch.zeros(())).backward()
    return {name: value.detach() for name, value in values.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_compiled_parts_compute_the_same_in_a_few_graphs(name: str) -> None:
    torch.manual_seed(0)
    detector = load_recipe(name).detector.build(num_classes=1)
    names = list(detector.state_dict())
    eager = [losses(detector, size) for size in SIZES]
    gradients = {name: p.grad for name, p in detector.named_parameters()}
    detector.zero_grad(set_to_none=True)
    parts = compiled_parts(detector)
    assert parts == [detector.backbone, detector.neck, detector.dense_head]
    for part in parts:
        part.compile(backend="eager")
    for expected, size in zip(eager, SIZES, strict=True):
        for key, value in losses(detector, size).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
    for key, parameter in detector.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-3, atol=1e-4)
    assert list(detector.state_dict()) == names
    assert len(parts) <= counters["stats"]["unique_graphs"] <= GRAPHS_OF_A_PART * len(parts)


def test_a_head_that_does_not_say_that_it_compiles_is_left_out() -> None:
    detector = load_recipe("ga-retinanet/r18-fpn-demo").detector.build(num_classes=1)
    assert compiled_parts(detector) == [detector.backbone, detector.neck]
