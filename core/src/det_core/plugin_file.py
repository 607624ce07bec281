"""Plugins that are a single Python file: `det-core --plugin-file my_parts.py`.

The file calls `det_core.register` for its parts, or implements hooks as the module of a plugin does.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from det_core.errors import PluginError, no_such
from det_core.plugins import plugin_manager

_loaded: dict[Path, str] = {}  # names of the modules by file


def load_plugin_file(file: str | Path) -> None:
    """Run a Python file, and make the parts that it registers or that its hooks return available.

    The module has the name of the file, and the file's folder becomes importable, so that loader processes find it. A
    file that is loaded already is not run again.

    Raises:
        PluginError: if it does not exist, cannot be run (with its line), provides nothing, or has the name of another
            module.
    """
    path = Path(file).resolve()
    if path in _loaded:
        return
    if not path.is_file() or path.suffix != ".py":
        what = "not a Python file (.py)" if path.exists() else "no such file"
        raise PluginError(f"plugin file {no_such(file, what)}")
    name = path.stem
    if not name.isidentifier() or _is_another(name, path):
        raise PluginError(f"plugin file {file}: {name!r} is the name of another module, or no name; rename the file")
    manager = plugin_manager()
    before = {state.name for state in manager.plugins if not state.distribution}
    module = _run(path, name)
    if any(manager.pluggy.parse_hookimpl_opts(module, member) for member in vars(module)):
        manager.add_plugin(module, path.name)
    elif path.name not in {state.name for state in manager.plugins if not state.distribution} - before:
        raise PluginError(
            f"plugin file {file}: provides nothing; call det_core.register(MyConfig) in it, or implement hooks "
            "(docs/hooks.md)"
        )
    sys.path.append(str(path.parent))
    _loaded[path] = name


def plugin_files() -> list[str]:
    """The files that were loaded, as absolute paths."""
    return [str(path) for path in _loaded]


def _is_another(name: str, path: Path) -> bool:
    """Whether a module of this name is loaded, or would be found elsewhere."""
    if name in sys.modules:
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path)


def _run(path: Path, name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # of a .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else f"{path}:{getattr(error, 'lineno', 1)}"
        raise PluginError(f"plugin file {where}: {type(error).__name__}: {error}") from error
    return module
