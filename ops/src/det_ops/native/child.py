"""A program that builds one library with torch.utils.cpp_extension.

It is a separate process because cpp_extension also loads the library that it built. This tests the library, and one
that crashes when it is loaded ends only this process. The program is run by its path and imports nothing of det_ops,
whose operators could conflict with those of the library.

    python -P child.py SPEC.json

Exit codes: 0 built; 3 compiling, linking or loading failed; 4 cpp_extension itself is not usable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

FAILED, UNUSABLE = 3, 4


def main() -> int:
    """Builds the library that the specification file on the command line describes; returns the exit code."""
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        from torch.utils import cpp_extension
    except Exception as error:  # setuptools may be missing or broken
        print(f"torch.utils.cpp_extension cannot be imported: {error}", flush=True)  # noqa: T201
        return UNUSABLE
    try:
        cpp_extension.load(**spec, verbose=True, is_python_module=False)
    except Exception as error:
        cause = f": {error.__cause__}" if isinstance(error, OSError) and error.__cause__ else ""
        print(f"{type(error).__name__}: {error}{cause}", flush=True)  # noqa: T201
        return FAILED
    return 0


def _die_with_parent(parent: int) -> None:
    """Ends the compilers if the parent is killed: ninja is in the group of this process and forwards SIGTERM."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgid(0), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
