"""The definition of each operator in plain PyTorch: any device and dtype, made to be read, the oracle of the tests."""
