"""What can be wrong with weights."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.config.base import DetError


class WeightsError(DetError, ValueError):
    """Weights do not fit, or cannot be read."""


def listing(title: str, problems: Sequence[str], limit: int = 20) -> str:
    """A title with the count of problems, and the first of them."""
    more = [f"  ... and {len(problems) - limit} more"] if len(problems) > limit else []
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    return "\n".join([f"{title}: {count}", *(f"  {p}" for p in problems[:limit]), *more])
