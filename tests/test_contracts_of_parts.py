"""The contracts of every installed norm, convolution, loss, transform, metric, optimiser and schedule, by default."""

from __future__ import annotations

import attrs
import pytest

from det_core.data.data_config import SampleConfig
from det_core.data.v2_config import V2Config
from det_core.plugins import plugin_manager
from det_core.settings import Component, fields_of
from det_core.testing import config_checks, contract_checks

SLOTS = ("norm", "conv", "loss", "transform", "evaluator", "optimizer", "learning_rate")
TURNS = ("RandomHorizontalFlip", "RandomRotation", "RandomPerspective", "RandomResizedCrop", "RandomPosterize")


def parts() -> list[Component]:
    """A part of every class of these slots, with its default settings, and some of v2's transforms."""
    manager = plugin_manager()
    classes = [manager.component(slot, name) for slot in SLOTS for name in manager.types(slot)]
    by_default = [cls() for cls in classes if all(f.default is not attrs.NOTHING for f in fields_of(cls))]
    sizes = {"RandomResizedCrop": {"size": 64}, "RandomRotation": {"degrees": 30.0}, "RandomPosterize": {"bits": 3}}
    return [*by_default, *(V2Config(name=name, **sizes.get(name, {})) for name in TURNS)]


PARTS = parts()


def name_of(part: Component) -> str:
    return f"{part.slot} {part.type} {part.name}" if isinstance(part, V2Config) else f"{part.slot} {part.type}"


@pytest.fixture(autouse=True)
def imports_are_tested_elsewhere(monkeypatch):
    """tests/test_import_light.py does, in fewer processes."""
    monkeypatch.setattr(config_checks, "check_import_light", lambda module: None)


def test_every_slot_has_parts():
    assert {part.slot for part in PARTS} == set(SLOTS)
    assert len(PARTS) > 35


@pytest.mark.parametrize("part", PARTS, ids=name_of)
def test_it_keeps_the_contract_of_its_slot(part):
    contract_checks.check_component(part)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_bundled_sample_keeps_the_contract(split):
    contract_checks.check_dataset(SampleConfig(split=split), masks=True, semantic=True, limit=4)
