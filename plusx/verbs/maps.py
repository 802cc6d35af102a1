"""Maps for the pages: what speaks for an answer, laid over the photo as the network sees it."""

from __future__ import annotations

import io
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from plusx.explain.evidence import Explains
from plusx.explain.overlay import overlay

PICTURE = 192  # px, as the photos beside them
MAPS = 2 * 12 * 13  # looks at photos: two rows of the page, by all views and windows
SECONDS = 5.0  # of a large network on a small machine the first photos have maps, and the others none


class Maps:
    """Calls give a JPEG of the map of a class over pixels uint8 [S, S, 3]; None once that has taken too long.

    The network is read and built at the first call.
    """

    def __init__(self, model: Path, device: str = "auto") -> None:
        self.model, self._device, self._left = model, device, SECONDS

    def __call__(self, pixels: npt.NDArray[np.uint8], label: int) -> bytes | None:
        """The picture of what speaks for the class at `label`."""
        if self._left <= 0:
            return None
        explainer, begun = self._explainer, time.monotonic()
        evidence = explainer.evidence(pixels[None], np.array([label]))
        self._left -= time.monotonic() - begun
        photo, file = Image.fromarray(pixels), io.BytesIO()
        overlay(photo, (0, 0, *photo.size), evidence.maps[0], PICTURE).save(file, "JPEG", quality=85)
        return file.getvalue()

    @cached_property
    def _explainer(self) -> Explains:
        from plusx.verbs.explain import Asked

        return Asked.load(self.model, "auto", self._device).explainer
