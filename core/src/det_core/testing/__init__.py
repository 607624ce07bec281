"""Helpers for tests of plugins: contract checks, tiny inputs, box formulas, an echo pooling layer, isolated plugins."""
