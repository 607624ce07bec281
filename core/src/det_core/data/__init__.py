"""Data sets, transforms and loaders: from annotation files to what a detector takes."""
