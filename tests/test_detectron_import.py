"""Checkpoints of Detectron and maskrcnn-benchmark: a round trip of every family, recipes that are found, refusals."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

from detectron_files import benchmark_state, detectron2_state, detectron_blobs

from det_core import load_detector, load_recipe
from det_core.cli.main import run
from det_core.conventions import differences
from det_core.errors import WeightsError
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.weights.detectron_facts import candidates, same_at_test
from det_core.weights.fill_detector import import_weights
from det_core.weights.import_plan import plan_import
from det_core.weights.read_files import SourceFile, read_source
from det_core.weights.yacs_facts import read_yacs

OLDER = ("detectron", "maskrcnn-benchmark")
# Small parts that keep the layers by whose numbers Detectron names them.
NARROW = ("detector.backbone.pretrained=null", "detector.neck.channels=16")
RPN = ("detector.dense_head.channels=16",)
BOX = ("detector.roi_head.box_head.fc_channels=16",)
MASK = ("detector.roi_head.mask_head.channels=8",)
GN = (
    *("detector.neck.norm.groups=8", "detector.roi_head.box_head.norm.groups=8"),
    *("detector.roi_head.mask_head.norm.groups=8", "detector.roi_head.box_head.conv_channels=16"),
)
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rpn": ("rpn/{}-r50-fpn-1x", (*NARROW, *RPN)),
    "faster": ("faster-rcnn/{}-r50-fpn-1x", (*NARROW, *RPN, *BOX)),
    "agnostic": ("faster-rcnn/{}-r50-fpn-1x", (*NARROW, *RPN, *BOX, "detector.roi_head.box_head.class_agnostic=true")),
    "mask": ("mask-rcnn/{}-r50-fpn-1x", (*NARROW, *RPN, *BOX, *MASK)),
    "c4": ("mask-rcnn/{}-r50-c4-1x", (NARROW[0], "detector.roi_head.trunk.pretrained=null", *RPN, *MASK)),
    "gn": ("mask-rcnn/{}-r50-fpn-gn-1x", (*NARROW, *RPN, *BOX, *MASK, *GN)),
    "retinanet": ("retinanet/{}-r50-fpn-1x", (*NARROW, *RPN)),
}


def written(source: str, detector: Detector) -> dict[str, Any]:
    """The weights as the project saves them."""
    return {"detectron": detectron_blobs, "maskrcnn-benchmark": benchmark_state}[source](detector)


def a_detector(source: str, family: str, num_classes: int = 3) -> Detector:
    """Small, with weights and statistics that are no defaults."""
    recipe, settings = FAMILIES[family]
    name = recipe.format(source)
    if family == "gn" and source == "detectron":
        name = name.replace("1x", "2x")
    torch.manual_seed(0)
    detector = load_recipe(name, settings).detector.build(num_classes=num_classes)
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                if source == "maskrcnn-benchmark":
                    module.running_mean.uniform_(-0.5, 0.5)
                    module.running_var.uniform_(0.5, 1.5)
                else:  # an affine channel
                    module.running_var.fill_(1 - module.eps)
    return detector


@pytest.mark.parametrize("source", OLDER)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back(source: str, family: str) -> None:
    theirs = a_detector(source, family)
    assert theirs.config is not None
    ours = theirs.config.build(num_classes=3)
    report = import_weights(written(source, theirs), source=source, detector=ours)
    expected = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in expected.items())
    assert set(report.filled) | set(report.derived) == set(expected)


@pytest.mark.parametrize("source", OLDER)
def test_presets_have_the_conventions_of_their_source_and_no_other(source: str) -> None:
    for name, entry in plugin_manager().recipes().items():
        if entry.weights_of == source:
            recipe = load_recipe(name)
            assert differences(recipe, source) == [], name
            assert differences(recipe, "detectron2"), name


# Files


def saved(source: str, detector: Detector, folder: Path, cfg: str = "") -> Path:
    """As the project writes it: a pickle of Python 2 with blobs, or a file of torch."""
    if source == "detectron":
        file = folder / "model_final.pkl"
        blobs = {name: value.numpy() for name, value in written(source, detector).items()}
        extra = {"conv1_w_momentum": blobs["conv1_w"] * 0, "lr": blobs["conv1_w"][:1, 0, 0, 0]}
        file.write_bytes(pickle.dumps({"blobs": blobs | extra, "cfg": cfg or "MODEL: {TYPE: generalized_rcnn}"}, 2))
        return file
    file = folder / "model_final.pth"
    torch.save({"model": written(source, detector), "iteration": 90000}, file)
    if cfg:
        (folder / "config.yml").write_text(cfg)
    return file


def imported(source: str, file: Path, *more: str) -> tuple[int, Path]:
    out = file.with_suffix(".safetensors")
    return run(["import-weights", str(file), "--from", source, "-o", str(out), *more]), out


@pytest.mark.parametrize("source", OLDER)
def test_a_file_becomes_a_checkpoint(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = a_detector(source, "faster", num_classes=80)
    file, (recipe, settings) = saved(source, theirs, tmp_path), FAMILIES["faster"]
    overrides = [part for s in settings for part in ("--set", s)]
    status, out = imported(source, file, "--recipe", recipe.format(source), *overrides)
    said = capsys.readouterr()
    assert status == 0, said.err
    spoken = {"detectron": "Detectron"}.get(source, source)
    assert f"a detector of {spoken}, 80 classes (person, bicycle, car, motorcycle, ...)" in said.out
    assert "background moved from the first place to the last (2 weights)" in said.out
    ours = load_detector(out)
    assert torch.equal(ours.state_dict()["dense_head.conv.weight"], theirs.state_dict()["dense_head.conv.weight"])
    status, _ = imported(source, file, "--recipe", "faster-rcnn/detectron2-r50-fpn-1x", *overrides)
    assert status == 1
    assert "detector.dense_head.anchors.rule: found 'corner', expected 'detectron'" in capsys.readouterr().err
    status, _ = imported("detectron2", file)
    assert status == 1
    assert f"its names are not those of detectron2, but of another project: give --from {source}" in (
        capsys.readouterr().err
    )


# Recipes


@pytest.fixture(scope="module", params=["detectron2", *OLDER])
def full_state(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Of a Mask R-CNN with ResNet-50 and 80 classes; only shapes are read, so all values are 0."""
    source = request.param
    detector = load_recipe(f"mask-rcnn/{source}-r50-fpn-1x").detector.build(num_classes=80)
    state = detectron2_state(detector) if source == "detectron2" else written(source, detector)
    return source, state


def planned(source: str, state: dict[str, Any], cfg: str = "", folder: Path = Path()) -> Any:
    return plan_import(SourceFile(folder / "model_final.pth", state, yacs_text=cfg), source)  # type: ignore[arg-type]


def test_the_recipe_is_found_or_the_candidates_are_named(full_state: tuple[str, dict[str, Any]]) -> None:
    source, state = full_state
    found = candidates(source, state, plugin_manager().recipes())
    assert all(name.startswith(f"mask-rcnn/{source}-r50-fpn") for name in found)
    if source != "detectron2":
        plan = planned(source, state)
        assert (plan.recipe.name, plan.chosen) == (f"mask-rcnn/{source}-r50-fpn-1x", True)
        return
    # Pooling cannot be seen in weights; losses do not matter.
    names = ["mask-rcnn/detectron2-r50-fpn-1x", "mask-rcnn/detectron2-r50-fpn-noaug-1x"]
    assert [group[0] for group in same_at_test(found)] == names
    assert "mask-rcnn/detectron2-r50-fpn-giou-1x" in same_at_test(found)[0]
    with pytest.raises(WeightsError, match=f"cannot be told from its weights: it may be of {' or '.join(names)}; give"):
        planned(source, state)


def test_a_configuration_beside_the_file_decides(tmp_path: Path) -> None:
    detector = load_recipe("mask-rcnn/detectron2-r50-fpn-1x").detector.build(num_classes=80)
    state = detectron2_state(detector)
    (tmp_path / "config.yaml").write_text(
        "MODEL:\n  PIXEL_MEAN: [103.53, 116.28, 123.675]\n  RESNETS: {STRIDE_IN_1X1: true}\n"
        "  ROI_BOX_HEAD: {POOLER_TYPE: ROIAlign, POOLER_SAMPLING_RATIO: 2}\n"
        "  ROI_HEADS: {SCORE_THRESH_TEST: 0.3}\n"
        "INPUT: {MIN_SIZE_TEST: 640, MAX_SIZE_TEST: 1000, FORMAT: BGR}\nTEST: {DETECTIONS_PER_IMAGE: 20}\n"
    )
    plan = planned("detectron2", state, folder=tmp_path)
    assert plan.recipe.name == "mask-rcnn/detectron2-r50-fpn-noaug-1x"
    assert plan.facts.notes == (f"read {tmp_path / 'config.yaml'}",)
    assert plan.settings == (
        "detector.roi_head.score_threshold=0.3",
        "detector.roi_head.max_detections=20",
        "data.test_transforms[0].scales=[[1000, 640]]",
    )
    (tmp_path / "config.yaml").write_text("MODEL: {RESNETS: {STRIDE_IN_1X1: false}}")
    with pytest.raises(WeightsError, match="its configuration contradicts mask-rcnn/detectron2-r50-fpn-1x and"):
        planned("detectron2", state, folder=tmp_path)
    file = SourceFile(tmp_path / "model_final.pth", state)
    with pytest.raises(WeightsError, match="backbone.style: the recipe has caffe, the file's configuration pytorch"):
        plan_import(file, "detectron2", "mask-rcnn/detectron2-r50-fpn-1x")
    assert plan_import(file, "detectron2", "mask-rcnn/detectron2-r50-fpn-1x", force=True).recipe.name.endswith("1x")


def test_what_detectron_writes_of_itself() -> None:
    """Python's objects in its YAML are read as what is written of them, and never made."""
    cfg = (
        "!!python/object/new:detectron.utils.collections.AttrDict\ndictitems:\n  MODEL: !!python/object/new:a.B\n"
        "    dictitems: {TYPE: generalized_rcnn}\n  TEST: {NMS: 0.5, SCALE: 800, MAX_SIZE: 1333, SCORE_THRESH: 0.1}\n"
        "  PIXEL_MEANS: !!python/tuple [[[102.9801, 115.9465, 122.7717]]]\nstate: {}\n"
    )
    found = read_yacs("detectron", Path("x.pkl"), cfg)
    assert found is not None
    detector = load_recipe("faster-rcnn/detectron-r50-fpn-1x").detector.build(num_classes=80)
    plan = planned("detectron", written("detectron", detector), cfg)
    assert plan.recipe.name == "faster-rcnn/detectron-r50-fpn-1x"
    assert plan.settings == ("detector.roi_head.score_threshold=0.1",)


def test_other_ratios_of_a_retinanet_are_refused() -> None:
    detector = load_recipe("retinanet/detectron-r50-fpn-1x").detector.build(num_classes=80)
    cfg = "MODEL: {TYPE: retinanet}\nRETINANET: {ASPECT_RATIOS: [0.5, 1.0, 2.0]}"
    with pytest.raises(WeightsError, match="contradicts retinanet/detectron-r50-fpn-1x"):
        planned("detectron", written("detectron", detector), cfg)
    file = SourceFile(Path("x.pkl"), written("detectron", detector), yacs_text=cfg)
    with pytest.raises(WeightsError, match=r"in the order \[1.0, 2.0, 0.5\], the file's configuration has \[0.5, 1.0"):
        plan_import(file, "detectron", "retinanet/detectron-r50-fpn-1x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: 3", "not a configuration of detectron, which has a mapping MODEL"),
        ("MODEL: [", "x.pkl \\(cfg\\):1:9: not valid YAML"),
    ],
)
def test_configurations_that_are_none(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        read_yacs("detectron", Path("x.pkl"), text)


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(WeightsError, match=r"config\.yaml: cannot be read: 'utf-8'"):
        read_yacs("detectron2", tmp_path / "model_final.pth", "")


def test_a_model_without_a_recipe() -> None:
    detector = load_recipe("rpn/detectron-r50-fpn-1x", ["detector.neck.channels=16"]).detector.build(num_classes=1)
    with pytest.raises(WeightsError, match="cannot be told from its weights: no recipe has all of its weights; give"):
        planned("detectron", written("detectron", detector))


def test_the_last_stage_is_saved_twice_and_must_be_the_same() -> None:
    theirs = a_detector("maskrcnn-benchmark", "c4")
    state = benchmark_state(theirs)
    key = "module.roi_heads.mask.feature_extractor.head.layer4.0.conv1.weight"
    state[key] = state[key] + 1
    with pytest.raises(WeightsError, match=f"not equal to module.roi_heads.box.*, though the model shares them: {key}"):
        import_weights(state, source="maskrcnn-benchmark", detector=theirs)


def test_files_of_both_are_read() -> None:
    formats = Path(__file__).parent / "formats"
    assert "conv1_w" in read_source(formats / "detectron_py2.pkl").state
    assert "MODEL" in read_source(formats / "detectron_py2.pkl").yacs_text
    assert any(name.startswith("backbone.body.") for name in read_source(formats / "maskrcnn_benchmark.pth").state)
