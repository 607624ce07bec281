"""Whole detectors as ONNX models and `torch.export` programs."""
