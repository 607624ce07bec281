"""Boxes: anchors, coding, overlaps, assignment, sampling. All boxes are xyxy."""
