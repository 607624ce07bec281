"""Compiles C++ and CUDA libraries of operators just in time, caches them, and loads them.

A `NativeLibrary` describes what to build. `load` finds it prebuilt or in the cache, or builds it once per machine. If
that is impossible, the `Outcome` contains the reason and a remedy, so that callers can use another implementation.
Importing this package compiles nothing. `det_ops.native.settings` lists the environment variables.
"""

from det_ops.native.library import NativeLibrary
from det_ops.native.loader import build, load, peek
from det_ops.native.outcome import NativeError, Origin, Outcome, warn_once

__all__ = ["NativeError", "NativeLibrary", "Origin", "Outcome", "build", "load", "peek", "warn_once"]
