"""plusx: H(x) = F(x) + x, from a folder of labelled photos to a residual network."""

__version__ = "0.1.0"
