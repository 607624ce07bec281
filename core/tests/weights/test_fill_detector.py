"""Weights from elsewhere: names translated along the configuration, files read without running anything, refusals."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from det_core.errors import DetError, WeightsError
from det_core.model.detector import Detector, Preprocess
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.model.layer_config import BatchNormConfig
from det_core.offers import Names, Part, WeightMap
from det_core.settings import setting
from det_core.slots import BackboneConfig, DenseHeadConfig, NeckConfig, NormConfig
from det_core.specs import FeatureSpec
from det_core.structures import Classes
from det_core.testing.isolated_plugins import isolated_manager, make_plugin, stub_config
from det_core.weights.fill_detector import ImportReport, import_weights
from det_core.weights.initial_weights import load_initial
from det_core.weights.read_files import read_state_dict
from det_core.weights.translate_names import translate

SPEC = FeatureSpec(channels=(4,), strides=(4,))


class Module(nn.Module):
    """Any part: it is never run, only filled."""

    out = SPEC

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


@stub_config
class TowerConfig(BackboneConfig):
    type: ClassVar[str] = "tower"

    def feature_spec(self) -> FeatureSpec:
        return SPEC

    def build(self) -> Module:  # type: ignore[override]
        return Module(conv1=nn.Conv2d(3, 4, 1), norm=BatchNormConfig().build(4))


@stub_config
class PlainNeckConfig(NeckConfig):
    type: ClassVar[str] = "plain"

    norm: NormConfig = setting("", default=BatchNormConfig())

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        return inputs

    def build(self, inputs: FeatureSpec) -> Module:  # type: ignore[override]
        return Module(outputs=nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)]), norm=self.norm.build(4))


@stub_config
class DenseConfig(DenseHeadConfig):
    type: ClassVar[str] = "dense"

    def build(self, features: FeatureSpec, num_classes: int) -> Module:  # type: ignore[override]
        return Module(scores=nn.Conv2d(4, num_classes, 1))


def _tower(config: TowerConfig) -> Names:
    return Names()


def _neck(config: PlainNeckConfig) -> Names:
    # The first rule that matches is the one, so the particular case comes first.
    rules = ((r"outputs\.1\.", "last."), (r"outputs\.(\d+)", r"fpn_convs.\1.conv"))
    return Names(rules=rules, parts={"norm": Part(config.norm, "neck_norm")})


def _norm(config: BatchNormConfig) -> Names:
    return Names(rules=((r"weight", "gamma"), (r"bias", "beta")))


def _dense(config: DenseConfig) -> Names:
    return Names(rules=((r"scores\.", "conv_cls."),))


MAPS = (
    WeightMap("mmdet", TowerConfig, _tower),
    WeightMap("mmdet", PlainNeckConfig, _neck),
    WeightMap("mmdet", BatchNormConfig, _norm),
    WeightMap("mmdet", DenseConfig, _dense),
)
CONFIG = DetectorConfig(backbone=TowerConfig(), neck=PlainNeckConfig(), dense_head=DenseConfig())
THEIRS = {
    "backbone.conv1.weight": (4, 3, 1, 1),
    "backbone.conv1.bias": (4,),
    "backbone.norm.weight": (4,),
    "backbone.norm.bias": (4,),
    "backbone.norm.running_mean": (4,),
    "backbone.norm.running_var": (4,),
    "neck.fpn_convs.0.conv.weight": (4, 4, 1, 1),
    "neck.fpn_convs.0.conv.bias": (4,),
    "neck.last.weight": (4, 4, 1, 1),
    "neck.last.bias": (4,),
    "neck.neck_norm.gamma": (4,),
    "neck.neck_norm.beta": (4,),
    "neck.neck_norm.running_mean": (4,),
    "neck.neck_norm.running_var": (4,),
    "bbox_head.conv_cls.weight": (2, 4, 1, 1),
    "bbox_head.conv_cls.bias": (2,),
}


@pytest.fixture(autouse=True)
def plugins() -> Iterator[None]:
    parts = make_plugin(
        "parts",
        det_backbones=lambda: [TowerConfig],
        det_necks=lambda: [PlainNeckConfig],
        det_heads=lambda: [DenseConfig],
        det_layers=lambda: [BatchNormConfig],
        det_weight_maps=lambda: MAPS,
    )
    with isolated_manager(parts):
        yield


def checkpoint(**changes: Tensor | None) -> dict[str, Tensor]:
    """What the source saved, all of it or with some keys changed or (None) left out; `__` stands for a dot."""
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(*shape, generator=generator) for key, shape in THEIRS.items()}
    for name, value in changes.items():
        key = name.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


def refused(state: Mapping[str, Tensor], source: str = "mmdet", config: DetectorConfig = CONFIG) -> str:
    """Why an import is refused; the detector must be left as it was."""
    detector = config.build(num_classes=2)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        import_weights(state, source=source, detector=detector)
    after = detector.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    return str(caught.value)


# importing


def test_every_weight_is_filled_under_its_own_name():
    detector = CONFIG.build(num_classes=2)
    state = checkpoint()
    report = import_weights(state, source="mmdet", detector=detector)
    assert isinstance(report, ImportReport)
    assert set(report.filled.values()) == set(THEIRS)
    assert report.ignored == ()
    ours = detector.state_dict()
    assert all(torch.equal(ours[key], state[theirs]) for key, theirs in report.filled.items())
    assert report.filled["neck.outputs.0.weight"] == "neck.fpn_convs.0.conv.weight"
    assert report.filled["neck.outputs.1.weight"] == "neck.last.weight"
    assert report.filled["neck.norm.weight"] == "neck.neck_norm.gamma"
    assert report.filled["dense_head.scores.bias"] == "bbox_head.conv_cls.bias"


def test_numpy_arrays_and_other_precisions_are_taken():
    state = checkpoint()
    arrays = {key: value.numpy().astype(np.float64) for key, value in state.items()}
    detector = CONFIG.build(num_classes=2)
    report = import_weights(arrays, source="mmdet", detector=detector)
    ours = detector.state_dict()
    assert ours["neck.norm.weight"].dtype == torch.float32
    assert all(torch.equal(ours[key], state[theirs]) for key, theirs in report.filled.items())


def test_counters_of_batch_norm_may_be_there_or_not():
    counter = torch.tensor(5)
    report = import_weights(
        checkpoint(backbone__norm__num_batches_tracked=counter, old__norm__num_batches_tracked=counter),
        source="mmdet",
        detector=CONFIG.build(num_classes=2),
    )
    assert report.filled["backbone.norm.num_batches_tracked"] == "backbone.norm.num_batches_tracked"
    assert "neck.norm.num_batches_tracked" not in report.filled
    assert report.ignored == ("old.norm.num_batches_tracked",)


def test_the_head_of_an_rpn_alone_is_called_rpn_head():
    state = {key.replace("bbox_head.", "rpn_head."): value for key, value in checkpoint().items()}
    report = import_weights(state, source="mmdet", detector=CONFIG.build(num_classes=2))
    assert report.filled["dense_head.scores.weight"] == "rpn_head.conv_cls.weight"


def test_the_moving_average_of_mmcv_is_reported_and_left():
    state = checkpoint()
    averages = {f"ema_{key.replace('.', '_')}": value + 1 for key, value in state.items()}
    detector = CONFIG.build(num_classes=2)
    report = import_weights({**state, **averages}, source="mmdet", detector=detector)
    assert set(averages) <= set(report.ignored)
    assert torch.equal(detector.state_dict()["dense_head.scores.bias"], state["bbox_head.conv_cls.bias"])
    assert "left over in the source: ema_other" in refused({**state, "ema_other": torch.zeros(1)})


def test_a_key_left_over():
    assert refused(checkpoint(backbone__fc__weight=torch.zeros(1))) == (
        "the mmdet weights do not fit this detector: 1 problem\n  left over in the source: backbone.fc.weight"
    )


def test_a_key_missing():
    assert refused(checkpoint(neck__last__bias=None)) == (
        "the mmdet weights do not fit this detector: 1 problem\n"
        "  not in the source: neck.last.bias (for neck.outputs.1.bias)"
    )


def test_a_wrong_shape():
    assert refused(checkpoint(bbox_head__conv_cls__bias=torch.zeros(80))) == (
        "the mmdet weights do not fit this detector: 1 problem\n"
        "  shapes differ: bbox_head.conv_cls.bias is (80,), dense_head.scores.bias is (2,)"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value):
    assert refused(checkpoint(bbox_head__conv_cls__bias=torch.tensor([0.0, value]))) == (
        "the mmdet weights do not fit this detector: 1 problem\n"
        "  not finite (NaN or inf): bbox_head.conv_cls.bias (for dense_head.scores.bias)"
    )


def test_a_scalar_where_a_vector_is_wanted_is_a_wrong_shape():
    assert "is (), dense_head.scores.bias is (2,)" in refused(checkpoint(bbox_head__conv_cls__bias=torch.tensor(1.0)))


def test_all_problems_are_listed_up_to_20():
    message = refused({f"stage.{i}": torch.zeros(1) for i in range(30)})
    assert message.startswith("the mmdet weights do not fit this detector: 46 problems\n  left over in the source: ")
    assert message.endswith("\n  ... and 26 more")
    assert len(message.splitlines()) == 22


def test_an_unknown_source():
    allowed = "mmdet, mmdet1, torchvision, detectron2, detectron, maskrcnn-benchmark"
    assert refused(checkpoint(), source="yolo") == f"unknown source 'yolo'; allowed: {allowed}"


def test_a_component_without_a_map():
    @stub_config
    class StrangerConfig(TowerConfig):
        type: ClassVar[str] = "stranger"

    config = DetectorConfig(backbone=StrangerConfig(), dense_head=DenseConfig())
    message = (
        "backbone type 'stranger'{} has no weight map for 'mmdet', so its weights cannot be imported; its plugin can "
        "add one with the hook det_weight_maps"
    )
    assert refused(checkpoint(), config=config) == message.format("")
    other = make_plugin("strange", det_backbones=lambda: [StrangerConfig], det_weight_maps=lambda: MAPS[3:])
    with isolated_manager(other):
        found = refused(checkpoint(), config=config)
    assert found.startswith("backbone type 'stranger' (from ")
    assert "strange" in found.partition(")")[0]
    assert found.endswith(message.partition("{}")[2])


def test_a_detector_composed_in_python_has_no_maps():
    detector = Detector(
        preprocess=Preprocess(PreprocessConfig()),
        backbone=TowerConfig().build(),  # type: ignore[arg-type]
        dense_head=DenseConfig().build(SPEC, 2),  # type: ignore[arg-type]
        classes=Classes.numbered(2),
    )
    with pytest.raises(
        WeightsError, match="^the detector was not built from a configuration, so its parts' weight maps"
    ):
        import_weights(checkpoint(), source="mmdet", detector=detector)


def test_a_rule_applies_from_the_start_of_a_name_only():
    assert translate("mmdet", DenseConfig(), "scores.weight") == "conv_cls.weight"
    assert translate("mmdet", DenseConfig(), "more.scores.weight") == "more.scores.weight"
    assert translate("mmdet", PlainNeckConfig(), "normal.weight") == "normal.weight"


def test_a_weights_error_is_a_users_mistake():
    assert issubclass(WeightsError, DetError)
    assert issubclass(WeightsError, ValueError)


# reading files

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.zeros(2)}


def same(found: Mapping[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "meta": {"epoch": 3}},
        {"model": STATE, "optimizer": [1, 2]},
        {"model": {"state_dict": STATE}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_with_the_weights_alone_or_under_a_name(tmp_path, content, zipped):
    if "model" in content and "state_dict" in content["model"]:
        content = {"state_dict": {"model": STATE}}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(tmp_path / "x.pth"))


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_objects_beside_the_weights_do_no_harm(tmp_path, zipped):
    import argparse
    import collections
    import datetime

    counts = collections.defaultdict(int, a=1)
    extras = {
        "counts": [counts, collections.defaultdict(list, a=[1]), collections.Counter("abc")],
        "dates": [datetime.date(2019, 5, 1), datetime.datetime(2019, 5, 1, tzinfo=datetime.UTC)],
        "epochs": range(12),
        "args": argparse.Namespace(lr=0.1),
        "meta": {"when": datetime.timedelta(3)},
    }
    torch.save({"state_dict": STATE, **extras}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(tmp_path / "x.pth"))


def test_a_torch_file_with_compressed_entries(tmp_path):
    """A few kilobytes of zeros, compressed, can take all memory; torch does not compress."""
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"bomb\.pth: .* are compressed, which torch\.save never does: refused"):
        read_state_dict(tmp_path / "bomb.pth")


def test_a_safetensors_file(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert same(read_state_dict(tmp_path / "x.safetensors"))


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "x.pth", tmp_path / "x.safetensors", tmp_path):
        with pytest.raises(WeightsError) as caught:
            read_state_dict(path)
        assert str(caught.value) == f"{path}: no such file"


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"<html>404</html>", bytes(1000)])
def test_a_file_of_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.(pth|safetensors): not a readable checkpoint \(.+\)$") as caught:
        read_state_dict(tmp_path / name)
    assert "weights_only=False" not in str(caught.value)
    assert "`weights_only`" not in str(caught.value)


def torch_bytes(zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


ZIPPED, OLD = torch_bytes(True), torch_bytes(False)


@pytest.mark.parametrize("content", [ZIPPED, OLD], ids=["zip", "old"])
def test_a_truncated_torch_file(tmp_path, content):
    for size in range(0, len(content), 7):
        (tmp_path / "x.pth").write_bytes(content[:size])
        with pytest.raises(WeightsError, match=r"x\.pth: (not a readable checkpoint|contains no state dict)"):
            read_state_dict(tmp_path / "x.pth")


def test_a_truncated_safetensors_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(STATE, path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError, match="not a readable checkpoint"):
            read_state_dict(path)


@given(st.data())
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_torch_file_is_refused_or_read_and_nothing_else(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([ZIPPED, OLD])))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    with suppress(WeightsError):
        assert all(isinstance(v, Tensor) for v in read_state_dict(path).values())


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path, how):
    path, mark = tmp_path / "x.pth", tmp_path / "mark"
    content = {"conv.weight": STATE["conv.weight"], "evil": Evil(mark)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"evil": Evil(mark)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert str(caught.value) == (
        f"{path}: not a readable checkpoint (it contains a {os.name}.mkdir, but only tensors and plain values are "
        "loaded; save only the state dict)"
    )
    assert not mark.exists()
    # The file is what it is meant to be: a plain unpickler would have run it.
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], STATE["conv.bias"], {"epoch": 3}, {"state_dict": {"a": "b"}}, {"a": [torch.ones(1)]}, {1: torch.ones(1)}],
)
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: contains no state dict \(a mapping of names to tensors\)$"):
        read_state_dict(tmp_path / "x.pth")


# initial weights


def resnet(depth: int) -> nn.Module:
    """torchvision's own, without the classifier: a backbone with its names."""
    torch.manual_seed(depth)
    module = getattr(torchvision.models, f"resnet{depth}")()
    del module.fc
    return module


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_initial_weights_from_a_file_leave_out_the_classifier(resnet18_file):
    module, saved = resnet(18), torch.load(resnet18_file, weights_only=True)
    load_initial(module, str(resnet18_file))
    assert all(torch.equal(value, saved[key]) for key, value in module.state_dict().items())


def test_a_file_in_the_home_folder(resnet18_file, monkeypatch):
    monkeypatch.setenv("HOME", str(resnet18_file.parent))
    module = resnet(18)
    load_initial(module, "~/resnet18.pth")
    assert torch.equal(module.conv1.weight, torch.load(resnet18_file, weights_only=True)["conv1.weight"])


def test_counters_of_batch_norm_may_be_missing(resnet18_file, tmp_path):
    state = torch.load(resnet18_file, weights_only=True)
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "x.pth")
    load_initial(resnet(18), str(tmp_path / "x.pth"))


def test_what_is_ignored_can_be_chosen(resnet18_file):
    with pytest.raises(WeightsError, match=r"2 problems\n  left over: fc.weight\n  left over: fc.bias$"):
        load_initial(resnet(18), str(resnet18_file), ignore=("classifier.",))


def test_fresh_layers_are_not_expected_in_the_file_and_stay(resnet18_file, tmp_path):
    state = torch.load(resnet18_file, weights_only=True)
    torch.save({k: v for k, v in state.items() if not k.startswith("layer4.1.")}, tmp_path / "x.pth")
    module = resnet(18)
    before = module.layer4[1].conv1.weight.clone()
    load_initial(module, str(tmp_path / "x.pth"), fresh=("layer4.1.",))
    assert torch.equal(module.layer4[1].conv1.weight, before)
    assert torch.equal(module.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    with pytest.raises(WeightsError, match=r"10 problems\n  missing: layer4\.1\.conv1\.weight"):
        load_initial(resnet(18), str(tmp_path / "x.pth"), fresh=("layer3.",))


def test_fresh_layers_that_the_file_has_are_filled(resnet18_file):
    module = resnet(18)
    load_initial(module, str(resnet18_file), fresh=("layer4.",))
    assert torch.equal(
        module.layer4[1].conv1.weight, torch.load(resnet18_file, weights_only=True)["layer4.1.conv1.weight"]
    )


def test_a_mismatching_depth_is_refused_and_changes_nothing(resnet18_file):
    module = resnet(34)
    before = module.conv1.weight.clone()
    with pytest.raises(WeightsError) as caught:
        load_initial(module, str(resnet18_file))
    title, *lines = str(caught.value).splitlines()
    assert title == f"initial weights {str(resnet18_file)!r} do not fit the backbone: 80 problems"
    assert lines[0] == "  missing: layer1.2.conv1.weight"
    assert lines[-1] == "  ... and 60 more"
    assert torch.equal(module.conv1.weight, before)


def test_initial_weights_that_are_not_finite(resnet18_file, tmp_path):
    state = torch.load(resnet18_file, weights_only=True)
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"not finite \(NaN or inf\): conv1\.weight"):
        load_initial(torchvision.models.resnet18(), str(tmp_path / "x.safetensors"))


def test_wrong_shapes_are_listed(resnet18_file):
    module = resnet(18)
    module.conv1 = nn.Conv2d(1, 64, 7, bias=False)
    with pytest.raises(
        WeightsError, match=r"shapes differ: conv1.weight is \(64, 3, 7, 7\), expected \(64, 1, 7, 7\)$"
    ):
        load_initial(module, str(resnet18_file))


def test_initial_weights_that_are_not_there(tmp_path):
    with pytest.raises(WeightsError, match="nowhere.pth: no such file$"):
        load_initial(resnet(18), str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("name", ["resnet5O", "nonsense", "fasterrcnn_resnet50_fpn", ""])
def test_a_torchvision_model_that_is_not_there(name):
    with pytest.raises(WeightsError, match=f"^torchvision has no ImageNet weights named '{name}'"):
        load_initial(resnet(18), f"torchvision:{name}")


def test_the_nearest_torchvision_names_are_given():
    with pytest.raises(WeightsError, match="named 'resnet5O'.*resnet50"):
        load_initial(resnet(18), "torchvision:resnet5O")


def weights_of(monkeypatch: pytest.MonkeyPatch, result: object) -> None:
    """torchvision's download gives this, or raises it."""

    def download(self: object, *arguments: object, **settings: object) -> object:
        assert settings.get("check_hash") is True
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", download)


def test_torchvision_weights_by_name(monkeypatch, resnet18_file):
    state = torch.load(resnet18_file, weights_only=True)
    weights_of(monkeypatch, state)
    module = resnet(18)
    load_initial(module, "torchvision:resnet18")
    assert torch.equal(module.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("vgg16", "VGG16_Weights.IMAGENET1K_V1"),
        ("vgg16@IMAGENET1K_V1", "VGG16_Weights.IMAGENET1K_V1"),
        ("vgg16@IMAGENET1K_FEATURES", "VGG16_Weights.IMAGENET1K_FEATURES"),
    ],
)
def test_torchvision_weights_of_several_by_name(monkeypatch, name, weights):
    asked = []

    def download(self: object, *arguments: object, **settings: object) -> object:
        asked.append(str(self))
        return {"weight": torch.ones(1, 1)}

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", download)
    module = nn.Linear(1, 1, bias=False)
    load_initial(module, f"torchvision:{name}")
    assert asked == [weights]
    assert module.weight.item() == 1.0


@pytest.mark.parametrize("which", ["FEATURES", "imagenet1k_v1"])
def test_torchvision_weights_of_a_name_that_is_not_there(which):
    with pytest.raises(WeightsError) as caught:
        load_initial(resnet(18), f"torchvision:vgg16@{which}")
    assert str(caught.value) == (
        f"torchvision has no ImageNet weights named 'vgg16@{which}'; available: vgg16@IMAGENET1K_V1, "
        "vgg16@IMAGENET1K_FEATURES"
    )


def test_the_nearest_model_of_a_name_with_weights():
    with pytest.raises(WeightsError, match="named 'vgg116@IMAGENET1K_V1'; did you mean .*vgg16"):
        load_initial(resnet(18), "torchvision:vgg116@IMAGENET1K_V1")


def test_torchvision_weights_of_another_depth(monkeypatch, resnet18_file):
    weights_of(monkeypatch, torch.load(resnet18_file, weights_only=True))
    with pytest.raises(
        WeightsError, match="^initial weights 'torchvision:resnet18' do not fit the backbone: 80 problems"
    ):
        load_initial(resnet(34), "torchvision:resnet18")


@pytest.mark.parametrize("error", [URLError("offline"), TimeoutError("offline"), RuntimeError("offline")])
def test_without_a_network_the_url_and_the_ways_out_are_given(monkeypatch, error):
    weights_of(monkeypatch, error)
    with pytest.raises(WeightsError) as caught:
        load_initial(resnet(18), "torchvision:resnet18")
    assert str(caught.value) == (
        "torchvision:resnet18 cannot be downloaded from https://download.pytorch.org/models/resnet18-f37072fd.pth "
        f"({error}); download the file on another machine and set its path with --set "
        "detector.backbone.pretrained=PATH, or train from random weights with --set detector.backbone.pretrained=null"
    )
