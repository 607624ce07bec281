"""What the tests of contract checks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from det_core.testing import config_checks, contract_checks
from det_core.testing.isolated_plugins import isolated_manager


@pytest.fixture
def own_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, only the plugin `PARTS` of the test's module is there.

    Its configurations stand beside modules, in a file that imports torch, so that is not checked.
    """
    for module in (config_checks, contract_checks):
        monkeypatch.setattr(module, "check_import_light", lambda name: None)
    with isolated_manager(request.module.PARTS):
        yield
