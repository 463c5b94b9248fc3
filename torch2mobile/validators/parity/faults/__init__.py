"""The catalogue of faults: small conversion bugs, put into an ONNX graph."""
