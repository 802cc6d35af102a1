"""Finds in a syntax tree what would run somebody's data as a program, under whatever name it was imported."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

MODULES = {  # nothing of these is used
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code", "pty"),
    *("torch.hub", "torch.package", "torch.utils.model_zoo", "multiprocessing.connection"),
}
NAMES = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.posix_spawn"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
    *("torch.load", "torch.jit.load", "torch.export.load", "torch.serialization.load"),
    *("timm.load_checkpoint", "timm.models.load_checkpoint", "timm.models.load_state_dict"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader"),
    *("pandas.read_pickle", "numpy.core.multiarray.scalar"),
    "concurrent.futures.ProcessPoolExecutor",  # its processes talk in pickles
}
LOADS_ARRAYS = {"numpy.load", "numpy.lib.format.read_array"}
IMPORTS = {"importlib.import_module", "importlib.__import__"}


def found(source: str) -> list[str]:
    """What is forbidden in a program, by its full name; in the order of the text, each with its line."""
    tree = ast.parse(source)
    known = _aliases(tree)
    seen = [*_imports(tree), *_uses(tree, known), *_calls(tree, known)]
    return [f"{line}: {name}" for line, name in sorted(set(seen))]


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What names in this file stand for: imports, and names for parts of them."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            full = _full(node.value, known)
            if full is not None and full != node.targets[0].id:
                known[node.targets[0].id] = full
    return known


def _full(node: ast.AST, known: dict[str, str]) -> str | None:
    """The full name of an expression, also through getattr, __dict__ and import_module; None of what is local."""
    match node:
        case ast.Name(id=name):
            return known.get(name, name if hasattr(builtins, name) else None)
        case ast.Attribute(value=value, attr=name):
            within = _full(value, known)
            return None if within is None else f"{within}.{name}".removeprefix("builtins.")
        case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]):
            within = _full(value, known)
            return None if within is None else f"{within}.{name}".removeprefix("builtins.")
        case ast.Subscript(value=ast.Attribute(value=value, attr="__dict__"), slice=ast.Constant(value=str(name))):
            within = _full(value, known)
            return None if within is None else f"{within}.{name}"
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if _full(function, known) in IMPORTS:
            return name
    return None


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if _is_within(a.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            yield from ((node.lineno, name) for name in names if _is_within(name) or name in NAMES)


def _uses(tree: ast.AST, known: dict[str, str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            full = _full(node, known)
            if full is not None and (full in NAMES or _is_within(full)):
                yield node.lineno, _normal(full)


def _calls(tree: ast.AST, known: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Calls that are harmless with the right arguments alone."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: k.value for k in node.keywords}
        if "shell" in given and not _is_false(given["shell"]):
            yield node.lineno, "shell=True"
        if "allow_pickle" in given and not _is_false(given["allow_pickle"]):
            yield node.lineno, "allow_pickle=True"
        if _full(node.func, known) in LOADS_ARRAYS and "allow_pickle" not in given:
            yield node.lineno, "numpy.load without allow_pickle=False"
        if _full(node.func, known) in IMPORTS and not _is_plain(node.args):
            yield node.lineno, "an import of a name that is computed"


def _is_within(name: str) -> bool:
    """Whether a name is that of a forbidden module, or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in MODULES)


def _normal(name: str) -> str:
    return next((module for module in sorted(MODULES) if name.startswith(f"{module}.")), name)


def _is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _is_plain(arguments: list[ast.expr]) -> bool:
    """Whether what is imported begins with a name that stands in the text."""
    first = arguments[0] if arguments else None
    if isinstance(first, ast.JoinedStr) and first.values:
        first = first.values[0]
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value != ""
