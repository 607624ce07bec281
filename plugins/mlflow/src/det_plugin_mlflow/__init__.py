"""Training runs of det in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_mlflow.tracked_run import (
        TrackedRun as TrackedRun,
        log_analysis as log_analysis,
    )

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(__name__, {"tracked_run": "TrackedRun log_analysis"})
