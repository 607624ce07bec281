"""The kinds of faults that `benchmarks/faults.py` makes, a module each."""
