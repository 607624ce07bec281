"""Checks and fixtures for plugin authors; `contracts` says what a part must hold, `plugins` isolates a manager."""
