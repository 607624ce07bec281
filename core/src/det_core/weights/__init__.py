"""Checkpoints of other projects: reading them safely, translating their names, filling detectors, initial weights."""
