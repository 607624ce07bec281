"""What transforms with a configuration have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

Config = TypeVar("Config")


class Configured(Generic[Config]):
    """Keeps a configuration, and is shown by it."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r})"
