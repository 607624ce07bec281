"""`det-core doctor`: checks of this machine and installation, one line each, with what to do."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from typing import Literal

import attrs
import click
from attrs import frozen

from det_core import __version__
from det_core.cli.output import print_json
from det_core.known import install_hint
from det_core.plugins import plugin_manager

EXTRAS = {
    "tensorboard": "TensorBoard events in run folders",
    "faster-coco-eval": "faster COCO metrics",
    "matplotlib": "curves of losses and metrics",
}
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@frozen
class Check:
    """One line of the report. warn: works with limits or more slowly; fail: det-core cannot work."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check versions, devices, compiler, operators, plugins and extras, and print what to do.

    Exit status 1 if something required fails.
    """
    checks = list(examine())
    if as_json:
        print_json([attrs.asdict(c) for c in checks])
    else:
        _show(checks)
    if any(c.state == "fail" for c in checks):
        ctx.exit(1)


def _show(checks: list[Check]) -> None:
    width = max(len(c.name) for c in checks)
    for check in checks:
        state = click.style(f"{check.state:<4}", fg=COLOURS[check.state])
        click.echo(f"{state}  {check.name:<{width}}  {check.found}")
        if check.remedy:
            click.echo(f"      {'':<{width}}  -> {check.remedy}")


def examine() -> Iterator[Check]:
    """All checks; an exception in a check becomes a failed check."""
    for section in (_versions, _devices, _compiler, _operators, _plugins, _extras):
        try:
            yield from section()
        except Exception as error:
            name = section.__name__.removeprefix("_")
            yield Check(name, "fail", f"the check itself failed: {type(error).__name__}: {error}", "please report this")


def _versions() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("det-core", "ok", __version__)
    yield _importable("torch", _torch_version)
    yield _importable("torchvision", lambda: str(importlib.import_module("torchvision").__version__))


def _importable(name: str, version: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", version())
    except Exception as error:  # a mismatched binary fails in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Check(
            name, "fail", f"cannot be used: {reason}", "pip install --upgrade torch torchvision (matching versions)"
        )


def _torch_version() -> str:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU"
    return f"{torch.__version__}, {built}, {torch.get_num_threads()} threads"


def _devices() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            memory = properties.total_memory / 2**30
            found = f"{properties.name}, {memory:.0f} GiB, compute capability {properties.major}.{properties.minor}"
            yield Check(f"device cuda:{i}", "ok", found)
    elif torch.backends.mps.is_available():
        yield Check("device mps", "ok", "Apple GPU; unsupported operators run on the CPU")
    else:
        remedy = "training large models requires a GPU; the demo recipes train on a CPU in minutes"
        if torch.version.cuda and shutil.which("nvidia-smi"):
            remedy = f"the driver may be too old for CUDA {torch.version.cuda}; compare `nvidia-smi`"
        yield Check("device", "warn", f"no GPU: {os.cpu_count()} CPU cores", remedy)


def _compiler() -> Iterator[Check]:
    from det_ops.native import probe
    from det_ops.native.outcome import CannotBuild

    why = (
        "only needed to build native operators; det-ops-kernels has them prebuilt, torchvision and PyTorch slower ones"
    )
    for name, find in (("C++ compiler", probe.describe_compiler), ("ninja", probe.find_ninja)):
        try:
            yield Check(name, "ok", str(find()))
        except CannotBuild as error:
            yield Check(name, "warn", error.reason, f"{error.remedy} ({why})")


def _operators() -> Iterator[Check]:
    import torch

    import det_ops
    from det_ops import libraries, native
    from det_ops.native import settings

    known = {"native operators": libraries.CPU}
    if settings.cuda_enabled():
        known["native CUDA operators"] = libraries.CUDA
    for name, library in known.items():
        outcome = native.peek(library)
        yield Check(name, "warn" if outcome.reason else "ok", outcome.summary(), outcome.remedy)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        served: dict[tuple[str, str], list[str]] = {}
        for op in det_ops.status(device):
            served.setdefault((op.served_by, op.remedy), []).append(op.name)
        for (by, remedy), names in served.items():
            slow = bool(remedy) and not by.startswith("native")
            yield Check(f"on {device} by {by}", "warn" if slow else "ok", ", ".join(names), remedy if slow else "")


def _plugins() -> Iterator[Check]:
    manager = plugin_manager()
    for plugin in manager.plugins:
        name = f"plugin {plugin.name}"
        for error in plugin.errors:
            remedy = f"see `det-core --debug plugins`; reinstall with {install_hint(plugin.distribution)}"
            yield Check(name, "fail" if plugin.name == "core" else "warn", f"{plugin.label}: {error}", remedy)
        if not plugin.errors:
            off = " (off: DET_PLUGINS)" if plugin.state == "off" else ""
            yield Check(name, "ok", f"{plugin.label}{off}")
    for warning in manager.warnings():
        yield Check("DET_PLUGINS", "warn", warning, "correct it, or unset it")
    if [p.name for p in manager.plugins] == ["core"]:
        remedy = install_hint("det-plugin-rcnn")
        yield Check("plugins", "warn", "only core is installed, so there is no model", remedy)


def _extras() -> Iterator[Check]:
    for distribution, purpose in EXTRAS.items():
        version = _version(distribution)
        if version:
            yield Check(f"extra {distribution}", "ok", f"{version}: {purpose}")
        else:
            yield Check(f"extra {distribution}", "warn", f"not installed: {purpose}", f"pip install {distribution}")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
