"""Finds, builds and loads a library: the functions that users of this package call."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from det_ops.native import archs, builder, cache, probe, roots, settings
from det_ops.native.archs import Archs
from det_ops.native.cache import Entry
from det_ops.native.key import Snapshot, snapshot
from det_ops.native.library import NativeLibrary
from det_ops.native.outcome import CannotBuild, NativeError, Origin, Outcome, say
from det_ops.native.settings import Settings


@dataclass(frozen=True)
class _Answer:
    """The result of `load` and the library that it is for: in tests and after edits, several have the same name."""

    library: NativeLibrary
    outcome: Outcome
    required: bool


_answers: dict[str, _Answer] = {}
_loaded: dict[str, Path] = {}
_lock = threading.RLock()


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # a process forked while another thread builds must not wait for that thread
    os.register_at_fork(after_in_child=_new_lock)


def load(library: NativeLibrary) -> Outcome:
    """Loads a library: a prebuilt or cached one, else one that it builds. The result is kept for the whole process.

    Returns:
        The outcome, with the reason if the library cannot be built; see `warn_once`.

    Raises:
        NativeError: if it is not loaded and DET_OPS_NATIVE is "require".
        SettingError: for a bad environment variable.
    """
    answer = _answers.get(library.name)  # operators call this function often, so the common case takes no lock
    if answer is None or (answer.library is not library and answer.library != library):
        answer = _answer(library)
    if answer.required and not answer.outcome.loaded:
        raise NativeError(answer.outcome.error_text())
    return answer.outcome


def _answer(library: NativeLibrary) -> _Answer:
    with _lock:
        answer = _answers.get(library.name)
        if answer is not None and answer.library == library:  # another thread was faster
            return answer
        now = settings.read()
        outcome = _load(library, now)
        answer = _answers[library.name] = _Answer(library, outcome, now.native == "require")
        if now.verbose:
            say(f"{library.name}: {outcome.summary()}{_took(outcome)}")
        return answer


def build(library: NativeLibrary, force: bool = False) -> Outcome:
    """Builds a library ahead of time, without loading it into this process.

    A build that failed before is tried again. `force` also rebuilds an existing library.

    Raises:
        SettingError: for a bad environment variable.
    """
    now = dataclasses.replace(settings.read(), retry=True)
    with _lock:
        answer = _answers.get(library.name)
        if answer and not answer.outcome.loaded:
            del _answers[library.name]
        try:
            files, required = snapshot(library), archs.required(library.cuda)
            if not force and (found := cache.search(library, files, required, now).fitting):
                return Outcome(library.name, path=found[0].library, origin=found[0].origin)
            tools = probe.toolchain(library.cuda, required)
            unusable = {root / files.entry_name(library, tools.tools) for root in roots.listed(now)} if force else set()
            entry, seconds = builder.build(library, files, tools, now, frozenset(unusable))
        except CannotBuild as error:
            return _failed(library, error)
        return Outcome(library.name, path=entry.library, built_seconds=seconds, origin="build")


def peek(library: NativeLibrary) -> Outcome:
    """The outcome that `load` would have, without loading or building.

    Raises:
        SettingError: for a bad environment variable.
    """
    now = settings.read()
    answer = _answers.get(library.name)
    if answer and answer.library == library and answer.outcome.loaded:
        return answer.outcome
    if settled := _settled(library, now):
        return settled
    note = ""
    try:
        files, required = snapshot(library), archs.required(library.cuda)
        found = cache.search(library, files, required, now)
        note = found.unfit
        if found.fitting:
            entry = found.fitting[0]
            return Outcome(library.name, path=entry.library, origin=entry.origin, note=note)
        tools = probe.toolchain(library.cuda, required)
        _raise_remembered(files.entry_name(library, tools.tools), now)
    except CannotBuild as error:
        return dataclasses.replace(_failed(library, error), note=note)
    return Outcome(library.name, plan=str(tools), note=note)


def _load(library: NativeLibrary, now: Settings) -> Outcome:
    if settled := _settled(library, now):
        return settled
    try:
        files, required = snapshot(library), archs.required(library.cuda)
    except CannotBuild as error:
        return _failed(library, error)
    found = cache.search(library, files, required, now)
    for problem in found.refused:
        say(f"a built {library.name} is not loaded: {problem}; building another")
    unusable = []
    for entry in found.fitting:
        if not (problem := _open(library, entry)):
            return Outcome(library.name, True, entry.library, origin=entry.origin, note=found.unfit)
        unusable.append((entry, problem))
    notes = [found.unfit] if found.unfit else []
    notes += [f"{entry.library} does not load: {problem}" for entry, problem in unusable]
    replaced = frozenset(entry.folder for entry, _ in unusable)
    return _build_and_open(library, files, required, now, replaced, found.spare, "; ".join(notes))


def _build_and_open(
    library: NativeLibrary,
    files: Snapshot,
    required: Archs,
    now: Settings,
    unusable: frozenset[Path],
    spare: list[Entry],
    note: str,
) -> Outcome:
    """Builds and loads the library, or loads one of another compiler if that fails. `note`: why that is necessary."""
    try:
        tools = probe.toolchain(library.cuda, required)
        entry, seconds = builder.build(library, files, tools, now, unusable)
        if problem := _open(library, entry):
            remedy = "rebuild it for this machine: `python -m det_ops build --force`"
            raise CannotBuild(f"{entry.library} does not load: {problem}", remedy)
    except CannotBuild as error:
        for other in spare:
            if not _open(library, other):
                why = f"built by {other.tools.compiler}; it cannot be rebuilt here: {error}"
                return Outcome(library.name, loaded=True, path=other.library, origin="cache", note=why)
        return dataclasses.replace(_failed(library, error), note=note)
    origin: Origin = "cache" if seconds is None else "build"
    return Outcome(library.name, True, entry.library, built_seconds=seconds, origin=origin, note=note)


def _open(library: NativeLibrary, entry: Entry) -> str:
    """Loads a file; returns the problem, or an empty string."""
    try:
        torch.ops.load_library(str(entry.library))
    except (OSError, RuntimeError) as error:
        return str(error.__cause__ or error)
    _loaded[library.name] = entry.library
    return ""


def _settled(library: NativeLibrary, now: Settings) -> Outcome | None:
    """The outcome if no search is necessary: switched off, or a library of that name is loaded.

    A second copy would register its operators twice, which aborts the process.
    """
    if now.native == "off":
        reason, remedy = "switched off by DET_OPS_NATIVE=off", "unset DET_OPS_NATIVE"
        return Outcome(library.name, reason=reason, remedy=remedy, switched_off=True)
    others = (Path(p) for p in torch.ops.loaded_libraries if Path(p).stem == library.name)
    path = _loaded.get(library.name) or next(others, None)
    if path is None:
        return None
    note = "already loaded, possibly from other sources; a new process searches again"
    return Outcome(library.name, loaded=True, path=path, origin="process", note=note)


def _raise_remembered(entry_name: str, now: Settings) -> None:
    for root in roots.searchable(now):
        builder.heed_failure(root, entry_name, now.retry, time.time())


def _failed(library: NativeLibrary, error: CannotBuild) -> Outcome:
    return Outcome(library.name, reason=error.reason, remedy=error.remedy, log=error.log)


def _took(outcome: Outcome) -> str:
    return "" if outcome.built_seconds is None else f", built in {outcome.built_seconds:.1f} seconds"
