"""Pickles with tuples in tuples in tuples: Python crashes when it hashes one that is nested a million times.

No file needs more than a few levels. The depth is computed from the instructions of a pickle, which is not unpickled.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO

MAX_NESTED = 100
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_MARK = -1  # on the stack of depths


def nested_too_deep(file: BinaryIO, pickles: int = 1) -> bool:
    """Whether one of the next pickles in a file has tuples nested more than `MAX_NESTED` times.

    A damaged pickle is looked at as far as it can be read; readers report the damage.
    """
    try:
        return any(_depth(file) > MAX_NESTED for _ in range(pickles))
    except Exception:  # a damaged pickle can fail in any way
        return False


def _depth(file: BinaryIO) -> int:
    """How deep tuples are nested in the next pickle; more than `MAX_NESTED` ends the search."""
    stack: list[int] = []  # the depth of each value
    memo: dict[Any, int] = {}
    deepest = 0
    for instruction, value, _ in pickletools.genops(file):
        name = instruction.name
        if name == "MARK":
            stack.append(_MARK)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("PUT"):
            memo[value] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[value])
        else:
            inner = _pop(stack, instruction)
            made = max([*inner, 0]) + 1 if name in _TUPLES else max(inner, default=0) if name == "DUP" else 0
            stack += [made] * len(instruction.stack_after)
            deepest = max(deepest, made)
            if deepest > MAX_NESTED:
                break
    return deepest


def _pop(stack: list[int], instruction: pickletools.OpcodeInfo) -> list[int]:
    """Remove what an instruction takes from the stack, down to the last mark if it takes all above it."""
    wanted = instruction.stack_before
    count = len(wanted)
    if pickletools.markobject in wanted:
        above = 0
        while stack[-1 - above] != _MARK:
            above += 1
        count = above + 1 + wanted.index(pickletools.markobject)
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken
