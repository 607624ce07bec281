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
        for level in range(2):
            scores = every.scores[level][row]
            kept = torch.ones(len(scores), dtype=torch.bool) if outputs.kept is None else outputs.kept[level][row]
            assert bool(kept.all()) == training
            assert torch.equal(scores[kept], outputs.scores[level][row][kept])
            assert bool((scores[~kept] == -torch.inf).all())
            assert torch.equal(every.deltas[level][row], outputs.deltas[level][row])
            own = head.guided.decode(outputs.anchors[level].boxes, outputs.shapes[level][row])
            torch.testing.assert_close(every.anchors[level].boxes[row], own)
            assert len(every.anchors[level].cells) == len(kept)
