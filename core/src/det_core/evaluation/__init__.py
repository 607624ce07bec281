"""Metrics over the detections on a data set."""
