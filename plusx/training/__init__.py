"""The training loop: one step, its optimizer and schedule, averaging, checkpoints and interruption.

Takes a model, a source of batches and a validation callable; knows neither networks nor photos.
"""
