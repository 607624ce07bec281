"""Looking, listing and helping import neither torch nor numpy, and do little work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Modules that are not det's: 210 for --help, 305 for recipes, the most. Importing numpy makes that 393. The rest of the
# margin is for other versions of Python, whose standard library imports a few more or fewer.
MOST_MODULES = 350
# Calls of Python functions: 50,000 for --help, 460,000 for recipes, which takes 0.3 s on an idle machine.
MOST_CALLS = 1_000_000

COMMANDS = (
    ["--help"],
    ["--version"],
    ["plugins"],
    ["plugins", "--json"],
    ["plugins", "--help"],
    ["recipes"],
    ["recipes", "--json"],
    ["recipes", "schema"],
    ["recipes", "show", "mask-rcnn/r50-fpn-1x"],
    ["train", "--help"],
    ["test", "--help"],
    ["predict", "--help"],
    ["data", "--help"],
    ["proposals", "--help"],
    ["export", "--help"],
    ["import-weights", "--help"],
    ["import-config", "--help"],
    ["doctor", "--help"],
    ["push", "--help"],
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_command_is_light(run_counted, arguments):
    done = run_counted(*arguments)
    assert done.status == 0, done.errors
    assert done.heavy == []
    assert done.modules <= MOST_MODULES
    assert done.calls <= MOST_CALLS


@pytest.mark.parametrize(
    "module",
    [
        "det_core",
        "det_core.hooks",
        "det_core.recipe",
        "det_plugin_resnet.hooks",
        "det_plugin_fpn.hooks",
        "det_plugin_rcnn.hooks",
        "det_plugin_cascade.hooks",
        "det_plugin_htc.hooks",
        "det_plugin_retinanet.hooks",
        "det_plugin_ssd.hooks",
        "det_plugin_gn_ws_dcn.hooks",
        "det_plugin_guided_anchoring.hooks",
        "det_plugin_mobilenet.hooks",
        "det_plugin_timm.hooks",
        "det_plugin_hub.hooks",
        "det_plugin_mlflow.hooks",
        "det_plugin_wandb.hooks",
        "det_plugin_resnet",
        "det_plugin_fpn",
        "det_plugin_rcnn",
        "det_plugin_cascade",
        "det_plugin_htc",
        "det_plugin_retinanet",
        "det_plugin_ssd",
        "det_plugin_gn_ws_dcn",
        "det_plugin_guided_anchoring",
        "det_plugin_mobilenet",
        "det_plugin_timm",
        "det_plugin_hub",
        "det_plugin_mlflow",
        "det_plugin_wandb",
    ],
)
def test_module_is_light(module):
    heavy = {"torch", "numpy", "huggingface_hub", "mlflow", "wandb"}
    code = f"import sys, {module}; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_making_every_recipe_is_light():
    code = (
        "import sys\nfrom det_core.load import load_recipe\nfrom det_core.plugins import plugin_manager\n"
        "names = list(plugin_manager().recipes())\nassert len(names) >= 6, names\n"
        "for name in names: load_recipe(name)\n"
        "print(*({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_importing_the_operators_compiles_nothing(tmp_path):
    code = "import det_ops, sys; print('torch.utils.cpp_extension' in sys.modules, 'torchvision' in sys.modules)"
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []
