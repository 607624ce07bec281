"""Guided anchors of all images in tensors of fixed size, beside those of each image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from det_plugin_guided_anchoring import GARPNConfig


@pytest.mark.parametrize("training", [False, True])
def test_the_anchors_of_all_images_are_those_of_each(scene: Any, training: bool) -> None:
    """In training all cells have an anchor; in evaluation those that do not have scores of -inf."""
    head = scene.lively(GARPNConfig(channels=8).build(scene.spec, 3)).train(training)
    outputs = head(scene.features(torch.float64))
    every = head.guided.of_images(outputs)
    for row in range(2):
        own = head.guided.of_image(outputs, row)
        for level in range(2):
            scores = every.scores[level][row]
            kept = scores[:, 0] > -torch.inf
            assert bool(kept.all()) == training
            assert torch.equal(scores[kept], own.scores[level][0])
            assert torch.equal(every.deltas[level][row][kept], own.deltas[level][0])
            torch.testing.assert_close(every.anchors[level].boxes[row][kept], own.anchors[level].boxes)
            assert len(every.anchors[level].cells) == len(kept)
