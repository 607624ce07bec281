"""The definition of each operator in plain PyTorch, for any device and dtype; tests compare the others with it."""
