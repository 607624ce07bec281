"""Pictures of data sets, as they are in the files and as training sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from det_core.cli.main import cli
from det_core.contracts import Sample
from det_core.data.augmentation_config import CopyPasteConfig, FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.bad_samples import BadImage
from det_core.data.coco_dataset import CocoDataset
from det_core.data.data_config import FlipConfig, SampleConfig
from det_core.data.transforms import apply_transforms
from det_core.reports.dataset_pictures import (
    GRAY,
    Augmentation,
    draw_augmented,
    draw_dataset,
    draw_sample,
    pictures_of,
    semantic_picture,
)
from det_core.reports.drawing import color
from det_core.structures import Key

MakeCoco = Callable[..., Path]
CONFIGS = (
    ScaleJitterConfig(size=(64, 64), factors=(0.5, 2.0)),
    FixedSizeCropConfig(size=(64, 64)),
    FlipConfig(),
    CopyPasteConfig(),
)


def opened(root: Path, **more: Any) -> CocoDataset:
    return CocoDataset(root / "instances_train.json", root / "images", **more)


def augmentation(seed: int = 0) -> Augmentation:
    return Augmentation(tuple(c.build() for c in CONFIGS), seed)


def test_drawing(make_coco: MakeCoco, tmp_path: Path) -> None:
    root = make_coco()
    files = draw_dataset(opened(root, masks=True), tmp_path / "out", 3)
    assert [f.name for f in files] == ["000000000010.png", "000000000030.png", "000000000040.png"]
    assert Image.open(files[0]).size == (480, 320)
    assert len(draw_dataset(opened(root), tmp_path / "all", 100)) == 4
    assert draw_dataset(opened(root), tmp_path / "none", 0) == []
    path = root / "images" / "10.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadImage, match=r"10\.png"):
        draw_dataset(opened(root), tmp_path / "out", 1)
    skipping = opened(root, on_bad_sample="skip")
    assert draw_dataset(skipping, tmp_path / "out", 1) == []
    assert [bad.id for bad in skipping.skipped] == [10]


def test_augmented_pictures_are_of_what_training_sees(make_coco: MakeCoco, tmp_path: Path) -> None:
    data = opened(make_coco(), masks=True)
    files = draw_augmented(data, augmentation(3), tmp_path / "out", 6)
    assert [f.name for f in files] == pictures_of(data, 6, augmentation(3))
    assert [f.name for f in files] == [
        *(f"0000000000{i}-epoch-0.png" for i in (10, 20, 30, 40)),
        *(f"0000000000{i}-epoch-1.png" for i in (10, 40)),
    ]
    key = Key(seed=3, epoch=0, repeat=0, index=1)
    expected = draw_sample(apply_transforms(data.load(1), augmentation().transforms, key, data), data.classes)
    found = np.array(Image.open(files[1]))
    assert found.shape == (512, 512, 3)  # 64 pixels, enlarged
    assert np.array_equal(found, expected.permute(1, 2, 0).numpy())
    other = draw_augmented(data, augmentation(4), tmp_path / "other", 2)
    assert not np.array_equal(np.array(Image.open(other[0])), np.array(Image.open(files[0])))


def test_bad_images_are_passed_over_with_those_they_would_be_mixed_into(make_coco: MakeCoco, tmp_path: Path) -> None:
    root = make_coco()
    path = root / "images" / "10.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadImage, match=r"10\.png"):
        draw_augmented(opened(root, masks=True), augmentation(), tmp_path / "out", 1)
    skipping = opened(root, masks=True, on_bad_sample="skip")
    files = draw_augmented(skipping, augmentation(), tmp_path / "out", 12)
    assert 0 < len(files) < 9
    assert {f.name[:12] for f in files} <= {"000000000020", "000000000030", "000000000040"}
    assert [bad.id for bad in skipping.skipped] == [10]


def test_a_semantic_map_stands_to_the_right() -> None:
    ids = torch.tensor([[0, 1, 255], [7, 0, 0]], dtype=torch.uint8)
    drawn = semantic_picture(ids)
    assert drawn[:, 0, 0].tolist() == list(color(0))
    assert drawn[:, 1, 0].tolist() == list(color(7))
    assert drawn[:, 0, 2].tolist() == [GRAY] * 3
    data = SampleConfig(split="train").build(masks=True, semantic=True)
    sample = apply_transforms(data.load(0), augmentation().transforms, Key(), data)
    picture = draw_sample(sample, data.classes)
    assert picture.shape == (3, 512, 1024)
    assert sample.semantic is not None
    assert torch.equal(picture[:, ::8, 512::8], semantic_picture(sample.semantic))


def test_a_floating_point_image_is_drawn_in_bytes() -> None:
    given = Sample(
        image=torch.tensor([-0.4, 99.6, 255.3])[:, None, None].expand(3, 480, 480),
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        ignored=torch.zeros(0, dtype=torch.bool),
    )
    assert draw_sample(given)[:, 5, 5].tolist() == [0, 100, 255]


# The command line


def browse(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["data", *map(str, words)])
    return done.exit_code, done.output


def test_browse_draws_the_recipe_s_transforms(make_coco: MakeCoco, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        "extends: faster-rcnn/r18-fpn-demo\n"
        "data:\n  train_transforms:\n    - {type: fixed_size_crop, size: [64, 64]}\n    - {type: copy_paste}\n"
    )
    words = ("browse", "--augmented", "--config", config, "--data", make_coco(), "--count", 5)
    status, text = browse(*words, "--out", tmp_path / "out", "--seed", 1)
    assert (status, text) == (0, f"5 pictures in {tmp_path / 'out'}\n")
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 5
    assert {Image.open(file).size for file in files} == {(512, 512)}
    # The recipe's seed is the default; the same seed gives the same pictures.
    for number, seed in enumerate((0, None, 1)):
        status, _ = browse(*words, "--out", tmp_path / str(number), *(() if seed is None else ("--seed", seed)))
        assert status == 0
    first, default, again = ([f.read_bytes() for f in sorted((tmp_path / str(i)).iterdir())] for i in range(3))
    assert first == default
    assert again == [f.read_bytes() for f in files]
    assert again != first


def test_browse_takes_a_recipe_and_changes_of_it(tmp_path: Path) -> None:
    changes = ("--set", "data.train_transforms=[{type: resize, scales: [[500, 500]]}]")
    status, _ = browse(
        "browse", "--augmented", "--recipe", "rpn/r18-fpn-demo", *changes, "--count", 1, "--out", tmp_path
    )
    assert status == 0
    assert [Image.open(file).size for file in tmp_path.iterdir()] == [(500, 500)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--augmented", "--split", "val"), "--augmented draws training images, but found --split val; leave out one"),
        (("--seed", "3"), "--seed is the seed of the transforms that --augmented draws; add --augmented"),
    ],
)
def test_options_that_do_not_fit(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "browse", "--out", str(tmp_path / "out"), *words])
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output
    assert not (tmp_path / "out").exists()


def test_pictures_do_not_overwrite_the_data(make_coco: MakeCoco) -> None:
    def edit(data: dict[str, Any]) -> None:
        for image in data["images"]:
            image["file_name"] = f"{image['id']:012d}-epoch-0.png"

    root = make_coco(edit)
    for file in (root / "images").iterdir():
        file.rename(file.with_name(f"{int(file.stem):012d}-epoch-0.png"))
    done = CliRunner().invoke(
        cli, ["data", "browse", "--augmented", "--data", str(root), "--out", str(root / "images")]
    )
    assert done.exit_code != 0
    assert "would be overwritten" in str(done.exception) + done.output
