"""Fine-tuning on other classes: the weights of classes that both class lists name are kept.

Letters: K foreground classes, A anchors per location, p values per class, b = 1 with a background class, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from attrs import frozen
from torch import Tensor

from det_core.contracts import DenseHead, Head
from det_core.model.detector import Detector
from det_core.structures import Classes

VALUES = (1, 4)  # p: a score or a mask, or the four deltas of a box


@frozen
class SharedClasses:
    """Labels of the classes that two lists name, in pairs (before, now), and the lengths of the lists."""

    pairs: tuple[tuple[int, int], ...]
    before: int
    now: int

    @classmethod
    def of(cls, before: Classes, now: Classes) -> SharedClasses:
        """Classes of the same name. Names that det made up for a file without any (`class 3`) are not compared."""
        places = {name: label for label, name in enumerate(before.names) if not name.startswith("class ")}
        pairs = tuple((places[name], label) for label, name in enumerate(now.names) if name in places)
        return cls(pairs, len(before), len(now))


def with_shared_rows(detector: Detector, values: Mapping[str, Tensor], shared: SharedClasses) -> dict[str, Tensor]:
    """The class-dependent weights of a detector, with the rows of shared classes and of the background from `values`.

    Weights (n, ...) of a checkpoint become weights (m, ...) of the detector, by their names. Weights whose rows do not
    follow the order of `Head.class_dependent` are left out.
    """
    ours, made = detector.state_dict(), {}
    for name, dense in _class_dependent(detector):
        if name not in values:
            continue
        rows = (_rows_of_dense_head if dense else _rows_by_class)(len(values[name]), len(ours[name]), shared)
        if rows is not None and values[name].shape[1:] == ours[name].shape[1:]:
            value = ours[name].clone()
            value[rows[1]] = values[name][rows[0]].to(value)
            made[name] = value
    return made


def _class_dependent(detector: Detector) -> Iterator[tuple[str, bool]]:
    """Names of class-dependent weights, and whether a dense head has them."""
    names = list(detector.state_dict())
    for prefix, head in detector.named_modules():
        if isinstance(head, Head):
            for layer in head.class_dependent():
                begin = f"{prefix}.{layer}.".removeprefix(".")
                yield from ((name, isinstance(head, DenseHead)) for name in names if name.startswith(begin))


def _rows_by_class(before: int, now: int, shared: SharedClasses) -> tuple[Tensor, Tensor] | None:
    """Rows (before, now) of p values per class, class by class, the background last."""
    for values in VALUES:
        background = before - values * shared.before
        if background in ((0, 1) if values == 1 else (0,)) and now - values * shared.now == background:
            olds, news = _labels(shared, background)
            within = torch.arange(values)
            return (olds[:, None] * values + within).flatten(), (news[:, None] * values + within).flatten()
    return None


def _rows_of_dense_head(before: int, now: int, shared: SharedClasses) -> tuple[Tensor, Tensor] | None:
    """Rows (before, now) of A anchors, each with the scores of all classes, the background last."""
    for background in (0, 1):
        anchors, rest = divmod(before, shared.before + background)
        if rest == 0 and anchors * (shared.now + background) == now:
            olds, news = _labels(shared, background)
            at = torch.arange(anchors)[:, None]
            from_rows, to_rows = at * (shared.before + background) + olds, at * (shared.now + background) + news
            return from_rows.flatten(), to_rows.flatten()
    return None


def _labels(shared: SharedClasses, background: int) -> tuple[Tensor, Tensor]:
    """The labels (before, now) of shared classes, and of the background if there is one."""
    pairs = [*shared.pairs, *([(shared.before, shared.now)] if background else [])]
    olds, news = zip(*pairs, strict=True) if pairs else ((), ())
    return torch.tensor(olds, dtype=torch.int64), torch.tensor(news, dtype=torch.int64)
