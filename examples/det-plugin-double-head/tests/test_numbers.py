"""Cases worked out by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from det_core.model.layer_config import RoIAlignConfig
from det_core.specs import FeatureSpec
from det_core.testing import tiny_inputs

from det_plugin_double_head import DoubleHead, DoubleHeadConfig
from det_plugin_double_head.journal import JOURNAL, Journal
from det_plugin_double_head.roi_head import enlarge


def small_head(num_classes: int) -> DoubleHead:
    config = DoubleHeadConfig(
        fc_channels=8, conv_channels=8, num_blocks=0, norm=None, roi_pool=RoIAlignConfig(size=2, strides=(4,))
    )
    return config.build(FeatureSpec(channels=(8,), strides=(4,)), num_classes)


def test_enlarging_keeps_the_centre() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 24.0]])
    assert torch.equal(enlarge(boxes, 1.5), torch.tensor([[5.0, 19.0, 35.0, 25.0]]))
    assert torch.equal(enlarge(boxes, 1.0), boxes)


def test_zero_deltas_leave_the_proposals_in_original_pixels() -> None:
    head = small_head(num_classes=2).eval()
    for layer in (head.class_branch.scores, head.box_branch.deltas):
        torch.nn.init.zeros_(layer.weight)
    batch = tiny_inputs.make_batch(1)  # shown at half its size
    found = head.predict([torch.zeros(1, 8, 24, 32)], [torch.tensor([[8.0, 4.0, 20.0, 12.0]])], batch)[0]
    # Equal logits: each of the two classes and the background has a probability of one third.
    assert found.boxes.tolist() == [[16.0, 8.0, 40.0, 24.0]] * 2
    assert torch.allclose(found.scores, torch.full((2,), 1 / 3))
    assert sorted(found.labels.tolist()) == [0, 1]


def test_losses_are_those_of_the_paper_on_a_region_that_is_an_object() -> None:
    head = small_head(num_classes=2)
    for layer in (head.class_branch.scores, head.box_branch.deltas):
        torch.nn.init.zeros_(layer.weight)
    batch = tiny_inputs.make_batch(1)
    targets = tiny_inputs.make_targets(batch, 2)
    losses = head.losses([torch.zeros(1, 8, 24, 32)], [torch.zeros(0, 4)], targets, batch)
    assert torch.isclose(losses["roi_cls"].value(), 2 * torch.tensor(3.0).log())  # weight 2, three equal classes
    assert losses["roi_box"].value() == 0  # the objects' own boxes need no shift


def test_the_journal_has_a_line_per_evaluation_while_a_run_lasts(tmp_path: Path) -> None:
    journal = Journal()
    journal.evaluated(1, {"box_ap": 0.5})  # no run: nowhere to write
    journal.begin("mine", tmp_path)
    journal.evaluated(10, {"box_ap": 0.25, "box_ap50": 0.5})
    journal.end(10, "finished")
    journal.evaluated(11, {"box_ap": 0.5})
    lines = (tmp_path / JOURNAL).read_text(encoding="utf8").splitlines()
    assert lines == ["run mine", "step 10: box_ap 0.250, box_ap50 0.500", "finished after step 10"]
