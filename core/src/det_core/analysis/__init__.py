"""Where and why a detector is wrong: numbers, figures and a page, from detections and ground truth."""
