"""Other people's checkpoint files: what they carry beside weights, what they claim to be and are not, the command."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from det_core.cli.main import run
from det_core.engine.checkpoint import load_detector, weights_file
from det_core.errors import DetError, WeightsError
from det_core.load import load_recipe
from det_core.weights.fill_detector import import_backbone, import_weights
from det_core.weights.initial_weights import load_initial
from det_core.weights.older_names import check_source
from det_core.weights.read_files import STAND_INS, Inert, read_source, read_state_dict
from det_core.weights.translate_names import detector_names, locate

RECIPE = "faster-rcnn/r18-fpn-demo"
CLASSES = 5


def mmdet_state(recipe: str = RECIPE, classes: int = CLASSES) -> dict[str, Tensor]:
    """A detector's weights under mmdet's names, as a checkpoint of it has them."""
    torch.manual_seed(0)
    config = load_recipe(recipe).detector
    names = detector_names("mmdet", config, [])
    state = config.build(num_classes=classes).state_dict()
    return {locate("mmdet", names, key).name: value for key, value in state.items()}


class HistoryBuffer:
    """What mmengine keeps its logs in: arrays, and its own methods by name."""

    def __init__(self) -> None:
        self._log_history = np.arange(3.0)
        self._count_history = np.ones(3, dtype=np.int64)
        self._last = np.float64(0.5)
        self._statistics_methods = collections.OrderedDict(mean=HistoryBuffer.mean)

    def mean(self) -> float:
        raise AssertionError("nothing of a file is run")

    def __setstate__(self, state: object) -> None:
        raise AssertionError("nothing of a file is run")


@pytest.fixture
def mmengine(monkeypatch) -> type:
    """A module of the name that mmengine has, for the time of writing a file."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return HistoryBuffer


def checkpoint_3x(state: dict[str, Tensor]) -> dict[str, object]:
    return {
        "meta": {"mmdet_version": "3.3.0", "dataset_meta": {"CLASSES": tuple("abcde"), "palette": [(1, 2)]}},
        "state_dict": state,
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}, "best": np.float64(0.3)},
        "args": argparse.Namespace(lr=0.02, out=Path("x")),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_log_objects(tmp_path, mmengine, zipped, monkeypatch):
    state = mmdet_state()
    torch.save(checkpoint_3x(state), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pth", weights_only=True)
    file = read_source(tmp_path / "x.pth")
    assert file.state.keys() == state.keys()
    assert file.class_names == tuple("abcde")
    assert file.version == "3.3.0"
    assert read_state_dict(tmp_path / "x.pth").keys() == state.keys()
    assert "mmengine" not in sys.modules


def test_a_stand_in_is_nothing():
    thing = Inert(1, a=2)
    thing.__setstate__({"a": 1})
    assert vars(thing) == {}
    assert not any(name.startswith(("os.", "posix.", "subprocess.", "torch.")) for name in STAND_INS)
    assert not any(name.endswith((".eval", ".exec", ".__import__", ".system")) for name in STAND_INS)


def test_getattr_in_a_file_gets_nothing(tmp_path):
    """A pickle may ask for `getattr(x, name)(...)`: it gets a stand-in, which cannot be called as a function."""

    class Sneaky:
        def __reduce__(self) -> tuple[object, tuple[object, str]]:
            return getattr, (np.ndarray, "tofile")

    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Sneaky()}, tmp_path / "x.pth")
    assert list(read_source(tmp_path / "x.pth").state) == ["a"]


@pytest.mark.parametrize("meta", [{"CLASSES": ("a", "b")}, {"dataset_meta": {"classes": ["a", "b"]}}])
def test_where_class_names_are(tmp_path, meta):
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": meta}, tmp_path / "x.pth")
    assert read_source(tmp_path / "x.pth").class_names == ("a", "b")


@pytest.mark.parametrize("meta", [{}, {"CLASSES": None}, {"CLASSES": (1, 2)}, {"dataset_meta": 3}, "text"])
def test_class_names_that_are_not_there(tmp_path, meta):
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": meta}, tmp_path / "x.pth")
    assert read_source(tmp_path / "x.pth").class_names is None


# the command


def importing(file: Path, out: Path, source: str = "mmdet", recipe: str = RECIPE) -> list[str]:
    return ["import-weights", str(file), "--from", source, "--recipe", recipe, "-o", str(out)]


def test_a_detector_of_mmdet(tmp_path, mmengine, capsys):
    state = mmdet_state()
    state["backbone.bn1.num_batches_tracked"] = torch.tensor(3)
    torch.save(checkpoint_3x(state), tmp_path / "x.pth")
    out = tmp_path / "folder" / "x.safetensors"
    assert run(importing(tmp_path / "x.pth", out)) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'x.pth'}: a detector of mmdet 2.x and 3.x, 5 classes (a, b, c, d, ...)\n" in said
    assert "weights loaded, none missing\n" in said
    assert "ignored, not needed: 1 counter of batch norm\n" in said
    assert f"wrote {out} (recipe {RECIPE}): det-core predict --checkpoint {out} IMAGES\n" in said
    detector = load_detector(out)
    assert detector.classes.names == tuple("abcde")
    expected = state["roi_head.bbox_head.fc_cls.weight"]
    assert torch.equal(detector.state_dict()["roi_head.box_head.scores.weight"], expected)
    assert list(out.parent.iterdir()) == [out]


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(arguments) == 1
    return capsys.readouterr().err


def test_the_ending_of_the_output(tmp_path, capsys):
    said = failing(importing(tmp_path / "x.pth", tmp_path / "y.pth"), capsys)
    assert said == (
        f"error: -o {tmp_path / 'y.pth'}: weights are written as .safetensors; use a name with this suffix\n"
    )


def test_files_that_are_not_what_they_claim(tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert failing(importing(tmp_path / "no.pth", out), capsys) == f"error: {tmp_path / 'no.pth'}: no such file\n"
    torch.save({"state_dict": mmdet_state()}, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    assert "half.pth: not a readable checkpoint (" in failing(importing(tmp_path / "half.pth", out), capsys)
    said = failing(importing(tmp_path / "x.pth", out, recipe="faster-rcnn/r50-fpn-1x"), capsys)
    assert "the mmdet weights do not fit this detector: " in said
    assert "left over in the source: backbone.gn1.weight" in said  # its norms are group norms
    said = failing(importing(tmp_path / "x.pth", out, source="detectron2"), capsys)
    assert said == (
        f"error: {tmp_path / 'x.pth'}: its names are not those of detectron2, but of another project: give --from "
        "mmdet\n"
    )
    assert not out.exists()


def test_weights_of_several_gpus():
    state = {f"module.{key}": value for key, value in mmdet_state().items()}
    detector = load_recipe(RECIPE).detector.build(num_classes=CLASSES)
    report = import_weights(state, source="mmdet", detector=detector)
    assert set(report.filled.values()) == set(state)


# backbones

CAFFE = "faster-rcnn/r50-caffe-fpn-1x"
C4 = "faster-rcnn/r50-caffe-c4-1x"


def msra() -> dict[str, np.ndarray]:
    """A ResNet-50 as detectron2 has it: its own names, norms folded into factor and shift."""
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {"stem.fc.weight": np.zeros((1000, 2048), np.float32)}

    def conv(name: str, shape: tuple[int, ...]) -> None:
        arrays[f"{name}.weight"] = generator.standard_normal(shape).astype(np.float32)
        for part in ("weight", "bias"):
            arrays[f"{name}.norm.{part}"] = generator.standard_normal(shape[0]).astype(np.float32)

    conv("stem.conv1", (64, 3, 7, 7))
    channels = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 2):
        for block in range(blocks):
            name = f"res{stage}.{block}"
            conv(f"{name}.conv1", (width, channels, 1, 1))
            conv(f"{name}.conv2", (width, width, 3, 3))
            conv(f"{name}.conv3", (4 * width, width, 1, 1))
            if block == 0:
                conv(f"{name}.shortcut", (4 * width, channels, 1, 1))
            channels = 4 * width
    return arrays


@pytest.fixture(scope="module")
def msra_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("msra") / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": msra(), "__author__": "MSRA", "matching_heuristics": True}, protocol=2))
    return path


@pytest.mark.parametrize("recipe", [CAFFE, C4])
def test_a_backbone_of_detectron2(msra_file, tmp_path, capsys, recipe):
    out = tmp_path / "r50.safetensors"
    assert run(importing(msra_file, out, "detectron2", recipe)) == 0
    said = capsys.readouterr().out
    assert f"{msra_file}: an ImageNet model of detectron2\n" in said
    assert "159 weights loaded, none missing\n" in said
    assert "statistics of folded norms set to the identity (106 weights)\n" in said
    assert "ignored, the model has no such part: stem.fc.weight\n" in said
    assert f"train from it with --set detector.backbone.pretrained={out} (and, if the RoI head has a trunk" in said
    saved, there = load_file(out), msra()
    assert np.array_equal(saved["layer1.0.conv2.weight"].numpy(), there["res2.0.conv2.weight"])
    assert np.array_equal(saved["layer4.0.downsample.1.bias"].numpy(), there["res5.0.shortcut.norm.bias"])
    sets = [f"detector.backbone.pretrained={out}"]
    sets += [f"detector.roi_head.trunk.pretrained={out}"] if recipe == C4 else []
    detector = load_recipe(recipe, sets).detector.build(num_classes=3)
    detector.load_initial_weights()
    stem = detector.backbone.bn1.eval()  # type: ignore[union-attr, operator]
    x = torch.randn(1, 64, 2, 2)
    weight, bias = (torch.from_numpy(there[f"stem.conv1.norm.{k}"]).view(1, -1, 1, 1) for k in ("weight", "bias"))
    torch.testing.assert_close(stem(x), x * weight + bias)
    with safe_open(out, framework="pt") as opened:
        assert "recipe" not in opened.metadata()


def test_an_imagenet_model_of_torchvision_leaves_out_later_stages(capsys):
    import torchvision

    state = torchvision.models.resnet50().state_dict()
    detector = load_recipe("rpn/r50-c4-1x").detector.build(num_classes=1)
    values, report = import_backbone(state, source="torchvision", detector=detector)
    assert not any(key.startswith(("layer4.", "fc.")) for key in values)
    left = [key for key in report.ignored if not key.endswith("num_batches_tracked")]
    assert {key.partition(".")[0] for key in left} == {"layer4", "fc"}
    assert set(report.filled.values()) | set(report.ignored) == set(state)


def test_an_imagenet_model_of_another_depth_is_refused():
    import torchvision

    detector = load_recipe("rpn/r50-c4-1x").detector.build(num_classes=1)
    with pytest.raises(
        WeightsError, match=r"do not fit this backbone: .*\n  left over in the source: layer3\.6\.conv1"
    ):
        import_backbone(torchvision.models.resnet101().state_dict(), source="torchvision", detector=detector)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_of_more_than_arrays_runs_nothing(tmp_path, protocol):
    mark = tmp_path / "mark"
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {"a": Evil(mark)}}, protocol=protocol))
    with pytest.raises(WeightsError) as caught:
        read_source(tmp_path / "x.pkl")
    assert str(caught.value) == (
        f"{tmp_path / 'x.pkl'}: not a readable pickle of arrays (it contains a {os.name}.mkdir, but only arrays and "
        "plain values are loaded)"
    )
    assert not mark.exists()


def test_pickles_that_are_no_pickles_of_arrays(tmp_path, msra_file):
    with pytest.raises(WeightsError, match=r"nowhere\.pkl: no such file$"):
        read_source(tmp_path / "nowhere.pkl")
    path = tmp_path / "x.pkl"
    for content in (b"", b"<html>404</html>", msra_file.read_bytes()[:100_000]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"x\.pkl: not a readable pickle of arrays \(damaged\)$"):
            read_source(path)
    path.write_bytes(pickle.dumps({"model": {"a": "text"}}))
    with pytest.raises(WeightsError, match=r"x\.pkl: contains no state dict"):
        read_source(path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(WeightsError, match=r"x\.pkl: contains no state dict"):
        read_source(path)


@pytest.mark.parametrize("encoding", ["rot13", "utf-8"])
def test_text_is_encoded_for_bytes_alone(tmp_path, encoding):
    class Coded:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            import _codecs

            return _codecs.encode, ("abc", encoding)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {"a": Coded()}}, protocol=2))
    with pytest.raises(WeightsError, match=f"it contains a _codecs.encode to {encoding}, but only arrays"):
        read_source(tmp_path / "x.pkl")


# initial weights by name


def test_names_of_other_projects_say_where_the_file_is():
    module = load_recipe(CAFFE).detector.backbone.build()
    with pytest.raises(WeightsError) as caught:
        load_initial(module, "detectron2:R-50")
    assert str(caught.value) == (
        "initial weights 'detectron2:R-50' are a file of another project, which is not downloaded automatically: "
        "download https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl, convert it with det-core "
        "import-weights R-50.pkl --from detectron2 --recipe RECIPE -o backbone.safetensors, and use it with "
        "--set detector.backbone.pretrained=backbone.safetensors (and, if the RoI head has a trunk, as in the C4 "
        "models, --set detector.roi_head.trunk.pretrained=backbone.safetensors); use null as the path to train from "
        "random weights"
    )
    with pytest.raises(WeightsError, match=r"resnext101_32x4d-a5af3160\.pth, convert it with .* --from mmdet "):
        load_initial(module, "mmdet:resnext101_32x4d")
    with pytest.raises(WeightsError) as caught:
        load_initial(module, "detectron2:R-5O")
    assert str(caught.value) == (
        "unknown initial weights 'detectron2:R-5O'; allowed: detectron2:R-50, detectron2:R-101, "
        "mmdet:resnext101_32x4d, mmdet:detectron/resnet50_gn, mmdet:detectron/resnet101_gn, mmdet:contrib/resnet50_gn, "
        "mmdet:jhu/resnet50_gn_ws, mmdet:jhu/resnet101_gn_ws, mmdet:jhu/resnext50_32x4d_gn_ws, "
        "mmdet:jhu/resnext101_32x4d_gn_ws, mmcls:resnet50_rsb_a1, torchvision:NAME, or a file's path"
    )
    with pytest.raises(WeightsError) as caught:
        load_initial(module, "mmcls:resnet50_rsb_a1")
    assert str(caught.value) == (
        "initial weights 'mmcls:resnet50_rsb_a1' are a file of another project, which is not downloaded automatically: "
        "download https://download.openmmlab.com/mmclassification/v0/resnet/"
        "resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth and use it with --set detector.backbone.pretrained="
        "resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth (and, if the RoI head has a trunk, as in the C4 "
        "models, --set detector.roi_head.trunk.pretrained=resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth); use "
        "null as the path to train from random weights"
    )


def test_a_classifier_of_mmcls_is_read_as_it_is(tmp_path):
    import torchvision

    state = torchvision.models.resnet50().state_dict()
    theirs = {("head." if name.startswith("fc.") else "backbone.") + name: value for name, value in state.items()}
    torch.save({"meta": {"mmcls_version": "0.18.0"}, "state_dict": theirs}, tmp_path / "rsb.pth")
    detector = load_recipe(
        "mask-rcnn/r50-fpn-rsb-1x", [f"detector.backbone.pretrained={tmp_path / 'rsb.pth'}"]
    ).detector
    backbone = detector.backbone.build()
    backbone.load_initial_weights()
    assert torch.equal(backbone.state_dict()["layer3.4.conv2.weight"], state["layer3.4.conv2.weight"])


def test_an_unconverted_pickle_says_how_to_convert_it(msra_file):
    module = load_recipe(CAFFE).detector.backbone.build()
    with pytest.raises(WeightsError) as caught:
        load_initial(module, str(msra_file))
    assert str(caught.value).startswith(
        f"{msra_file}: a pickle of another project must be converted: det-core import-weights {msra_file} --from "
        "detectron2 --recipe RECIPE -o backbone.safetensors, then --set detector.backbone.pretrained="
    )


def test_every_name_in_a_recipe_is_known():
    from det_core.plugins import plugin_manager
    from det_core.weights.initial_weights import FOREIGN_MODELS

    for entry in plugin_manager().recipes().values():
        backbone = load_recipe(entry.name).detector.backbone
        name = getattr(backbone, "pretrained", None)
        known = name is None or name in FOREIGN_MODELS or name.startswith("torchvision:")
        # The plugin of timm looks such names up itself; its tests hold that they are weights of the network.
        assert known or (backbone.type == "timm" and name.startswith(f"timm:{backbone.name}.")), entry.name


def test_an_unknown_source():
    with pytest.raises(
        DetError, match="^unknown source 'yolo'; allowed: mmdet, mmdet1, torchvision, detectron2, detectron, "
    ):
        check_source("yolo")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl"])
def test_a_torch_file_where_a_checkpoint_is_asked_names_the_import(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(DetError) as raised:
        weights_file(path)
    assert f"convert it with `det-core import-weights {path} --from PROJECT" in str(raised.value)
