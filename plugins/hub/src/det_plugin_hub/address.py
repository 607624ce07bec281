"""Addresses of checkpoints on the Hub: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`."""

from __future__ import annotations

import re

from attrs import frozen

from det_plugin_hub.hub_errors import HubError

SCHEME = "hf://"
_NAME = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REPOSITORY = re.compile(f"{_NAME}/{_NAME}", re.ASCII)


@frozen
class HubAddress:
    """A repository on the Hub. revision: a branch, a tag or a commit; None: the main branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: str) -> HubAddress:
        """The address `hf://OWNER/NAME[@REVISION]`; HubError if it is none."""
        repository, at, revision = address.removeprefix(SCHEME).partition("@")
        if not address.startswith(SCHEME) or (at and not revision):
            raise HubError(f"{address}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
        return cls(check_repository(repository, address), revision or None)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def check_repository(repository: str, shown: str = "") -> str:
    """The name of a repository, `OWNER/NAME`; HubError if it is none. shown: what the message begins with."""
    if not _REPOSITORY.fullmatch(repository) or "--" in repository or ".." in repository:
        raise HubError(
            f"{shown or repository}: {repository!r} is not the name of a repository; expected OWNER/NAME, of letters, "
            "digits and single '-', '_', '.'"
        )
    return repository
