"""What a run shows and leaves to look at: terminal, metrics, curves, pictures."""
