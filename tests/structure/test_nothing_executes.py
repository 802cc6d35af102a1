"""M02: no program of the project loads a pickle, evaluates text or starts a shell, under any name."""

from __future__ import annotations

from pathlib import Path

import pytest

import plusx
from tests.structure.loaders import found

ROOT = Path(plusx.__file__).parents[1]
FOLDERS = ("plusx", "tools", "benchmarks", "campaigns")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
COMPUTED = {"plusx/__init__.py": "its own public names, out of a table in the same file"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path: Path) -> None:
    """M02."""
    seen = found(path.read_text())
    if str(path.relative_to(ROOT)) in COMPUTED:
        seen = [each for each in seen if not each.endswith("an import of a name that is computed")]
    assert seen == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import pickle", "pickle"),
        ("import pickle as p\np.loads(b'')", "pickle"),
        ("from pickle import loads as read", "pickle"),
        ("import importlib\nimportlib.import_module('pickle').loads(b'')", "pickle"),
        ("from importlib import import_module as get\nget('dill')", "dill"),
        ("import cloudpickle", "cloudpickle"),
        ("import marshal", "marshal"),
        ("import shelve", "shelve"),
        ("import joblib\njoblib.load('x')", "joblib"),
        ("import torch\ntorch.load('x', weights_only=True)", "torch.load"),
        ("from torch import load\nload('x')", "torch.load"),
        ("from torch import load as read\nread('x')", "torch.load"),
        ("import torch\ngetattr(torch, 'load')('x')", "torch.load"),
        ("import torch\ntorch.__dict__['load']('x')", "torch.load"),
        ("import torch\nread = torch.load\nread('x')", "torch.load"),
        ("import torch as t\nmap(t.load, ['x'])", "torch.load"),
        ("import torch\ntorch.export.load('x')", "torch.export.load"),
        ("from torch import jit\njit.load('x')", "torch.jit.load"),
        ("import torch\ntorch.hub.load('a', 'b')", "torch.hub"),
        ("import torch.hub", "torch.hub"),
        ("import timm\ntimm.models.load_checkpoint(None, 'x')", "timm.models.load_checkpoint"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle=True"),
        ("import numpy as np\nnp.load('x', allow_pickle=wanted)", "allow_pickle=True"),
        ("import numpy as np\nnp.load('x')", "numpy.load without allow_pickle=False"),
        ("from numpy import load\nload('x')", "numpy.load without allow_pickle=False"),
        ("eval('1')", "eval"),
        ("exec('1')", "exec"),
        ("compile('1', '', 'exec')", "compile"),
        ("import builtins\nbuiltins.exec('1')", "exec"),
        ("__import__('os')", "__import__"),
        ("import importlib\nimportlib.import_module(name)", "an import of a name that is computed"),
        ("import yaml\nyaml.load('x', yaml.SafeLoader)", "yaml.load"),
        ("import yaml\nyaml.unsafe_load('x')", "yaml.unsafe_load"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "shell=True"),
        ("import os\nos.system('ls')", "os.system"),
        ("from os import popen\npopen('ls')", "os.popen"),
        ("from concurrent.futures import ProcessPoolExecutor", "concurrent.futures.ProcessPoolExecutor"),
    ],
)
def test_each_of_them_would_be_found(source: str, name: str) -> None:
    """M02, the control."""
    assert name in [each.partition(": ")[2] for each in found(source)], found(source)


def test_what_only_looks_like_them_is_not() -> None:
    """M02: models are evaluated, patterns compiled and arrays loaded every day."""
    harmless = """
import re, json, numpy as np, yaml, torch, subprocess, importlib
from plusx.model_file import load
model.eval(); re.compile("x"); json.load(file); yaml.safe_load("x"); load(path); image.load()
np.load("x", mmap_mode="r", allow_pickle=False)
subprocess.run(["ls"], shell=False); importlib.import_module(f"PIL.{name}")
"""
    assert found(harmless) == []
