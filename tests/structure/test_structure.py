"""What keeps the code base as it is: floors, light imports, documented names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import plusx

PACKAGE = Path(plusx.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))


def loaded_after(code: str) -> set[str]:
    """The top-level modules in memory after running `code` in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import plusx",
        "import plusx.classifier, plusx.images.worker, plusx.metrics",
        "from plusx.cli.run import run; run(['--help'])",
        "from plusx.cli.run import run; run(['--version'])",
    ],
)
def test_neither_torch_nor_pydantic_is_loaded_for(code: str) -> None:
    assert not {"torch", "pydantic"} & loaded_after(code)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_public_name_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    bodies = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for body in bodies:
        for node in body.body:
            if isinstance(node, kinds) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "handler"}
    assert not vague & {path.stem for path in FILES}


def test_the_public_names_are_those_listed_and_all_of_them_load() -> None:
    assert plusx.__all__ == sorted(plusx.__all__)
    for name in plusx.__all__:
        assert getattr(plusx, name) is not None
    with pytest.raises(AttributeError, match="module 'plusx' has no attribute 'trian'"):
        _ = plusx.trian
    assert dir(plusx) == sorted(plusx.__all__)


def test_every_kind_of_error_has_the_documented_exit_code() -> None:
    from plusx import errors

    codes = {n: getattr(errors, n).exit_code for n in errors.__all__ if isinstance(getattr(errors, n), type)}
    assert codes == {
        "Error": 1,
        **{"UsageError": 2, "DataError": 3, "ModelError": 4, "DiskError": 5, "RunError": 1, "Interrupted": 75},
    }
