"""The lock read: what is pinned, at which version, with which hashes; and the same as a list of parts (CycloneDX).

python tools/lock.py OUT.cdx.json

The list follows from the lock and the project's own version alone, so that it is the same bytes whenever it is made.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*\\?")
_HASH = re.compile(r"--hash=sha256:(?P<hash>[0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """A package at one version: where it applies (a marker, "" for everywhere), and the SHA-256 of its archives."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def pins(text: str) -> list[Pin]:
    """Everything that a lock pins. Raises ValueError for a line that pins nothing, or pins without a hash."""
    found: list[Pin] = []
    for entry in _entries(text):
        head, *rest = entry
        match, hashes = _PINNED.fullmatch(head), [_HASH.fullmatch(line.rstrip(" \\")) for line in rest]
        if match is None or not hashes or None in hashes:
            raise ValueError(f"this pins nothing: {' '.join(entry)[:200]}")
        marker = match["marker"] or ""
        found.append(Pin(match["name"], match["version"], marker, tuple(h["hash"] for h in hashes if h)))
    return found


def _entries(text: str) -> list[list[str]]:
    """The lines of each requirement: the first, and those that are indented; comments are left out."""
    entries: list[list[str]] = []
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        if line[0].isspace() and entries:
            entries[-1].append(words)
        else:
            entries.append([words])
    return entries


def bill(text: str, version: str) -> dict[str, Any]:
    """The parts of a lock as CycloneDX 1.6; `version` is that of the project."""
    serial = uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(f"{version}\n{text}".encode()).hexdigest())
    own = {"type": "application", "name": "plusx", "version": version, "bom-ref": f"pkg:pypi/plusx@{version}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": own | {"licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": [_part(pin) for pin in pins(text)],
    }


def _part(pin: Pin) -> dict[str, Any]:
    """One package; its archives are many, for machines of every kind, and the bill has the hashes of all of them."""
    address = f"pkg:pypi/{re.sub(r'[-_.]+', '-', pin.name).lower()}@{pin.version}"
    told = [{"name": "marker", "value": pin.marker}] if pin.marker else []
    archives = [{"name": "archive:sha256", "value": value} for value in pin.hashes]
    return {
        "type": "library",
        "name": pin.name,
        "version": pin.version,
        "purl": address,
        "bom-ref": address if not pin.marker else f"{address}#{hashlib.sha256(pin.marker.encode()).hexdigest()[:8]}",
        "properties": told + archives,
    }


def own_version() -> str:
    """The version of this source."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "plusx" / "version.py").read_text())
    assert found is not None, "plusx/version.py says it"
    return found[1]


def main(out: str) -> int:
    """Write the bill."""
    document = json.dumps(bill(LOCK.read_text(), own_version()), indent=1) + "\n"
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(document)
    print(f"{out}: {len(pins(LOCK.read_text()))} parts")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
