"""Parts without a package: `register`, and files that register parts or implement hooks."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import ClassVar

import pytest

import det_core.plugin_file as plugin_file
from det_core import PluginError, plugin_manager, register
from det_core.cli.main import run
from det_core.config.convert import structure
from det_core.errors import ConfigError
from det_core.plugin_file import load_plugin_file, plugin_files
from det_core.plugins import installed_plugins
from det_core.settings import configclass
from det_core.slots import LossConfig, TransformConfig
from det_core.testing.isolated_plugins import isolated_manager


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """The installed plugins in a manager of this test; modules and paths of plugin files are forgotten."""
    modules, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(plugin_file, "_loaded", {})
    with isolated_manager(*installed_plugins()) as manager:
        yield manager
    for name in set(sys.modules) - modules:
        if not name.startswith(("det_", "torch")):
            del sys.modules[name]
    sys.path[:] = path


def make(type_name: str = "mine", base: type = LossConfig) -> type:
    """A new class of this name, as a cell of a notebook that runs again makes it."""

    class MineConfig(base):
        type: ClassVar[str] = type_name

        def build(self):
            raise NotImplementedError

    return configclass(MineConfig)


def test_a_registered_part_is_found_by_its_type():
    assert register(make()) is plugin_manager().component("loss", "mine")
    assert structure({"type": "mine", "weight": 2}, LossConfig).weight == 2
    (state,) = [p for p in plugin_manager().plugins if not p.distribution]
    assert (state.name, state.provides) == ("test_plugin_file.py", {"loss": ["mine"]})
    assert "" not in plugin_manager().versions()


def test_it_is_a_decorator_and_a_cell_may_run_again():
    first, second = make(), make()
    assert register(first) is first
    assert register(second) is second
    assert plugin_manager().component("loss", "mine") is second
    assert plugin_manager().provider(first) is None


def test_a_type_of_a_plugin_is_not_replaced():
    message = rf"register: loss type 'l1' is provided by det-core {version('det-core')}; choose another"
    with pytest.raises(PluginError, match=message):
        register(make("l1"))
    assert plugin_manager().component("loss", "l1").__name__ == "L1Config"


def test_what_is_no_part_is_refused():
    class Plain(LossConfig):
        type: ClassVar[str] = "plain"

        def build(self):
            raise NotImplementedError

    @configclass
    class NoBuild(LossConfig):
        type: ClassVar[str] = "no_build"

    @configclass
    class NoType(TransformConfig):
        def build(self):
            raise NotImplementedError

    for config, why in [
        (int, "<class 'int'> is not a configuration class"),
        (Plain, "Plain is not decorated with det_core.settings.configclass"),
        (NoBuild, r"NoBuild does not define build\(\), as LossConfig requires"),
        (NoType, "NoType has no `type` name"),
    ]:
        with pytest.raises(PluginError, match=f"^register: {why}"):
            register(config)
    assert all(p.distribution for p in plugin_manager().plugins if p.provides)


REGISTERS = """
from typing import ClassVar
from det_core import register
from det_core.settings import configclass
from det_core.slots import LossConfig

@register
@configclass
class HalfConfig(LossConfig):
    type: ClassVar[str] = "half"

    def build(self):
        raise NotImplementedError
"""
HOOKS = (
    REGISTERS.replace("@register\n", "").replace("from det_core import register", "import det_core")
    + """
from det_core.hookspecs import provides
det_losses = provides(HalfConfig)
"""
)


@pytest.mark.parametrize("text", [REGISTERS, HOOKS])
def test_a_file_provides_parts(text, tmp_path):
    file = tmp_path / "my_parts.py"
    file.write_text(text)
    load_plugin_file(file)
    load_plugin_file(str(file))  # a second time, nothing happens
    assert plugin_manager().component("loss", "half").__module__ == "my_parts"
    assert plugin_files() == [str(file)]
    (state,) = [p for p in plugin_manager().plugins if not p.distribution]
    assert (state.name, state.state) == ("my_parts.py", "ok")


def test_a_file_in_the_working_folder_may_be_importable(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(REGISTERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_plugin_file("my_parts.py")
    assert plugin_manager().component("loss", "half").__module__ == "my_parts"


def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path):
    def refused(name: str, text: str | None) -> str:
        file = tmp_path / name
        if text is not None:
            file.write_text(text)
        with pytest.raises(PluginError) as error:
            load_plugin_file(file)
        return str(error.value).replace(str(tmp_path), "DIR")

    assert refused("none.py", None) == "plugin file DIR/none.py: no such file"
    assert refused("a.txt", "") == "plugin file DIR/a.txt: not a Python file (.py)"
    assert refused("json.py", "") == (
        "plugin file DIR/json.py: 'json' is the name of another module, or no name; rename the file"
    )
    assert refused("my-parts.py", "").endswith("or no name; rename the file")
    empty = (
        "plugin file DIR/empty_parts.py: provides nothing; call det_core.register(MyConfig) in it, or implement hooks"
    )
    assert refused("empty_parts.py", "x = 1\n").startswith(empty)
    assert refused("broken_parts.py", "x = 1\n\ny = 1 / 0\n") == (
        "plugin file DIR/broken_parts.py:3: ZeroDivisionError: division by zero"
    )
    assert "wrong_parts.py:2: SyntaxError: " in refused("wrong_parts.py", "x = 1\ny = = 2\n")
    assert "broken_parts" not in sys.modules
    hooks = HOOKS.replace("det_losses = provides(HalfConfig)", "det_necks = provides(HalfConfig)")
    wrong_hook = "hook_parts.py: det_necks: TypeError: returned HalfConfig of slot"
    assert refused("hook_parts.py", hooks).startswith(wrong_hook)
    assert plugin_files() == []


@pytest.mark.parametrize("arguments", [["--plugin-file", "FILE", "plugins"], ["plugins", "--plugin-file", "FILE"]])
def test_every_command_takes_plugin_files(arguments, tmp_path, capsys):
    file = tmp_path / "my_parts.py"
    file.write_text(REGISTERS)
    assert run([str(file) if a == "FILE" else a for a in arguments]) == 0
    assert "loss: half" in capsys.readouterr().out


def test_a_mistake_in_a_file_ends_a_command(tmp_path, capsys):
    assert run(["recipes", "--plugin-file", str(tmp_path / "none.py")]) == 1
    assert capsys.readouterr().err == f"error: plugin file {tmp_path}/none.py: no such file\n"


def test_a_type_without_its_file_is_unknown():
    with pytest.raises(ConfigError, match="unknown type 'half' for loss"):
        structure({"type": "half"}, LossConfig)
