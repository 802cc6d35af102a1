"""Files whose pixels are known: a dependency that moves pixels fails here. Row P02 of the fault matrix.

goldens.json holds drawn pictures as files, the SHA-256 of the pixels that they give at two geometries, and the versions
which gave them. `python -m tests.images.test_golden` writes the pixels of now into it: only for a change that is meant,
which also counts `_RULES` of plusx/images/preprocess.py up where the change is plusx's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import PIL
import pytest
from PIL import features

from plusx.images.preprocess import Preprocess

GOLDENS = Path(__file__).with_name("goldens.json")
RULES = {
    "24 of 32": Preprocess(32, 24),
    "40 of 40, decoder_scale": Preprocess(40, 40, (10, 90, 200), decoder_scale=True),
}


def versions() -> dict[str, str | None]:
    """What decides pixels, beside plusx itself."""
    return {"pillow": PIL.__version__} | {name: features.version(name) for name in ("jpg", "zlib", "webp")}


def hashes(photo: bytes) -> dict[str, str]:
    """The SHA-256 of the pixels of a photo under each rule."""
    return {name: hashlib.sha256(rule.from_bytes(photo).tobytes()).hexdigest() for name, rule in RULES.items()}


def stored() -> Any:
    """What goldens.json holds."""
    return json.loads(GOLDENS.read_text())


def moved(known: dict[str, str], now: dict[str, str], made_with: dict[str, Any]) -> str:
    """What is wrong where pixels are not those that are known; empty where nothing is."""
    wrong = [rule for rule in known if known[rule] != now.get(rule)]
    if not wrong:
        return ""
    return f"other pixels under {', '.join(wrong)}: the known ones are of {made_with}, here are {versions()}"


@pytest.mark.parametrize("name", sorted(stored()["photos"]))
def test_a_known_file_gives_its_known_pixels(name: str) -> None:
    golden = stored()
    photo = golden["photos"][name]
    assert set(photo["sha256"]) == set(RULES)
    told = moved(photo["sha256"], hashes(base64.b64decode(photo["file"])), golden["made with"])
    assert not told, told


def test_every_way_to_decode_has_a_known_file() -> None:
    assert set(stored()["photos"]) >= {
        *("JPEG 4:2:0", "JPEG progressive", "JPEG CMYK", "JPEG turned", "JPEG large"),
        *("PNG 16-bit grey", "PNG palette with alpha", "WebP lossy", "GIF", "TIFF LZW", "BMP"),
    }


def test_a_pixel_that_moves_is_told_with_both_versions() -> None:
    golden = stored()
    photo = base64.b64decode(golden["photos"]["BMP"]["file"])
    changed = bytearray(photo)
    changed[-40] ^= 64
    told = moved(golden["photos"]["BMP"]["sha256"], hashes(bytes(changed)), {"pillow": "0.1"})
    assert "{'pillow': '0.1'}" in told
    assert f"'pillow': '{PIL.__version__}'" in told
    assert "40 of 40, decoder_scale" in told


if __name__ == "__main__":
    golden = stored()
    for known in golden["photos"].values():
        known["sha256"] = hashes(base64.b64decode(known["file"]))
    golden["made with"] = versions()
    GOLDENS.write_text(json.dumps(golden, indent=1) + "\n")
