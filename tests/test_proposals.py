"""From an RPN to Fast R-CNN: proposals are written, trained on, tested on; and what is refused on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from attrs import evolve

from det_core import Recipe, load_detector, load_recipe, train
from det_core.cli.main import run
from det_core.data.data_config import CocoConfig, SampleConfig
from det_core.data.proposals_file import ImageProposals, read_proposals, write_proposals
from det_core.engine.checkpoint import last_checkpoint, read_weights
from det_core.engine.dataset_proposals import propose
from det_core.errors import ConfigError, DetError

RESIZED = (
    "data.train_transforms=[{type: resize, scales: [[96, 96]]}, {type: flip}]",
    "data.test_transforms=[{type: resize, scales: [[96, 96]]}]",
    "data.workers=0",
    "detector.neck={type: fpn, channels: 32, norm: {type: group_norm, groups: 8}}",
    "schedule.epochs=1",
    "schedule.learning_rate.milestones=[]",
)
RPN = (
    *RESIZED,
    "detector.dense_head.channels=32",
    "detector.dense_head.test_limits={before_nms: 50, after_nms: 30}",
)
HEAD = (*RESIZED, "detector.roi_head.box_head.fc_channels=32", "detector.roi_head.sampler.count=16")
TWO_STAGES = (*HEAD, *RPN[len(RESIZED) :])
FAST = (*HEAD, "data.train.max_proposals=20")
MASKS = "detector.roi_head.mask_head={type: conv_mask_head, num_convs: 1, channels: 16}"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rpn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an RPN after a few steps on the sample."""
    folder = tmp_path_factory.mktemp("rpn")
    train(load_recipe("rpn/r18-fpn-demo", RPN), work_dir=folder, device="cpu", max_steps=3, quiet=True)
    return folder


@pytest.fixture(scope="module")
def dumped(rpn: Path) -> dict[str, Path]:
    """Its proposals for both splits, written by the command line."""
    files = {split: rpn / f"{split}.safetensors" for split in ("train", "val")}
    for split, file in files.items():
        dump = ["proposals", "--checkpoint", str(rpn), "--split", split, "-o", str(file), "--device", "cpu"]
        assert run(dump) == 0
    return files


def fast(dumped: dict[str, Path], *more: str) -> Recipe:
    given = tuple(f"data.{split}.proposals={file}" for split, file in dumped.items())
    return load_recipe("fast-rcnn/r18-fpn-demo", (*FAST, *given, *more))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    last = last_checkpoint(folder)
    assert last is not None
    return read_weights(last / "model.safetensors")


# Writing


def test_the_files_hold_what_the_rpn_finds(rpn: Path, dumped: dict[str, Path]) -> None:
    """Boxes in pixels of the original images, best first: those that evaluation gets."""
    detector = load_detector(rpn)
    for split, count in (("train", 17), ("val", 7)):
        data = SampleConfig(split=split).build("")  # type: ignore[arg-type]
        found = read_proposals(dumped[split])
        assert len(found) == len(data) == count
        assert found.facts["recipe"] == "rpn/r18-fpn-demo"
        assert found.facts["dataset"] == f"sample ({split})"
        assert found.facts["proposals"] == len(found.boxes)
        for image in propose(detector, data)[:3]:
            row = found.image_ids.tolist().index(image.image_id)
            assert torch.equal(found.of_row(row), image.boxes)
            assert found.sizes[row].tolist() == list(image.size)
            assert 0 < len(image.boxes) <= 30
            assert float(image.boxes.max()) > 96  # the network saw 96 pixels at most


def test_the_command_counts_and_says_how_to_go_on(
    rpn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "few.safetensors"
    command = ["proposals", "--checkpoint", str(rpn), "--split", "val", "-o", str(file), "--device", "cpu"]
    assert run([*command, "--max-per-image", "5"]) == 0
    out = capsys.readouterr().out
    assert f"7 images, 35 proposals, 5.0 per image (5 to 5) -> {file}\n" in out
    assert f"to use them: --set data.val.proposals={file.resolve()}\n" in out
    assert "on 7 images of sample (val)" in out
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_the_first_stage_of_a_two_stage_detector_proposes_too(tmp_path: Path) -> None:
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", (*TWO_STAGES, MASKS))
    train(recipe, work_dir=tmp_path / "run", device="cpu", max_steps=1, quiet=True)
    file = tmp_path / "val.safetensors"
    command = ["proposals", "--checkpoint", str(tmp_path / "run"), "--split", "val", "-o", str(file)]
    assert run([*command, "--device", "cpu"]) == 0
    assert len(read_proposals(file)) == 7


def test_a_detector_without_a_first_stage_proposes_nothing(
    dumped: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = fast(dumped)
    train(recipe, work_dir=tmp_path / "run", device="cpu", max_steps=1, quiet=True)
    assert run(["proposals", "--checkpoint", str(tmp_path / "run"), "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "recipe fast-rcnn/r18-fpn-demo has no dense_head; give a checkpoint of an RPN" in capsys.readouterr().err
    with pytest.raises(DetError, match="the detector has no dense_head; use an RPN or a two-sta"):
        propose(recipe.detector.build(num_classes=1), SampleConfig(split="val").build(""))


# Training on them


def test_fast_rcnn_trains_and_is_tested_on_them(
    dumped: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    result = train(fast(dumped), work_dir=folder, device="cpu", log_every=1, quiet=True)
    assert result.reason == "finished"
    assert 0 <= result.metrics["box_ap"] <= 1
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    assert {name for name in rows[0] if name.startswith("loss/")} == {"loss/roi_cls", "loss/roi_box", "loss/total"}
    assert len(list((folder / "pictures").iterdir())) == 4
    assert run(["test", "--checkpoint", str(folder), "--json", str(tmp_path / "m.json"), "--device", "cpu"]) == 0
    tested = json.loads((tmp_path / "m.json").read_text(encoding="utf8"))["metrics"]
    assert tested["box_ap"] == pytest.approx(result.metrics["box_ap"])
    image = SampleConfig(split="val").build("").file(0)
    assert run(["predict", "--checkpoint", str(folder), "--out", str(tmp_path / "out"), image]) == 1
    assert "roi_head but no dense_head that proposes boxes, and the batch has no prop" in capsys.readouterr().err


def test_masks_from_given_proposals(dumped: dict[str, Path], tmp_path: Path) -> None:
    evaluators = "evaluation.evaluators=[{type: coco, kinds: [box, mask]}]"
    result = train(fast(dumped, MASKS, evaluators), work_dir=tmp_path / "run", device="cpu", quiet=True)
    assert 0 <= result.metrics["mask_ap"] <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_bit_for_bit(workers: int, dumped: dict[str, Path], tmp_path: Path) -> None:
    recipe = fast(dumped, "evaluation.evaluators=[]")
    train(recipe, work_dir=tmp_path / "whole", device="cpu", max_steps=4, quiet=True)
    recipe = evolve(recipe, data=evolve(recipe.data, workers=workers))
    for steps in (2, 4):
        train(recipe, work_dir=tmp_path / "parts", device="cpu", max_steps=steps, resume=True, quiet=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_images_without_proposals_train_and_are_tested(dumped: dict[str, Path], tmp_path: Path) -> None:
    """In training the objects' own boxes are left to learn from; at test there is nothing to classify."""
    files = {split: tmp_path / f"{split}.safetensors" for split in dumped}
    for split, file in files.items():
        data = SampleConfig(split=split).build("")  # type: ignore[arg-type]
        found = [
            ImageProposals(int(number), data.file(i), (int(height), int(width)), torch.zeros(0, 4), torch.zeros(0))
            for i, (number, (height, width)) in enumerate(zip(data.image_ids, data.sizes, strict=True))
        ]
        write_proposals(file, found, {})
    result = train(fast(files), work_dir=tmp_path / "run", device="cpu", quiet=True)
    assert result.reason == "finished"
    assert result.metrics["box_ap"] == 0


# Refusals


def test_a_detector_that_takes_proposals_gets_them_or_does_not_start(dumped: dict[str, Path], tmp_path: Path) -> None:
    message = (
        r"fast-rcnn/r18-fpn-demo: 1 problem\n  data.train.proposals: is not set, but the detector has a roi_head and "
        r"no dense_head that proposes boxes; make the file from an RPN with `det-core proposals --checkpoint RPN_RUN "
        r"--split train -o train.safetensors` and give it with `--set data.train.proposals=FILE`, or use a proposal h"
    )
    with pytest.raises(ConfigError, match=message):
        train(load_recipe("fast-rcnn/r18-fpn-demo"), work_dir=tmp_path / "run", quiet=True)
    without = load_recipe("fast-rcnn/r18-fpn-demo", [f"data.train.proposals={dumped['train']}"])
    with pytest.raises(ConfigError, match=r"data.val.proposals: is not set, but .* --split val -o val.safetensors`"):
        train(without, work_dir=tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"--checkpoint RPN_RUN --data /coco --split train"):
        load_recipe("fast-rcnn/r50-fpn-1x").with_data("/coco").open_train()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [("rpn/r18-fpn-demo", "has no roi_head"), ("faster-rcnn/r18-fpn-demo", "has a dense_head that proposes boxes its")],
)
def test_proposals_that_would_not_be_used_are_refused(name: str, why: str, dumped: dict[str, Path]) -> None:
    recipe = load_recipe(name, [f"data.val.proposals={dumped['val']}"])
    recipe.open_train()
    with pytest.raises(ConfigError, match=f"data.val.proposals: is set, but the detector {why}.*leave it out"):
        recipe.open_val()


def test_proposals_of_the_other_split_are_refused(dumped: dict[str, Path], tmp_path: Path) -> None:
    recipe = fast({"train": dumped["val"], "val": dumped["val"]})
    with pytest.raises(DetError, match=r"val.safetensors: has no proposals for 14 of 17 images of sample \(train\)"):
        train(recipe, work_dir=tmp_path / "run", quiet=True)


def test_settings_of_proposals_stay_when_the_data_change() -> None:
    recipe = load_recipe("fast-rcnn/r18-fpn-demo", ["data.train.proposals=a", "data.train.max_proposals=7"])
    assert recipe.with_data("/coco").data.train == CocoConfig(split="train", proposals="a", max_proposals=7)
