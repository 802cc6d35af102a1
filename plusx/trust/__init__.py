"""Answers one can trust: arrays in, numbers out. Calibration, risk, novelty, label errors."""
