"""`download`: a public data set into a new folder, the only verb that uses the network."""

from __future__ import annotations

from plusx.data.download import download

__all__ = ["download"]
