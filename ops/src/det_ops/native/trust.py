"""Whether another user could have written a file: loading a library runs its code."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def distrust(path: Path) -> str:
    """Why a file or folder is not trusted, with the path that is at fault; empty if it is trusted.

    It, and every folder above it, must belong to this user or to root, and must not be writable by others, except
    folders with the sticky bit (such as /tmp), in which only the owner can replace a file. Symbolic links are followed.
    """
    if sys.platform == "win32":
        return ""  # permission bits say nothing there
    try:
        real = path.resolve(strict=True)
        return next((problem for part in (real, *real.parents) if (problem := _problem(part, part != real))), "")
    except (OSError, RuntimeError) as error:
        return f"{path} cannot be checked ({error})"


def _problem(path: Path, above: bool) -> str:
    found = path.stat()
    if found.st_uid not in (0, os.getuid()):
        return f"{path} belongs to user {found.st_uid}, not to you"
    mode = stat.S_IMODE(found.st_mode)
    if above and mode & stat.S_ISVTX:
        return ""
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _private_group(found.st_gid)):
        return f"{path} can be written by other users (mode {mode:04o})"
    return ""


def _private_group(group: int) -> bool:
    """Whether only this user is in the group: some systems give each user one, and let it write by default."""
    import grp
    import pwd

    try:
        user, found = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:  # a container without names
        return False
    return user.pw_gid == group and user.pw_name == found.gr_name and set(found.gr_mem) <= {user.pw_name}
