"""What `import det_core` gives: every public name is there, is what it should be, and costs nothing until used."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import det_core


@pytest.mark.parametrize("name", det_core.__all__)
def test_every_public_name_is_there(name):
    value = getattr(det_core, name)
    assert name in dir(det_core)
    assert isinstance(value, types.ModuleType) == (name == "hookspecs")
    assert getattr(det_core, name) is value


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'det_core' has no attribute 'nothing'"):
        _ = det_core.nothing


def test_names_for_configurations_import_no_torch():
    light = [
        "load_recipe",
        "Recipe",
        "RecipeEntry",
        "DetectorConfig",
        "FeatureSpec",
        "Batch",
        "Targets",
        "Detections",
        "LossTerm",
        "hookimpl",
        "hookspecs",
        "plugin_manager",
        "import_weights",
        "ConfigError",
    ]
    code = (
        f"import sys, det_core\nfor n in {light}: getattr(det_core, n)\nprint({{'torch', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert det_core.__version__ == version("det-core")
