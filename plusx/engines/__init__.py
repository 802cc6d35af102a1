"""Engines: uint8 pixels in, probabilities out. One per file format of a model."""
