"""Typed configurations: base classes, strict conversion, overrides, JSON Schema. Imports no torch."""
