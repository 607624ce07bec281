"""Builds C++/CUDA libraries of operators just in time, keeps them, and loads them.

A `NativeLibrary` says what to build; `load` finds it prebuilt or in the cache, or else builds it, once per machine.
Where that is impossible, an `Outcome` says why and what to do, so that another implementation can serve. Importing
this package compiles nothing; `det_ops.native.settings` lists the environment variables.
"""

from det_ops.native.library import NativeLibrary
from det_ops.native.loader import build, load, peek
from det_ops.native.outcome import NativeError, Outcome, warn_once

__all__ = ["NativeError", "NativeLibrary", "Outcome", "build", "load", "peek", "warn_once"]
