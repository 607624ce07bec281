"""Every hook is documented, where it is and in docs/hooks.md, and some test uses it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from det_core import hookspecs
from det_core.cli.plugin_kinds import KINDS
from det_core.hookspecs import COMPONENT_HOOKS
from det_core.slots import SLOTS
from det_core.testing import contract_checks

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "hooks.md").read_text(encoding="utf8")
HOOKS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("det_")}
TESTS = [
    file
    for folder in ("core/tests", "tests", "plugins", "examples")
    for file in (ROOT / folder).rglob("test_*.py")
    if file != Path(__file__)
]


def test_there_are_hooks():
    assert len(HOOKS) >= 15
    assert len(TESTS) > 10


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_docstring_and_types(hook):
    spec = HOOKS[hook]
    assert spec.__doc__
    assert len(spec.__doc__.split()) > 3
    signature = inspect.signature(spec)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_in_the_document_with_its_arguments(hook):
    arguments = ", ".join(inspect.signature(HOOKS[hook]).parameters)
    assert f"`{hook}({arguments})`" in DOCUMENT if arguments else f"`{hook}`" in DOCUMENT


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_used_by_a_test(hook):
    word = re.compile(rf"\b{hook}\b")
    assert any(word.search(file.read_text(encoding="utf8")) for file in TESTS), f"no test uses {hook}"


@pytest.mark.parametrize("hook", COMPONENT_HOOKS)
def test_the_document_names_the_slots_of_a_hook(hook):
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{hook}`")]
    for slot in COMPONENT_HOOKS[hook]:
        assert f"`{slot}`" in row


def test_the_document_names_no_hook_that_is_not_there():
    documented = set(re.findall(r"\bdet_[a-z_]+\b", DOCUMENT))
    modules = {"det_core", "det_plugin_my_plugin"}
    assert documented - modules == set(HOOKS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_part_is_in_the_document_with_its_base_class_and_check(kind):
    slot = KINDS[kind].slot
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{kind}` |")]
    assert f"`{SLOTS[slot].__name__}`" in row
    assert f"`check_{slot}(config" in row
    assert callable(getattr(contract_checks, f"check_{slot}"))


def test_checks_that_the_document_names_are_there():
    for name in set(re.findall(r"`(check_[a-z_]+)", DOCUMENT)):
        assert callable(getattr(contract_checks, name)), name
