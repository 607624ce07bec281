"""Contract checks of configurations: frozen, the same after YAML, and in modules that import no torch."""

from __future__ import annotations

import os
import subprocess
import sys

import attrs

from det_core.config.convert import structure
from det_core.config.plain import unstructure
from det_core.config.yaml_text import parse_yaml, to_yaml
from det_core.plugins import plugin_manager
from det_core.settings import Component, fields_of


def check_config(config: Component) -> None:
    """Check that a configuration is frozen and unchanged by YAML, and that its module imports no torch or numpy.

    A part without a package (`det_core.register`) may import them: its file is loaded only where it is used.
    """
    check_round_trip(config)
    fields = [f.name for f in fields_of(type(config))]
    if fields:
        try:
            setattr(config, fields[0], getattr(config, fields[0]))
        except attrs.exceptions.FrozenInstanceError:
            pass
        else:
            raise AssertionError(f"{who(config)} can be changed; decorate it with det_core.settings.configclass")
    provider = plugin_manager().provider(type(config))
    if provider is None or provider.distribution:
        check_import_light(type(config).__module__)


def check_round_trip(config: object) -> None:
    """Check that a configuration or a recipe is the same after writing and reading YAML."""
    plain = unstructure(config)
    again = structure(parse_yaml(to_yaml(plain), "round trip"), type(config))
    assert again == config, f"{who(config)}: writing and reading YAML changes it to {again!r}"


_LIGHT: set[str] = set()


def check_import_light(module: str) -> None:
    """Check that importing a module, in a new process, imports neither torch nor numpy."""
    if module in _LIGHT:
        return
    code = f"import sys, {module}; print(*sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{module} cannot be imported on its own:\n{done.stderr}"
    heavy = done.stdout.split()
    assert not heavy, (
        f"importing {module} imports {' and '.join(heavy)}; import what needs it inside build(), and names for "
        "annotations under TYPE_CHECKING"
    )
    _LIGHT.add(module)


def who(config: object) -> str:
    """`backbone 'resnet'`, or the name of a class."""
    if isinstance(config, Component):
        return f"{config.slot} {config.type!r}"
    return type(config).__name__


def equal(config: object, what: str, found: object, expected: object) -> None:
    """Check that two values are equal. what: for the message."""
    assert found == expected, f"{who(config)}: {what} is {found}, expected {expected}"
