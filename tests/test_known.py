"""`det_core/known.json` holds what the plugins of this repository provide."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from det_core.plugins import plugin_manager

ROOT = Path(__file__).resolve().parents[1]


def test_what_core_says_of_this_projects_plugins_is_true():
    """`known.json` is what its script makes of the plugins' hooks: run `python core/make_known.py` after a change."""
    path = ROOT / "core/make_known.py"
    script = importlib.util.module_from_spec(importlib.util.spec_from_file_location("make_known", path))
    script.__spec__.loader.exec_module(script)
    assert json.loads(script.FILE.read_text(encoding="utf8")) == script.known(plugin_manager())
