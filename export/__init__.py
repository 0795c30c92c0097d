"""Workstation stage: a finished run becomes ONNX, INT8 Q/DQ ONNX and a signed bundle."""
