"""Small parts of detectron2's configurations: settings of one meaning, and norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.target import Target
from det_core.import_config.yacs_defaults import taken
from det_core.weights.mmdet_values import whole


def put_all(target: Target, root: Node, section: str, keys: Mapping[str, str], below: str) -> None:
    """Set settings that have the same meaning on both sides: detectron2's key in a section, and ours."""
    for theirs, ours in keys.items():
        key = f"{section}.{theirs}"
        target.put(f"{below}.{ours}", _same_kind(taken(root, key), target.get(f"{below}.{ours}")), root.at(key))


def put_key(target: Target, root: Node, key: str, path: str) -> None:
    """Set the value of a key, or detectron2's default."""
    target.put(path, taken(root, key), root.at(key))


def _same_kind(value: Any, ours: Any) -> Any:
    """A whole number as a float where ours is one."""
    return float(value) if isinstance(ours, float) and whole(value) is not None else value


def norm(node: Node, name: Any) -> dict[str, Any] | None:
    """The norm of a name; None, with a note, for one that is not here."""
    batch = {"type": "batch_norm", "eps": 1e-5, "momentum": 0.1, "frozen_statistics": False}
    known: dict[Any, dict[str, Any]] = {
        "FrozenBN": {"type": "frozen_batch_norm", "eps": 1e-5},
        "BN": {**batch, "synchronised": False},
        "SyncBN": {**batch, "synchronised": True},
        "naiveSyncBN": {**batch, "synchronised": True},
        "nnSyncBN": {**batch, "synchronised": True},
        "GN": {"type": "group_norm", "groups": 32, "eps": 1e-5},
    }
    if name not in known:
        node.refuse(f"norm {shown(name)} {NO_COUNTERPART}; the recipe's is kept")
    return known.get(name)


def put_norm(target: Target, root: Node, key: str, path: str) -> None:
    """The norm of a neck or head, which may have none."""
    name = taken(root, key)
    if name == "":
        target.put(path, None, root.at(key))
    elif (made := norm(root.at(key), name)) is not None:
        target.put(path, made, root.at(key))
