"""Where heads are in a recipe, and `train_cfg` and `test_cfg` in a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from det_core.import_config.ledger import Node

DENSE, ROI = "detector.dense_head", "detector.roi_head"


def phase(root: Node, name: str) -> Node:
    """`train_cfg` or `test_cfg` of the model. In 3.x the top-level ones are loops."""
    inner, outer = root.at(f"model.{name}"), root.at(name)
    if inner.given or not outer.given or outer.value is None or _is_loop(outer):
        return inner
    return outer


def _is_loop(node: Node) -> bool:
    """Whether a `train_cfg` is the loop of 3.x."""
    return isinstance(node.value, Mapping) and any(key in node.value for key in ("type", "max_epochs", "by_epoch"))
