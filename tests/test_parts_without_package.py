"""Parts registered in a file: training, resuming, testing and predicting in new processes, with `--plugin-file`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from det_core import PluginError, load_recipe, register, train
from det_core.data.sample_files import sample_folder
from det_core.plugins import installed_plugins
from det_core.settings import configclass
from det_core.slots import LossConfig
from det_core.testing.isolated_plugins import isolated_manager

PARTS = """
from typing import ClassVar

import det_core
from det_core.settings import configclass
from det_core.slots import LossConfig, OptimizerConfig


@det_core.register
@configclass
class HuberConfig(LossConfig):
    type: ClassVar[str] = "huber_of_mine"

    def build(self):
        import torch.nn.functional as F
        from det_core.contracts import Loss

        class Huber(Loss):
            def elementwise(self, predicted, target):
                return F.huber_loss(predicted, target, reduction="none")

        return Huber(self.weight)


@det_core.register
@configclass
class RMSpropConfig(OptimizerConfig):
    type: ClassVar[str] = "rmsprop"

    def build(self, groups):
        from torch.optim import RMSprop

        return RMSprop(groups, lr=self.lr)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("parts") / "parts_of_mine.py"
    made.write_text(PARTS)
    return made


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory, tiny_settings) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    own = ["detector.dense_head.box_loss={type: huber_of_mine}", "optimizer={type: rmsprop, lr: 0.0001}"]
    small = [s for s in tiny_settings if "mask_head" not in s]
    settings = [x for s in (*small, *own) for x in ("--set", s)]
    arguments = ("--recipe", "faster-rcnn/r18-fpn-demo", "--work-dir", str(run), "--max-steps", "1", *settings)
    done = subprocess.run(
        [sys.executable, "-m", "det_core", "train", "--plugin-file", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return run


def test_a_run_remembers_the_file(trained, file):
    record = json.loads((trained / "run.json").read_text())
    assert record["plugin_files"] == [str(file)]
    assert record["registered"] == {
        "loss huber_of_mine": "parts_of_mine.py",
        "optimizer rmsprop": "parts_of_mine.py",
    }


def test_it_resumes_is_tested_and_predicts_with_the_file(trained, file, run_python, tmp_path):
    given = ("--plugin-file", str(file))
    done = run_python("-m", "det_core", "train", *given, "--resume", "--work-dir", str(trained), "--max-steps", "2")
    assert "resumed at step 1" in done.stdout
    assert "stopped after step 2" in done.stdout
    done = run_python("-m", "det_core", *given, "test", "--checkpoint", str(trained), "--set", "data.workers=0")
    assert "AP50" in done.stdout
    image = next((sample_folder() / "images").iterdir())
    out = tmp_path / "found"
    run_python("-m", "det_core", "predict", *given, "--checkpoint", str(trained), str(image), "--out", str(out))
    assert list(out.rglob("*.png"))


def test_without_the_file_it_is_refused_by_name(trained, file, run_python):
    missing = (
        "it has parts that were registered without a plugin: 'loss huber_of_mine' ({0}), 'optimizer rmsprop' ({0}); "
        "give --plugin-file {0}, or call det_core.register for them first"
    )
    done = run_python("-m", "det_core", "test", "--checkpoint", str(trained), check=False)
    assert done.returncode == 1
    assert missing.format("parts_of_mine.py") in done.stderr
    done = run_python("-m", "det_core", "train", "--resume", "--work-dir", str(trained), check=False)
    assert done.returncode == 1
    assert missing.format(file) in done.stderr  # the run folder knows where it is
    assert "Traceback" not in done.stderr


@configclass
class UnknownConfig(LossConfig):
    """A loss that is registered nowhere."""

    type: ClassVar[str] = "unknown_of_mine"

    def build(self):
        raise AssertionError("is never built")


def test_a_part_that_is_not_registered_is_refused_before_training(tmp_path):
    recipe = load_recipe("faster-rcnn/r18-fpn-demo")
    head = attrs.evolve(recipe.detector.dense_head, box_loss=UnknownConfig())
    recipe = attrs.evolve(recipe, detector=attrs.evolve(recipe.detector, dense_head=head))
    with pytest.raises(PluginError) as error:
        train(recipe, work_dir=tmp_path / "run", quiet=True)
    assert str(error.value) == (
        "not registered: UnknownConfig (loss type 'unknown_of_mine'); a checkpoint of them could not be opened; call "
        "det_core.register(UnknownConfig) after the class is defined, or provide it by a plugin"
    )
    assert not (tmp_path / "run").exists()
    with isolated_manager(*installed_plugins()):
        register(UnknownConfig)
        with pytest.raises(AssertionError, match="is never built"):
            train(recipe, work_dir=tmp_path / "run", quiet=True)


PAGE = (Path(__file__).parents[1] / "docs" / "extend" / "loss.md").read_text(encoding="utf8")
CHECK = """
import pickle
import sys
from det_core.plugin_file import load_plugin_file
from det_core.plugins import plugin_manager
from det_core.testing.contract_checks import check_component

load_plugin_file(sys.argv[1])
config = plugin_manager().component("loss", "log_cosh")(sharpness=2)
check_component(config)
pickle.loads(pickle.dumps(config.build()))
print("kept")
"""


def test_the_plugin_of_the_page_is_complete_as_printed(tmp_path, run_python):
    (printed,) = [text for text in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "@register" in text]
    assert len([line for line in printed.splitlines() if line.strip()]) <= 25
    file = tmp_path / "my_parts.py"
    file.write_text(printed)
    assert run_python("-c", CHECK, str(file)).stdout == "kept\n"


SCRIPT = (
    PARTS
    + """
if __name__ == "__main__":
    print(det_core.plugin_manager().unpackaged((HuberConfig(), RMSpropConfig())))
"""
)


def test_a_script_with_a_guard_is_its_own_plugin_file(tmp_path, run_python):
    script = tmp_path / "my_script.py"
    script.write_text(SCRIPT)
    trained = run_python(str(script)).stdout
    assert trained == "{'loss huber_of_mine': 'my_script.py', 'optimizer rmsprop': 'my_script.py'}\n"
    listed = run_python("-m", "det_core", "plugins", "--plugin-file", str(script)).stdout
    assert trained not in listed
    assert "my_script.py" in listed
