"""For tests of plugins: contract checks, tiny inputs, box formulas, a pooling layer that echoes, isolated plugins."""
