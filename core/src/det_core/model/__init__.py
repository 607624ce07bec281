"""Contracts of the parts, the one composing detector, layers and losses."""
