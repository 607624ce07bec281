"""Data configurations: checked without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from det_core.data.data_config import CocoConfig, ColorJitterConfig, FlipConfig, ResizeConfig, SampleConfig, VocConfig
from det_core.data.files_config import JoinedConfig, LabelmeConfig, YoloConfig


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (CocoConfig, {"split": "all"}, "split"),
        (CocoConfig, {"split": "val", "part": (0.5, 0.5)}, "part: found .0.5, 0.5., expected two numbers in ascending"),
        (CocoConfig, {"split": "val", "part": (0.5, 1.5)}, r"part\[1\]: found 1.5, expected at least 0 and at most 1"),
        (CocoConfig, {"split": "val", "classes": ("a", "a=b")}, "class 'a' is named twice"),
        (YoloConfig, {"split": "val", "classes": ("a=",)}, "a name is empty; expected NAME or OLD=NEW"),
        (JoinedConfig, {"sources": ()}, "sources: found 0 values, expected at least 1"),
        (
            JoinedConfig,
            {"sources": (SampleConfig(split="val"), SampleConfig(split="val", proposals="a"))},
            "some have `proposals`, others have none",
        ),
        (SampleConfig, {"split": "test"}, "split"),
        (CocoConfig, {"split": "val", "min_size": -1}, "min_size"),
        (SampleConfig, {"split": "all"}, "split"),
        (ResizeConfig, {"scales": ()}, "scales: found 0 values, expected at least 1"),
        (ResizeConfig, {"scales": ((0, 5),)}, r"scales\[0\]\[0\]: found 0, expected at least 1"),
        (ResizeConfig, {"mode": "both"}, "mode"),
        (ResizeConfig, {"mode": "range"}, "draws between two scales, but 1 given"),
        (FlipConfig, {"probability": 1.5}, "probability"),
        (FlipConfig, {"vertical_probability": -0.1}, "vertical"),
        (ColorJitterConfig, {"hue": 0.6}, "hue"),
        (ColorJitterConfig, {"contrast": -1.0}, "contrast"),
    ],
)
def test_values_are_checked(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**values)


def test_every_field_is_documented() -> None:
    import attrs

    from det_core.evaluation.metric_config import CocoEvaluatorConfig, VocEvaluatorConfig

    datasets, metrics = (
        (CocoConfig, VocConfig, YoloConfig, LabelmeConfig, JoinedConfig, SampleConfig),
        (CocoEvaluatorConfig, VocEvaluatorConfig),
    )
    for cls in (*datasets, ResizeConfig, FlipConfig, ColorJitterConfig, *metrics):
        assert cls.type
        for attribute in attrs.fields(cls):
            assert attribute.metadata.get("doc"), f"{cls.__name__}.{attribute.name}"


def test_configs_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, det_core.data.data_config, det_core.data.files_config, det_core.data.layout, "
        "det_core.evaluation.metric_config; "
        "print([m for m in ('torch', 'numpy', 'torchvision', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
