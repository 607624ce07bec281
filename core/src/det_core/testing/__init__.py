"""Helpers for tests of plugins: contract checks, tiny inputs and data, box formulas, an echo pool, isolated plugins."""
