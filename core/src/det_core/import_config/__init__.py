"""Configuration files of mmdetection as recipes: what is taken over, and a list of what is not. Imports no torch."""
