"""Proposals files: what is written is read, what is damaged is told, and data sets take their boxes from them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from det_core.contracts import DetectionDataset
from det_core.data import proposals_file as module
from det_core.data.data_config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.data.epoch_order import TrainSampler
from det_core.data.loader import train_loader
from det_core.data.proposals_file import (
    FORMAT,
    ImageProposals,
    proposals_path,
    read_proposals,
    write_proposals,
)
from det_core.data.transforms import apply_transforms
from det_core.errors import DataError
from det_core.safe_write import WriteError
from det_core.structures import Key

SIZES = {10: (40, 60), 20: (50, 30), 30: (48, 64), 40: (32, 32)}  # of the data set in conftest
COUNTS = {40: 1, 10: 4, 30: 0, 20: 2}
FACTS = {"checkpoint": "runs/rpn", "dataset": "made", "split": "train"}


def image(number: int, count: int, size: tuple[int, int] | None = None, file: str = "") -> ImageProposals:
    """Boxes that tell of their image and place: x1 is the place, y1 the image's number / 10."""
    height, width = size or SIZES[number]
    place = torch.arange(count, dtype=torch.float32)
    y1 = torch.full((count,), number / 10)
    boxes = torch.stack([place, y1, torch.full((count,), float(width)), torch.full((count,), float(height))], 1)
    return ImageProposals(number, file or f"elsewhere/{number}.png", (height, width), boxes, 1 - place / 10)


def images() -> list[ImageProposals]:
    return [image(number, count) for number, count in COUNTS.items()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made" / "train.safetensors"
    write_proposals(path, images(), FACTS)
    return path


def spoil(file: Path, edit: Callable[[dict[str, Tensor]], object], **metadata: str) -> Path:
    """The file with its arrays edited, under another name."""
    arrays = {name: value.clone() for name, value in load_file(file).items()}
    edit(arrays)
    path = file.with_name("spoilt.safetensors")
    save_file(arrays, path, metadata={"format": FORMAT, "facts": "{}", **metadata})
    return path


def put(name: str, at: object, value: object) -> Callable[[dict[str, Tensor]], None]:
    def edit(arrays: dict[str, Tensor]) -> None:
        arrays[name][at] = torch.tensor(value, dtype=arrays[name].dtype)  # type: ignore[index]

    return edit


def change(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def edit(arrays: dict[str, Tensor]) -> None:
        arrays[name] = function(arrays[name]).contiguous()

    return edit


# Format


def test_what_is_written_is_read(file: Path) -> None:
    found = read_proposals(file)
    assert found.file == file
    assert found.facts == FACTS
    assert len(found) == 4
    assert found.image_ids.tolist() == [10, 20, 30, 40]
    assert found.sizes.tolist() == [list(SIZES[number]) for number in (10, 20, 30, 40)]
    assert found.offsets.tolist() == [0, 4, 6, 6, 7]
    for row, number in enumerate((10, 20, 30, 40)):
        assert torch.equal(found.of_row(row), image(number, COUNTS[number]).boxes)
    assert found.of_row(0).dtype == torch.float32
    assert torch.equal(found.of_row(0, 2), image(10, 2).boxes)
    assert torch.equal(found.of_row(1, 100), image(20, 2).boxes)
    assert found.of_row(2).shape == (0, 4)


def test_a_file_without_any_image_or_box_is_one_too(tmp_path: Path) -> None:
    for name, given in (("none", []), ("empty", [image(10, 0)])):
        write_proposals(tmp_path / f"{name}.safetensors", given, {})
        assert len(read_proposals(tmp_path / f"{name}.safetensors")) == len(given)


def test_a_copy_is_handed_out(file: Path) -> None:
    found = read_proposals(file)
    found.of_row(0).zero_()
    assert torch.equal(found.of_row(0), image(10, 4).boxes)


def test_nothing_is_left_where_writing_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(WriteError, match="no space left on device.*the earlier file is kept"):
        write_proposals(file, images(), {})
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == before


def test_what_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    wrong = attrs.evolve(image(10, 2), scores=torch.tensor([0.1, 0.2]))
    with pytest.raises(DataError, match="a better one than the box before it"):
        write_proposals(tmp_path / "x.safetensors", [wrong], {})
    assert list(tmp_path.iterdir()) == []


def test_boxes_in_the_file_are_checked_part_by_part(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the parts, the order of scores is seen over their borders, and that of two images is not compared."""
    rising = spoil(file, put("scores", 2, 0.95))
    for chunk in range(1, 8):
        monkeypatch.setattr(module, "CHUNK", chunk)
        assert read_proposals(file).offsets[-1] == 7
        with pytest.raises(
            DataError, match=r"image id 10 .* box \[2.0, 1.0, 60.0, 40.0\] with score 0.95 has no finite"
        ):
            read_proposals(rising)


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no array": (lambda a: (a.pop("scores"), a.pop("sizes")), "damaged: no scores, sizes in it"),
    "a number": (change("boxes", lambda t: t.sum()), "damaged: boxes is a single number, expected an array"),
    "a number of images": (change("image_ids", lambda t: t.sum()), "damaged: image_ids is a single number"),
    "precision": (change("boxes", Tensor.double), r"damaged: boxes are torch\.float64, expected torch\.float32"),
    "box shape": (change("boxes", lambda t: t[:, :3]), r"damaged: boxes are \(7, 3\), expected \(7, 4\)"),
    "score count": (change("scores", lambda t: t[:5]), r"damaged: scores are \(5,\), expected \(7,\)"),
    "sizes": (change("sizes", lambda t: t[:3]), r"damaged: sizes are \(3, 2\), expected \(4, 2\)"),
    "offset count": (change("offsets", lambda t: t[:4]), r"damaged: offsets are \(4,\), expected \(5,\)"),
    "offsets": (put("offsets", 1, 9), "damaged: offsets do not ascend from 0 to 7 boxes"),
    "last offset": (put("offsets", 4, 6), "damaged: offsets do not ascend from 0 to 7 boxes"),
    "names": (change("names", lambda t: t[:6]), "damaged: names of 3 images, expected 4"),
    "name shape": (change("names", lambda t: t[None]), r"damaged: names are \(1, 11\), expected \(11,\)"),
    "twice": (put("image_ids", 1, 10), "damaged: image ids 10 appear twice"),
    "outside": (
        put("boxes", (4, 2), 31.0),
        r"image id 20 \(30x50 pixels\): box \[0.0, 2.0, 31.0, 50.0\] with score 1 reaches outside its image",
    ),
    "before": (put("boxes", (0, 0), -2.0), r"image id 10 .* box \[-2.0, 1.0, 60.0, 40.0\] .* reaches outside"),
    "turned": (put("boxes", (0, 0), 60.5), "reaches outside its image, or is not x1 <= x2"),
    "not a number": (put("boxes", (6, 1), float("nan")), "image id 40 .* reaches outside"),
    "unsorted": (put("scores", 5, 1.5), "image id 20 .* score 1.5 has no finite score, or a better one than the box"),
    "no score": (put("scores", 6, float("nan")), "image id 40 .* with score nan has no finite score"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told(what: str, file: Path) -> None:
    edit, message = DAMAGE[what]
    path = spoil(file, edit)
    with pytest.raises(DataError, match=message) as caught:
        read_proposals(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("make the file with `det-core proposals`")


def test_rounding_may_carry_a_box_over_the_border(file: Path) -> None:
    assert len(read_proposals(spoil(file, put("boxes", (0, 2), 60.005)))) == 4


def test_what_is_not_a_proposals_file(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.safetensors: no such proposals file; make the file with `det-core prop"):
        read_proposals(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut.safetensors: not a proposals file, or truncated \(.*\); make the"):
        read_proposals(cut)
    (tmp_path / "text.safetensors").write_text("not even close", encoding="utf8")
    with pytest.raises(DataError, match="not a proposals file, or truncated"):
        read_proposals(tmp_path / "text.safetensors")
    with pytest.raises(DataError, match="found format 'det proposals 9', expected 'det proposals 1'; make the file"):
        read_proposals(spoil(file, lambda arrays: None, format="det proposals 9"))
    with pytest.raises(DataError, match="found weights of a detector, expected 'det proposals 1'"):
        read_proposals(spoil(file, lambda arrays: None, format="det 1", recipe="{}"))


@pytest.mark.parametrize("facts", ["{", "[1]"])
def test_facts_are_a_json_object(facts: str, file: Path) -> None:
    with pytest.raises(DataError, match="damaged: the facts in its header are not a JSON object"):
        read_proposals(spoil(file, lambda arrays: None, facts=facts))


class Trap:
    """Unpickling this is seen."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("suffix", [".pkl", ".pickle"])
def test_pickles_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rpn_r50_fpn_1x_train2017{suffix}"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(
        DataError, match=r"so pickled proposals are not supported; make the file with `det-core prop.*`"
    ):
        read_proposals(path)


# Data sets


def open_set(make_coco: Callable[..., Path], **more: Any) -> DetectionDataset:
    return CocoConfig(split="train", **more).build(str(make_coco()), masks=True)


def test_a_data_set_gives_each_image_its_boxes(make_coco: Callable[..., Path], file: Path) -> None:
    data = open_set(make_coco, proposals=str(file))
    for index, number in enumerate(data.image_ids.tolist()):
        found = data.load(index).proposals
        assert found is not None
        assert torch.equal(found, image(number, COUNTS[number]).boxes)


def test_the_best_are_taken(make_coco: Callable[..., Path], file: Path) -> None:
    data = open_set(make_coco, proposals=str(file), max_proposals=2)
    counts = {n: len(data.load(i).proposals) for i, n in enumerate(data.image_ids.tolist())}  # type: ignore[arg-type]
    assert counts == {10: 2, 20: 2, 30: 0, 40: 1}
    assert torch.equal(data.load(0).proposals, image(10, 2).boxes)  # type: ignore[arg-type]


def test_without_a_file_there_are_none(make_coco: Callable[..., Path]) -> None:
    assert open_set(make_coco, max_proposals=2).load(0).proposals is None


def test_an_image_that_the_set_leaves_out_is_no_matter(make_coco: Callable[..., Path], file: Path) -> None:
    data = open_set(make_coco, proposals=str(file), filter_empty=True)
    assert data.image_ids.tolist() == [10, 20, 30]
    assert torch.equal(data.load(1).proposals, image(20, 2).boxes)  # type: ignore[arg-type]


def test_images_that_the_file_has_not_are_listed(make_coco: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    write_proposals(path, [image(30, 1), image(10, 2)], FACTS)
    message = (
        r"some.safetensors: has no proposals for 2 of 4 images of .*instances_train.json \(image ids 20, 40\); the "
        "file was made from dataset made, split train, checkpoint runs/rpn; make the file with `det-core proposals` "
    )
    with pytest.raises(DataError, match=message):
        open_set(make_coco, proposals=str(path))


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    write_proposals(tmp_path / "x.safetensors", [image(10, 1)], {})
    with pytest.raises(DataError, match=r"image ids \d+, \d+, \d+, \d+, \d+, \.\.\.\); the file does not record"):
        SampleConfig(split="train", proposals=str(tmp_path / "x.safetensors")).build()


def test_other_images_under_the_same_ids_are_told(make_coco: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_proposals(path, [image(n, 1, (70, 80) if n == 20 else None) for n in SIZES], FACTS)
    message = (
        "other.safetensors: has the proposals of other images: image id 20 is 20 of 80x70 pixels in it, but 20 of "
        r"30x50 pixels in .* \(1 of 4 differ\); the file was made from dataset made, split train, .*; make the file "
    )
    with pytest.raises(DataError, match=message):
        open_set(make_coco, proposals=str(path))
    write_proposals(path, [image(n, 1, file="a.b.png" if n > 20 else "") for n in SIZES], FACTS)
    with pytest.raises(
        DataError, match=r"image id 30 is a.b of 64x48 pixels in it, but 30 of 64x48 .* \(2 of 4 differ"
    ):
        open_set(make_coco, proposals=str(path))


def test_folders_suffixes_and_odd_names_are_no_matter(make_coco: Callable[..., Path], tmp_path: Path) -> None:
    def rename(plain: dict[str, Any]) -> None:
        for record, name in zip(plain["images"], ("ä.b.png", "two\nlines.png", "sub/x.png", "40"), strict=True):
            target = tmp_path / "data" / "images" / name
            target.parent.mkdir(exist_ok=True)
            (tmp_path / "data" / "images" / record["file_name"]).rename(target)
            record["file_name"] = name

    root = make_coco(rename)
    data = CocoConfig(split="train").build(str(root))
    files = ["b/ä.b.jpg", "two\nlines.jpg", "x", "y/40.tif"]
    path = tmp_path / "x.safetensors"
    write_proposals(path, [image(n, 1, file=file) for n, file in zip(SIZES, files, strict=True)], {})
    assert read_proposals(path).rows_of(data).tolist() == [0, 1, 2, 3]


def test_where_a_file_is_looked_for(
    make_coco: Callable[..., Path], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_coco()
    (root / "rpn.safetensors").write_bytes(file.read_bytes())
    assert CocoConfig(split="train", proposals="rpn.safetensors").build(str(root)).load(0).proposals is not None
    assert proposals_path(root, "rpn.safetensors") == root / "rpn.safetensors"
    assert proposals_path(root, str(file)) == file
    monkeypatch.chdir(file.parent)
    assert proposals_path("", "train.safetensors") == Path("train.safetensors")
    message = f"{root / 'train.safetensors'}: no such proposals file (paths are relative to the data folder {root})"
    with pytest.raises(DataError) as caught:
        proposals_path(root, "train.safetensors")
    assert str(caught.value) == f"{message}; use the path of {file.resolve()}"
    with pytest.raises(DataError, match="none: no such proposals file; correct the path, or make the file with `det-"):
        proposals_path(root, str(tmp_path / "none"))


@pytest.mark.parametrize("cls", [CocoConfig, SampleConfig])
def test_at_least_one_is_taken(cls: type) -> None:
    with pytest.raises(ValueError, match="max_proposals"):
        cls(split="train", max_proposals=0)


# On the way to the detector


def test_boxes_go_with_the_image(make_coco: Callable[..., Path], file: Path) -> None:
    """Image 10 is 60x40: at 30 by 20 pixels, mirrored, x' = 30 - x / 2."""
    data = open_set(make_coco, proposals=str(file))
    steps = [ResizeConfig(scales=((30, 20),)).build(), FlipConfig(probability=1.0).build()]
    done = apply_transforms(data.load(0), steps, Key())
    expected = [[0.0, 0.5, 30 - i / 2, 20.0] for i in range(4)]
    assert done.size == (20, 30)
    assert done.proposals is not None
    assert torch.allclose(done.proposals, torch.tensor(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_share_the_file(workers: int, make_coco: Callable[..., Path], file: Path) -> None:
    data = open_set(make_coco, proposals=str(file), max_proposals=3)
    sampler = TrainSampler(sizes=data.sizes, images_per_rank=2, group_by_aspect=False)
    loader = train_loader(data, [ResizeConfig(scales=((128, 128),)).build()], sampler, epoch=0, workers=workers)
    seen = {}
    for loaded in (item for step in loader for item in step):
        assert loaded.proposals is not None
        factors = torch.tensor([*loaded.info.scale] * 2).flip(0)
        seen[loaded.info.image_id] = (loaded.proposals / factors).round(decimals=3)
    assert set(seen) == set(COUNTS)
    for number, boxes in seen.items():
        assert torch.allclose(boxes, image(number, min(3, COUNTS[number])).boxes, atol=1e-3)
