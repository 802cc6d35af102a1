"""Print how long the functions of a package are, docstrings excluded; fail where one is over the ceiling.

python tools/function_lengths.py plusx
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

MEDIAN, NINETIETH, LONGEST, FILE = 10, 30, 60, 400


def function_lengths(path: Path) -> list[tuple[int, str]]:
    """(lines, place) of every function in one file."""
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(body_lines(f), f"{path}:{f.lineno} {f.name}") for f in functions]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body
    has_docstring = ast.get_docstring(function, clean=False) is not None
    body = body[1:] if has_docstring else body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 1


def main(root: str) -> int:
    """Print the figures; 1 where one of them is over its target."""
    files = sorted(Path(root).rglob("*.py"))
    lengths = sorted(pair for path in files for pair in function_lengths(path))
    lines = [n for n, _ in lengths]
    median, ninetieth = statistics.median(lines), lines[int(0.9 * (len(lines) - 1))]
    print(f"{len(lines)} functions: median {median:.0f} lines, 90 % at most {ninetieth}, longest {lines[-1]}")
    print("longest: " + ", ".join(f"{place} ({n})" for n, place in reversed(lengths[-3:])))
    longest_file = max(files, key=lambda p: len(p.read_text().splitlines()))
    size = len(longest_file.read_text().splitlines())
    print(f"longest file: {longest_file} ({size} lines)")
    return int(median > MEDIAN or ninetieth > NINETIETH or lines[-1] > LONGEST or size > FILE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
