"""What plusx is made of: C01 the lock, C02 its floors, C03 builds that repeat, C04 no secrets, exceptions explained."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import plusx
from plusx.version import __version__

ROOT = Path(plusx.__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tool(name: str) -> ModuleType:
    """A program of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


lock = tool("lock")


def test_everything_in_the_lock_is_pinned_with_hashes() -> None:
    """C01: `pip install --require-hashes` takes nothing else."""
    found = lock.pins(LOCK)
    assert len(found) > 100
    assert all(len(set(pin.hashes)) == len(pin.hashes) >= 1 for pin in found)
    assert len({(pin.name, pin.marker) for pin in found}) == len(found)


@pytest.mark.parametrize(
    "line",
    ["torch>=2.11 \\\n    --hash=sha256:" + "0" * 64, "torch==2.11", "-e .", "--index-url x", "torch @ file:///x",
     "torch==2.11 \\\n    --hash=md5:0"],
)  # fmt: skip
def test_a_line_that_pins_nothing_would_be_found(line: str) -> None:
    """C01, the control."""
    with pytest.raises(ValueError, match="this pins nothing"):
        lock.pins(f"{LOCK}{line}\n")


def test_the_lock_names_no_address_of_an_index() -> None:
    """C01: whoever installs says where from."""
    assert not re.findall(r"https?:|file:|--index-url|--extra-index-url|--find-links|--trusted-host|@ ", LOCK)


def requirements() -> list[Requirement]:
    """Everything that the project asks for."""
    project = PROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


def test_the_lock_has_everything_that_is_asked_for_at_a_version_that_is() -> None:
    """C01, C02: and floors are alike wherever a package is asked for."""
    pinned: dict[str, list[str]] = {}
    for pin in lock.pins(LOCK):
        pinned.setdefault(pin.name.lower().replace("_", "-"), []).append(pin.version)
    floors: dict[str, set[str]] = {}
    for each in requirements():
        name = each.name.lower()
        assert all(each.specifier.contains(version) for version in pinned[name]), (each, pinned[name])
        floors.setdefault(name, set()).add(str(each.specifier))
    assert {name: found for name, found in floors.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("pillow", "13.0.0"),  # decoders of formats that are off the list of those plusx opens, and bombs in them
        ("starlette", "1.10"),  # the size of a body (413), and quadratic ranges
        ("python-multipart", "0.0.27"),  # headers and preambles without end
        ("onnx", "1.22"),  # data outside of the file, by links and by names
        ("torch", "2.12"),  # 2.11 fails in fused convolutions on some processors
    ],
)
def test_floors_are_above_what_is_known_to_be_unsafe(name: str, floor: str) -> None:
    """C02."""
    asked = [each for each in requirements() if each.name == name]
    assert asked
    for each in asked:
        lowest = min(Version(one.version) for one in each.specifier if one.operator == ">=")
        assert lowest >= Version(floor)


def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    """C03: in other folders, time zones and umasks, from files of another age; without a network."""
    first, second = tool("twice_built").twice(tmp_path)
    assert sorted(name.partition("-")[2] for name in first) == [
        f"{__version__}-py3-none-any.whl",
        f"{__version__}.tar.gz",
    ]
    assert first == second


def test_builds_that_keep_the_age_of_files_would_differ(tmp_path: Path) -> None:
    """C03, the control."""
    twice_built = tool("twice_built")
    source = twice_built.copied(tmp_path / "source", 1_000_000_000)
    text = (source / "pyproject.toml").read_text()
    (source / "pyproject.toml").write_text(f"{text}\n[tool.hatch.build]\nreproducible = false\n")
    first = twice_built.built(source, {}, 0o022, "wheel")
    os.utime(source / "plusx" / "version.py", (1_700_000_000, 1_700_000_000))
    second = twice_built.built(source, {}, 0o022, "wheel")
    assert first.keys() == second.keys()
    assert first != second


def test_the_bill_of_parts_names_every_pin_and_is_always_the_same(tmp_path: Path) -> None:
    """C03: CycloneDX."""
    for name in ("one", "two"):
        assert lock.main(str(tmp_path / name)) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = json.loads((tmp_path / "one").read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", found["serialNumber"])
    assert found["metadata"]["component"]["version"] == __version__
    assert len(found["components"]) == len(lock.pins(LOCK))
    assert len({part["bom-ref"] for part in found["components"]}) == len(found["components"])
    torch = next(part for part in found["components"] if part["name"] == "torch")
    assert torch["purl"] == f"pkg:pypi/torch@{torch['version']}"


REASONED = re.compile(r"# noqa: [A-Z0-9, ]*\bS\d+[A-Z0-9, ]*(?P<reason>.*)")


def test_every_exception_from_the_security_rules_of_the_package_has_its_reason() -> None:
    """C04: in the line, or beside it in pyproject.toml."""
    assert "S" in PROJECT["tool"]["ruff"]["lint"]["select"]
    for path in sorted((ROOT / "plusx").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if found := REASONED.search(line):
                assert len(found["reason"].strip(" -")) > 10, f"{path}:{number}"
    text = (ROOT / "pyproject.toml").read_text()
    for rule in [rule for rule in PROJECT["tool"]["ruff"]["lint"]["ignore"] if rule.startswith("S")]:
        assert re.search(rf'"{rule}"[^#\n]*# \w{{3,}}', text), f"{rule} is ignored without a reason"


SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of AWS": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
    "a token of PyPI": r"\bpypi-[A-Za-z0-9_-]{60,}",
    "a token of Hugging Face": r"\bhf_[A-Za-z0-9]{30,}",
    "a key of Google": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a token of Slack": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a name and a password in an address": r"https?://[^\s/:@<>{}\"'`]+:[^\s/:@<>{}\"'`]{3,}@",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.",
}
SCANNED = {".py", ".md", ".toml", ".lock", ".json", ".html", ".css", ".jsonl", ".sh", "", ".yaml", ".yml", ".txt"}


def secrets_in(text: str) -> list[str]:
    """What a text holds that nobody should read."""
    return [what for what, pattern in SECRETS.items() if re.search(pattern, text)]


def test_no_file_holds_a_secret() -> None:
    """C04."""
    folders = [ROOT / name for name in ("plusx", "tests", "tools", "benchmarks", "campaigns", "docs", ".ci")]
    files = [path for folder in folders if folder.is_dir() for path in folder.rglob("*")]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    read = [path for path in files if path.is_file() and path.suffix in SCANNED and path.stat().st_size < 5 << 20]
    assert len(read) > 300
    assert {str(path): found for path in read if (found := secrets_in(path.read_text(errors="replace")))} == {}


def test_secrets_would_be_found() -> None:
    """C04, the control; put together here, so that this file has none."""
    examples = [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "AKIA" + "A1" * 8,
        "ghp_" + "a1" * 18,
        "pypi-" + "Ag" * 40,
        "hf_" + "aB" * 17,
        "AIza" + "aB" * 17 + "c",
        "xoxb-" + "1234567890ab",
        "https://me:" + "secret@example.org",
        ".".join(["eyJ" + "a" * 20, "eyJ" + "b" * 20, "c"]),
    ]
    assert [secrets_in(text) for text in examples] == [[what] for what in SECRETS]
