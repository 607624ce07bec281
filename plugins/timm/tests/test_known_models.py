"""What is known of timm's networks without it: the file is what timm says, and names that it does not have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
from timm.models import register_model

from det_core.errors import ConfigError
from det_core.specs import FeatureSpec
from det_plugin_timm import known_models, networks
from det_plugin_timm.config import TimmConfig
from det_plugin_timm.known_models import model_of
from det_plugin_timm.model_table import Model, as_cells, table
from det_plugin_timm.networks import measured

SAMPLE = (
    "convnext_tiny",
    "densenet121",
    "maxvit_nano_rw_256",
    "maxxvit_rmlp_nano_rw_256",
    "mobilevitv2_050",
    "mobilenetv3_small_050",
    "pvt_v2_b0",
    "resnet50d",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
)


def test_the_file_lists_all_networks_of_the_installed_timm() -> None:
    """If this fails after an update of timm: python plugins/timm/make_models.py"""
    assert table().timm == timm.__version__
    assert list(table().models) == timm.list_models()


def test_the_readme_counts_networks_as_the_file_does() -> None:
    models = table().models.values()
    taken = sum(bool(model.maps) for model in models)
    text = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf8")
    assert f"all networks of timm {table().timm}. {taken} of {len(models)} give maps" in text


@pytest.mark.parametrize("name", SAMPLE)
def test_the_file_is_what_is_measured(name: str) -> None:
    assert table().models[name] == measured(name)


def test_multiples() -> None:
    """MobileViT v2 has patches of 2 x 2 cells, MaxViT windows of 8 x 8, also at stride 32."""
    names = ("mobilevitv2_050", "maxxvit_rmlp_nano_rw_256", "convnext_tiny")
    assert [table().models[name].multiple for name in names] == [2, 8, 1]


def test_most_networks_give_maps() -> None:
    models = table().models.values()
    assert sum(bool(model.maps) for model in models) > 1000
    assert {model.plain for model in models if len(model.maps) > 1} == {False}


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("convnext_tiny", (96, 192, 384, 768), (4, 8, 16, 32)),
        ("resnet50d", (256, 512, 1024, 2048), (4, 8, 16, 32)),
        ("efficientnet_b0", (24, 40, 112, 320), (4, 8, 16, 32)),
        ("vit_small_patch16_dinov3", (96, 192, 384, 384), (4, 8, 16, 32)),
        ("vit_small_patch14_dinov2", (192, 384, 384), (7, 14, 28)),
        ("vit_tiny_patch16_224", (48, 96, 192, 192), (4, 8, 16, 32)),
    ],
)
def test_specs(name: str, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
    assert TimmConfig(name=name).feature_spec() == FeatureSpec(channels=channels, strides=strides)


def test_a_row_of_the_file() -> None:
    assert as_cells("a", Model(maps={4: 8, 8: 16})) == ("a", "4:8 8:16", "", "")
    assert as_cells("b", Model(maps={16: 8}, plain=True)) == ("b", "16:8", "yes", "")
    assert as_cells("c", Model(maps={}, multiple=2)) == ("c", "", "", "2")


def test_neither_a_known_nor_an_unknown_name_imports_torch() -> None:
    code = (
        "import sys\nfrom det_core.errors import ConfigError\nfrom det_plugin_timm.config import TimmConfig\n"
        "print(TimmConfig(name='convnext_tiny').feature_spec().strides)\n"
        "try: TimmConfig(name='convnext_tinny')\n"
        "except ConfigError as error: print(error)\n"
        "print(*({'torch', 'numpy', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spec, message, heavy = done.stdout.split("\n")[:3]
    assert spec == "(4, 8, 16, 32)"
    assert message.startswith("TimmConfig.name: timm has no network 'convnext_tinny'; did you mean \"convnext_tiny\"")
    assert heavy == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zzzzzz", r"name: timm has no network 'zzzzzz'; `timm.list_models\(\)` lists them"),
        (
            "convnext_tiny.fb_in1k",
            "name: 'convnext_tiny.fb_in1k' names weights of timm; set name: convnext_tiny and pretrained: "
            "timm:convnext_tiny.fb_in1k",
        ),
        (
            "convit_tiny",
            r"name: 'convit_tiny' gives no feature maps of images of any size \(timm's `forward_intermediates`\); use "
            "another network, such as convnext_tiny",
        ),
    ],
)
def test_names_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmConfig(name=name)


def test_a_network_that_a_user_registers_is_measured() -> None:
    @register_model
    def registered_for_a_test(pretrained: bool = False, **kwargs: object) -> object:
        return timm.create_model("test_resnet", **kwargs)

    registered_for_a_test.__module__ = __name__
    found = model_of("registered_for_a_test")
    assert found == measured("test_resnet")
    assert found.maps
    assert model_of("registered_for_a_test") is found  # measured once


def test_another_version_of_timm_is_asked_for_names_that_are_not_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(name: str) -> Model | None:
        asked.append(name)
        return Model(maps={8: 4}) if name == "of_tomorrow" else None

    monkeypatch.setattr(networks, "measured", answer)
    monkeypatch.delitem(sys.modules, "timm")
    with pytest.raises(ConfigError, match="timm has no network 'of_tomorrow'"):
        model_of("of_tomorrow")
    assert asked == []
    monkeypatch.setattr(known_models, "_installed", lambda: "9.9")
    assert model_of("of_tomorrow") == Model(maps={8: 4})
    with pytest.raises(ConfigError, match="timm has no network 'of_never'"):
        model_of("of_never")
    assert asked == ["of_tomorrow", "of_never"]
