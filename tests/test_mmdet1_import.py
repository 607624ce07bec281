"""Checkpoints of mmdet 0.5 to 1.2: a round trip of every family, and what is refused, with each message."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path += [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "core" / "tests" / "weights")]

from mmdet1_files import written_in_1x
from mmdet_texts import LEGACY, MODERN

from det_core import load_detector, load_recipe
from det_core.cli.main import run
from det_core.conventions import differences
from det_core.errors import WeightsError
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.structures import Batch, ImageInfo
from det_core.weights.fill_detector import class_count, import_weights
from det_core.weights.mmdet_facts import facts_of
from det_core.weights.mmdet_presets import contradictions, preset_of
from det_core.weights.older_names import current_names
from det_core.weights.read_files import SourceFile
from det_core.weights.translate_names import detector_names, locate

ROWS = json.loads((Path(__file__).parent / "zoo_rows.json").read_text(encoding="utf8"))
SMALL_BACKBONE = ("detector.backbone.depth=18", "detector.backbone.pretrained=null", "detector.neck.channels=16")
SMALL_RPN = ("detector.dense_head.channels=16",)
SMALL_BOX = ("detector.roi_head.box_head.fc_channels=16",)
SMALL_MASK = ("detector.roi_head.mask_head.channels=8", "detector.roi_head.mask_head.num_convs=1")
SMALL_TOWER = ("detector.dense_head.channels=16", "detector.dense_head.num_convs=1")
SMALL_GROUPS = ("detector.backbone.norm.groups=8", "detector.neck.norm.groups=8")
SMALL_GN_BOX = (
    "detector.roi_head.box_head.conv_channels=16",
    "detector.roi_head.box_head.num_convs=1",
    "detector.roi_head.box_head.norm.groups=8",
)
SMALL_GN = (*SMALL_BACKBONE, *SMALL_GROUPS, *SMALL_RPN, *SMALL_BOX, *SMALL_GN_BOX)
# Every family, small: recipe and overrides.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rpn": ("rpn/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN)),
    "fast": ("fast-rcnn/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_BOX)),
    "faster": ("faster-rcnn/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX)),
    "c4": (
        "mask-rcnn/mmdet1-r50-caffe-c4-1x",
        (
            *("detector.backbone.depth=18", "detector.roi_head.trunk.depth=18", "detector.backbone.pretrained=null"),
            *("detector.roi_head.trunk.pretrained=null", "detector.roi_head.mask_head.channels=8", *SMALL_RPN),
        ),
    ),
    "mask": ("mask-rcnn/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX, *SMALL_MASK)),
    "retinanet": ("retinanet/mmdet1-r50-caffe-fpn-1x", (*SMALL_BACKBONE, *SMALL_TOWER)),
    "cascade": ("cascade-rcnn/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX)),
    "cascade-mask": ("cascade-mask-rcnn/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX, *SMALL_MASK)),
    "htc": ("htc/mmdet1-r50-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX, *SMALL_MASK)),
    "ssd300": ("ssd/mmdet1-vgg16-300-coco-120e", ("detector.backbone.channels=4", "detector.backbone.pretrained=null")),
    "ssd512": ("ssd/mmdet1-vgg16-512-voc-240e", ("detector.backbone.channels=4", "detector.backbone.pretrained=null")),
    "gn": (
        "mask-rcnn/mmdet1-r50-fpn-gn-2x",
        (*SMALL_GN, *SMALL_MASK, "detector.roi_head.mask_head.norm.groups=8"),
    ),
    "gn-ws": ("faster-rcnn/mmdet1-r50-fpn-gn-ws-1x", SMALL_GN),
    "dconv": ("faster-rcnn/mmdet1-r50-fpn-dconv-c3-c5-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX)),
    "mdconv": ("faster-rcnn/mmdet1-r50-fpn-mdconv-c3-c5-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX)),
    "dpool": (
        "faster-rcnn/mmdet1-r50-fpn-dpool-1x",
        (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX, "detector.roi_head.roi_pool.fc_channels=8"),
    ),
    "ga-rpn": ("ga-rpn/mmdet1-r50-caffe-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN)),
    "ga-faster": ("ga-faster-rcnn/mmdet1-r50-caffe-fpn-1x", (*SMALL_BACKBONE, *SMALL_RPN, *SMALL_BOX)),
    "ga-retinanet": ("ga-retinanet/mmdet1-r50-caffe-fpn-1x", (*SMALL_BACKBONE, *SMALL_TOWER)),
}


def small(family: str, classes: int, seed: int = 0) -> Detector:
    """A small detector of a family with random weights."""
    name, overrides = FAMILIES[family]
    torch.manual_seed(seed)
    detector = load_recipe(name, overrides).detector.build(num_classes=classes)
    with torch.no_grad():
        for value in detector.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.01, 0.2)
    return detector.eval()


@pytest.mark.parametrize("classes", [1, 3, 20, 80])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_written_as_1x_comes_back(family: str, classes: int) -> None:
    theirs, ours = small(family, classes), small(family, classes, seed=1)
    state = written_in_1x(theirs)
    assert ours.config is not None
    if ours.class_dependent():
        assert class_count(state, source="mmdet1", config=ours.config) == classes
    report = import_weights(state, source="mmdet1", detector=ours)
    wanted, found = theirs.state_dict(), ours.state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    left = {"mask_head.0.conv_res.conv.weight", "mask_head.0.conv_res.conv.bias"} if family == "htc" else set()
    assert {key for key in report.ignored if "num_batches" not in key} == left


@pytest.mark.parametrize("family", ["faster", "mask", "retinanet", "ssd300", "dpool"])
def test_it_detects_the_same(family: str) -> None:
    theirs, ours = small(family, 3), small(family, 3, seed=1)
    import_weights(written_in_1x(theirs), source="mmdet1", detector=ours)
    size = (300, 300) if family == "ssd300" else (96, 128)
    batch = Batch(images=torch.rand(1, 3, *size) * 9, infos=(ImageInfo(size=size, original_size=size),))
    (wanted,), (found,) = theirs.predict(batch), ours.predict(batch)
    assert torch.equal(wanted.boxes, found.boxes)
    assert torch.equal(wanted.scores, found.scores)


def test_the_towers_of_a_retinanet_before_april_2019() -> None:
    theirs, ours = small("retinanet", 3), small("retinanet", 3, seed=1)
    state = written_in_1x(theirs, plain_towers=True)
    assert "bbox_head.cls_convs.0.weight" in state
    import_weights(state, source="mmdet1", detector=ours)
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())


def test_names_of_other_times() -> None:
    """Offsets before 1.0, group norms of early 2019, and the SSD of 2.0 to 2.13, whose background is last."""
    assert list(current_names("mmdet1", ["backbone.layer2.0.conv2_offset.weight", "mask_head.convs.0.norm.bias"])) == [
        "backbone.layer2.0.conv2.conv_offset.weight",
        "roi_head.mask_head.convs.0.gn.bias",
    ]
    theirs, ours = small("ssd300", 3), small("ssd300", 3, seed=1)
    state = written_in_1x(theirs)
    for name in state:
        if ".cls_convs." in name:
            state[name] = state[name].unflatten(0, (-1, 4)).roll(-1, 1).flatten(0, 1)
    import_weights(state, source="mmdet", detector=ours, force=True)
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize("name", LEGACY)
def test_a_text_chooses_its_preset_and_agrees_with_it(name: str) -> None:
    facts = facts_of(SourceFile(Path("x.pth"), {}, {"mmdet_version": "1.0.0", "config": LEGACY[name]}))
    assert preset_of(facts, plugin_manager().recipes()) == name
    assert contradictions(facts, load_recipe(name)) == []


@pytest.mark.parametrize("row", sorted({row["recipe"] for row in ROWS}))
def test_every_row_has_a_preset_under_the_conventions_of_1x(row: str) -> None:
    model, _, rest = row.partition("/")
    recipe = load_recipe(f"{model}/mmdet1-{rest}")
    assert differences(recipe, "mmdet1") == []
    assert recipe.name == f"{model}/mmdet1-{rest}"


def test_every_preset_builds() -> None:
    built: list[Any] = []
    for name, entry in plugin_manager().recipes().items():
        config = load_recipe(name).detector if entry.weights_of == "mmdet1" else None
        if config is not None and config not in built:  # schedules share detectors
            built.append(config)
            with torch.device("meta"):
                config.build(num_classes=80)
    assert len(built) > 80


# The command


def file_of(folder: Path, family: str, classes: int = 3, **meta: object) -> Path:
    """A checkpoint of a small detector, as mmdet 1.x writes it."""
    path = folder / f"{family}.pth"
    content = {"state_dict": written_in_1x(small(family, classes)), "meta": meta, "optimizer": {"state": {}}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def importing(file: Path, *more: str, source: str = "mmdet") -> tuple[list[str], Path]:
    out = file.parent / "out.safetensors"
    return ["import-weights", str(file), "--from", source, "-o", str(out), *more], out


def refusal(capsys: pytest.CaptureFixture[str], file: Path, *more: str, source: str = "mmdet") -> str:
    arguments, out = importing(file, *more, source=source)
    assert run(arguments) == 1
    assert not out.exists()
    return capsys.readouterr().err


def recipe_of(family: str) -> list[str]:
    name, overrides = FAMILIES[family]
    return ["--recipe", name, *(part for override in overrides for part in ("--set", override))]


def settings_of(family: str) -> list[str]:
    return [part for override in FAMILIES[family][1] for part in ("--set", override)]


@pytest.mark.parametrize("source", ["mmdet", "mmdet1"])
@pytest.mark.parametrize(("family", "version"), [("mask", "0.6.0+3cf1"), ("retinanet", "1.0rc0"), ("ssd300", "1.2.0")])
def test_the_file_describes_its_model(
    family: str, version: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _ = FAMILIES[family]
    # The detector is smaller than the text says; `depth` is compared, so the text has that of the weights.
    text = LEGACY[name].replace("depth=50", "depth=18")
    file = file_of(tmp_path, family, 80, mmdet_version=version, config=text)
    arguments, out = importing(file, *recipe_of(family), source=source)
    assert run(arguments) == 0, capsys.readouterr().err
    assert (
        "a detector of mmdet 0.x and 1.x, 80 classes (person, bicycle, car, motorcycle, ...)" in capsys.readouterr().out
    )
    assert load_detector(out).classes.ids[-1] == 90  # COCO's own


def test_without_a_recipe_the_text_chooses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SSD can be small and still be what its text says."""
    name, _ = FAMILIES["ssd300"]
    text = LEGACY[name].replace("score_thr=0.02", "score_thr=0.3")
    file = file_of(tmp_path, "ssd300", 80, mmdet_version="1.1.0", config=text)
    arguments, out = importing(file, *settings_of("ssd300"))
    assert run(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"recipe {name}, as the file describes itself\n" in said
    assert "from its configuration: detector.dense_head.score_threshold=0.3\n" in said
    config = load_detector(out).config
    assert config is not None
    assert config.dense_head.score_threshold == 0.3  # type: ignore[union-attr]
    assert differences(config, "mmdet1") == []


def test_modern_conventions_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, _ = FAMILIES["ssd300"]
    file = file_of(tmp_path, "ssd300", 80, mmdet_version="1.1.0", config=LEGACY[name])
    arguments, out = importing(file, *settings_of("ssd300"), "--conventions", "modern")
    assert run(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "recipe ssd/vgg16-300-coco-120e, as the file describes itself" in said
    assert "settings not as the weights were trained with:\n" in said
    assert "detector.dense_head.anchors.rule: found 'centre', expected 'mmdet1'" in said
    assert "lose about 0.3 to 0.5 AP on COCO" in said
    config = load_detector(out).config
    assert config is not None
    assert differences(config, "mmdet") == []


@pytest.mark.parametrize("family", ["rpn", "retinanet", "ga-rpn", "ga-retinanet", "ssd300"])
def test_a_file_that_may_be_of_both_generations(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, family)
    assert refusal(capsys, file, *recipe_of(family)) == (
        f"error: {file}: may be of mmdet 0.x or 1.x, or of 2.x or 3.x: this model has the same names in all of them, "
        "but its boxes differ, and the file records no version; give --from mmdet1 or --from mmdet2\n"
    )
    arguments, _ = importing(file, *recipe_of(family), source="mmdet1")
    assert run(arguments) == 0


def test_the_other_generation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, "faster", mmdet_version="0.5.7")
    assert refusal(capsys, file, *recipe_of("faster"), source="mmdet2") == (
        f"error: {file}: version 0.5.7 is of mmdet 0.x and 1.x, not of mmdet 2.x and 3.x; give --from mmdet1\n"
    )
    bare = file_of(tmp_path, "faster")
    said = refusal(capsys, bare, *recipe_of("faster"), source="mmdet2")
    assert "its names are of mmdet 0.x and 1.x, not of mmdet 2.x and 3.x; give --from mmdet1\n" in said


def test_versions_are_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text, 2.10.0 would come before 2.5.0."""
    file = file_of(tmp_path, "retinanet", mmdet_version="2.10.0")
    said = refusal(capsys, file, *recipe_of("retinanet"))
    assert "weights of mmdet 2.x and 3.x do not mean the same under these settings" in said


def test_a_recipe_with_other_conventions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, "faster", mmdet_version="1.0.0")
    modern = ["--recipe", "faster-rcnn/r50-fpn-1x", *settings_of("faster")]
    said = refusal(capsys, file, *modern)
    assert said.startswith(
        "error: weights of mmdet 0.x and 1.x do not mean the same under these settings; use a recipe with the "
        "conventions of mmdet1 (MODEL/mmdet1-...), or force the import: "
    )
    assert "detector.dense_head.anchors.rule: found 'corner', expected 'mmdet1'" in said
    assert "data.test_transforms[0].boxes: found 'edges', expected 'pixels'" in said
    arguments, out = importing(file, *modern, "--force")
    assert run(arguments) == 0
    assert out.exists()


def test_a_recipe_that_the_text_contradicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Colours, style and anchors, whose weights fit and whose detections would be wrong."""
    text = LEGACY["retinanet/mmdet1-r50-caffe-fpn-1x"].replace("depth=50", "depth=18")
    file = file_of(tmp_path, "retinanet", 80, mmdet_version="1.0.0", config=text)
    said = refusal(capsys, file, "--recipe", "retinanet/mmdet1-r50-fpn-1x", *settings_of("retinanet"))
    assert "error: the file contradicts the recipe retinanet/mmdet1-r50-fpn-1x; use that of its model" in said
    assert "detector.preprocess.order: the recipe has rgb, the file bgr" in said
    assert "detector.preprocess.mean: the recipe has [123.675, 116.28, 103.53], the file [102.9801, 115.9465" in said
    assert "detector.backbone.style: the recipe has pytorch, the file caffe" in said


def test_files_of_another_model_or_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, "faster", mmdet_version="1.0.0")
    assert "the mmdet1 weights do not fit this detector" in refusal(capsys, file, *recipe_of("mask"))
    assert refusal(capsys, file, *recipe_of("faster"), source="torchvision") == (
        f"error: {file}: its names are not those of torchvision, but of another project: give --from mmdet\n"
    )
    theirs = tmp_path / "theirs.pth"
    torch.save({"backbone.body.conv1.weight": torch.ones(1), "roi_heads.x": torch.ones(1)}, theirs)
    assert refusal(capsys, theirs, *recipe_of("faster")) == (
        f"error: {theirs}: its names are not those of mmdet, but of another project: give --from torchvision\n"
    )


def test_mixed_and_truncated_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed = written_in_1x(small("faster", 3))
    mixed["roi_head.bbox_head.fc_cls.weight"] = mixed["bbox_head.fc_cls.weight"]
    path = tmp_path / "mixed.pth"
    torch.save({"state_dict": mixed, "meta": {"mmdet_version": "1.0.0"}}, path)
    assert refusal(capsys, path, *recipe_of("faster")) == (
        f"error: {path}: the file contradicts itself: its version or configuration is of mmdet 0.x and 1.x, its names "
        "are of mmdet 2.x and 3.x; save the weights again with what belongs to them\n"
    )
    file = file_of(tmp_path, "faster", mmdet_version="1.0.0")
    file.write_bytes(file.read_bytes()[:-5000])
    assert "faster.pth: not a readable checkpoint (" in refusal(capsys, file, *recipe_of("faster"))
    fewer = written_in_1x(small("faster", 3))
    del fewer["bbox_head.fc_reg.bias"]
    torch.save({"state_dict": fewer, "meta": {"mmdet_version": "1.0.0"}}, path)
    said = refusal(capsys, path, *recipe_of("faster"))
    assert "not in the source: roi_head.bbox_head.fc_reg.bias (for roi_head.box_head.deltas.bias)" in said


def test_without_a_recipe_and_without_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, "faster", mmdet_version="1.0.0")
    assert "give --recipe" in refusal(capsys, file)
    assert "a detector of torchvision does not describe its model: give --recipe" in refusal(
        capsys, _torchvision_file(tmp_path), source="torchvision"
    )


def _torchvision_file(folder: Path) -> Path:
    path = folder / "tv.pth"
    torch.save({"backbone.body.conv1.weight": torch.ones(1)}, path)
    return path


def test_python_refuses_the_same() -> None:
    detector = load_recipe("faster-rcnn/r50-fpn-1x", FAMILIES["faster"][1]).detector.build(num_classes=3)
    state = written_in_1x(small("faster", 3))
    for source in ("mmdet", "mmdet1"):
        with pytest.raises(
            WeightsError, match="weights of mmdet 0.x and 1.x do not mean the same under these settings"
        ):
            import_weights(state, source=source, detector=detector)
    import_weights(state, source="mmdet", detector=detector, force=True)


def test_python_knows_the_plain_towers_of_an_old_retinanet() -> None:
    """Only 0.5 and 0.6 had them, so boxes are theirs whatever the source is called."""
    state = written_in_1x(small("retinanet", 3), plain_towers=True)
    detector = load_recipe("retinanet/r50-caffe-fpn-1x", FAMILIES["retinanet"][1]).detector.build(num_classes=3)
    with pytest.raises(WeightsError, match=r"weights of mmdet 0.x and 1.x do not mean the same under these settings"):
        import_weights(state, source="mmdet", detector=detector)
    import_weights(state, source="mmdet", detector=small("retinanet", 3, seed=1))


def test_a_forced_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the version a file may be forced, where its names can be read; not against its names."""
    file = file_of(tmp_path, "retinanet", mmdet_version="2.3.0")
    said = refusal(capsys, file, *recipe_of("retinanet"), source="mmdet1")
    assert "version 2.3.0 is of mmdet 2.x and 3.x, not of mmdet 0.x and 1.x; give --from mmdet2" in said
    arguments, out = importing(file, *recipe_of("retinanet"), "--force", source="mmdet1")
    assert run(arguments) == 0
    out.unlink()
    text = MODERN["retinanet/r50-fpn-2x"]
    file = file_of(tmp_path, "retinanet", config=text)
    said = refusal(capsys, file, *recipe_of("retinanet"), source="mmdet1")
    assert "its configuration is of mmdet 2.x and 3.x" in said
    file = file_of(tmp_path, "faster", mmdet_version="1.0.0")
    assert "give --from mmdet1" in refusal(capsys, file, *recipe_of("faster"), "--force", source="mmdet2")


def test_modern_conventions_are_only_for_1x(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modern = ["--conventions", "modern"]
    file = file_of(tmp_path, "retinanet", mmdet_version="2.3.0")
    said = refusal(capsys, file, *recipe_of("retinanet"), *modern)
    assert f"{file}: of mmdet 2.x and 3.x, whose conventions are modern; leave out --conventions" in said
    said = refusal(capsys, file, *recipe_of("retinanet"), *modern, source="torchvision")
    assert "--conventions modern is for weights of mmdet 0.x and 1.x; leave it out for --from torchvision" in said


def test_a_file_of_3x_still_finds_its_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a version of its own nor names tell a RetinaNet's generation, but its configuration does."""
    name = "retinanet/r50-fpn-2x"
    detector = load_recipe(name, FAMILIES["retinanet"][1]).detector.build(num_classes=80)
    parts = detector_names("mmdet", detector.config, ["bbox_head."])  # type: ignore[arg-type]
    state = {locate("mmdet", parts, key).name: value for key, value in detector.state_dict().items()}
    file = tmp_path / "modern.pth"
    text = MODERN[name].replace("depth=50", "depth=18")
    torch.save({"state_dict": state, "meta": {"mmdet_version": "3.3.0", "cfg": text}}, file)
    arguments, out = importing(file, "--recipe", name, *settings_of("retinanet"))
    assert run(arguments) == 0, capsys.readouterr().err
    assert "a detector of mmdet 2.x and 3.x" in capsys.readouterr().out
    assert differences(load_detector(out).config, "mmdet") == []


def test_train_takes_the_file_and_the_recipe_that_it_describes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train --init FILE --from mmdet` without a recipe: an old checkpoint trains on in one command."""
    name, _ = FAMILIES["ssd300"]
    file = file_of(tmp_path, "ssd300", 80, mmdet_version="1.1.0", config=LEGACY[name])
    data = [f"data.{split}={{type: sample, split: {split}}}" for split in ("train", "val")]
    more = [part for override in (*data, "data.workers=0", "data.images_per_rank=2") for part in ("--set", override)]
    run_folder = tmp_path / "run"
    arguments = ["train", "--init", str(file), "--from", "mmdet", *settings_of("ssd300"), *more]
    assert run([*arguments, "--work-dir", str(run_folder), "--max-steps", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "as the file describes itself" in out
    assert f"tensors from {run_folder}/init.safetensors" in out
    assert "stopped after step 1" in out
    assert load_detector(run_folder).classes.names == ("nucleus",)
