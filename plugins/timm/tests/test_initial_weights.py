"""Initial weights: files with timm's names, timm's weights by name, and what does not fit."""

from __future__ import annotations

import logging

import pytest
import timm
import torch
from safetensors.torch import save_file

from det_core.errors import WeightsError
from det_core.model.detector_config import PreprocessConfig
from det_plugin_timm import initial_weights
from det_plugin_timm.config import TimmConfig
from det_plugin_timm.initial_weights import preprocess_of
from det_plugin_timm.networks import create_network

RESNET, SWIN, VIT = "resnet18d", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"


def whole(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    return timm.create_model(name)


@pytest.mark.parametrize("name", [RESNET, SWIN, VIT, "convnext_atto"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_with_timm_s_names(name: str, ending: str, tmp_path) -> None:
    theirs, file = whole(name).state_dict(), tmp_path / f"weights.{ending}"
    (torch.save if ending == "pth" else save_file)(theirs, str(file))
    backbone = TimmConfig(name=name, pretrained=str(file)).build()
    backbone.load_initial_weights()
    for key, value in backbone.body.named_parameters():
        assert torch.equal(value, theirs[key]), key


def test_later_stages_are_ignored(tmp_path) -> None:
    theirs = whole(RESNET).state_dict()
    torch.save(theirs, tmp_path / "weights.pth")
    backbone = TimmConfig(name=RESNET, strides=(4, 8), pretrained=str(tmp_path / "weights.pth")).build()
    backbone.load_initial_weights()
    assert not any(key.startswith("layer3.") for key, _ in backbone.body.named_parameters())
    assert torch.equal(backbone.body.layer2[1].conv2.weight, theirs["layer2.1.conv2.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, "missing: layer1.0.conv1.weight"),
        ({"layer9.weight": torch.zeros(2)}, "left over: layer9.weight"),
        ({"layer1.0.conv1.weight": torch.zeros(2)}, r"shapes differ: layer1.0.conv1.weight is \(2,\)"),
        ({"bn1.bias": torch.full((64,), float("nan"))}, r"not finite \(NaN or inf\): bn1.bias"),
    ],
)
def test_a_file_that_does_not_fit(change: dict[str, torch.Tensor | None], message: str, tmp_path) -> None:
    state = {**whole(RESNET).state_dict(), **change}
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "weights.pth")
    backbone = TimmConfig(name=RESNET, pretrained=str(tmp_path / "weights.pth")).build()
    with pytest.raises(WeightsError, match=rf"do not fit the backbone: 1 problem\s+{message}"):
        backbone.load_initial_weights()


def test_images_of_other_channels(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = whole("convnext_atto").state_dict()
    torch.save(theirs, tmp_path / "weights.pth")
    backbone = TimmConfig(name="convnext_atto", in_channels=2, pretrained=str(tmp_path / "weights.pth")).build()
    with caplog.at_level(logging.WARNING):
        backbone.load_initial_weights()
    wanted = (theirs["stem.0.weight"].sum(1, keepdim=True) / 2).expand(-1, 2, -1, -1)
    torch.testing.assert_close(backbone.body.stem[0].weight.detach(), wanted)
    assert "stem.0.weight is the mean over RGB for 2 channels" in caplog.text


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that timm is asked for; it gives random weights instead of the network's."""
    asked: list[str] = []

    def create(name: str, *, pretrained: bool = False, **more: object) -> torch.nn.Module:
        if pretrained:
            asked.append(name)
        torch.manual_seed(3)
        made = create_network(name, **more)  # type: ignore[arg-type]
        torch.manual_seed(4)
        return made

    monkeypatch.setattr(initial_weights, "create_network", create)
    return asked


@pytest.mark.parametrize("spec", ["timm:convnext_atto", "timm:convnext_atto.d2_in1k"])
def test_timm_s_weights_by_name(spec: str, downloads: list[str]) -> None:
    backbone = TimmConfig(name="convnext_atto", pretrained=spec).build()
    backbone.load_initial_weights()
    assert downloads == [spec.removeprefix("timm:")]
    theirs = whole("convnext_atto").state_dict()
    for key, value in backbone.body.named_parameters():
        assert torch.equal(value, theirs[key]), key


def test_weights_that_require_another_preprocessing_say_so(
    downloads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        TimmConfig(name=VIT, pretrained=f"timm:{VIT}").build().load_initial_weights()
    assert f"timm:{VIT} require detector.preprocess.mean: [127.5, 127.5, 127.5] and std: [127.5, 127.5, 127.5]" in (
        caplog.text
    )


def test_the_preprocessing_of_weights() -> None:
    assert preprocess_of("timm:convnext_atto") == PreprocessConfig()
    assert preprocess_of(f"timm:{VIT}").mean == (127.5,) * 3
    with pytest.raises(WeightsError, match="timm has no weights timm:convnext_atto.d2; of "):
        preprocess_of("timm:convnext_atto.d2")


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        (
            "convnext_atto",
            "timm:convnext_atto.zzz",
            "timm has no weights timm:convnext_atto.zzz; of 'convnext_atto' it has timm:convnext_atto.d2_in1k",
        ),
        (
            "mobilenetv2_075",
            "timm:mobilenetv2_075",
            "timm has no weights timm:mobilenetv2_075; of 'mobilenetv2_075' it has none; use a file, or null",
        ),
    ],
)
def test_weights_that_timm_does_not_have(name: str, spec: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        TimmConfig(name=name, pretrained=spec).build().load_initial_weights()


def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, *, pretrained: bool = False, **more: object) -> torch.nn.Module:
        if pretrained:
            raise ConnectionError("no route to host\nand more")
        return create_network(name, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(initial_weights, "create_network", create)
    with pytest.raises(WeightsError) as error:
        TimmConfig(name="convnext_atto", pretrained="timm:convnext_atto.d2_in1k").build().load_initial_weights()
    assert str(error.value) == (
        "timm:convnext_atto.d2_in1k cannot be loaded by timm (no route to host); download the weights on another "
        "machine, save `timm.create_model('convnext_atto.d2_in1k', pretrained=True).state_dict()` with torch.save, and "
        "set the file's path with --set detector.backbone.pretrained=PATH, or train from random weights with --set "
        "detector.backbone.pretrained=null"
    )
