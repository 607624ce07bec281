"""Training, checkpoints, evaluation and prediction, on one process or many."""
