"""Promises about the source: what is imported when, and what is never written."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import genmatch as gm

PACKAGE = Path(gm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_imports_no_torch():
    heavy = "{'torch', 'numpy', 'scipy', 'torchdiffeq', 'matplotlib', 'rich', 'click'}"
    assert run(f"import sys, genmatch; print(sorted(set(sys.modules) & {heavy}))") == "[]"


def test_naming_a_function_imports_what_it_needs():
    assert run("import sys, genmatch; genmatch.Flow; print('torch' in sys.modules)") == "True"


def test_listing_names_imports_no_torch():
    code = (
        "import sys\nfrom genmatch import registry\nfor r in (registry.solvers, registry.processes, registry.data): r.describe()\nprint('torch' in sys.modules)"
    )
    assert run(code) == "False"


@pytest.mark.parametrize("name", gm.__all__)
def test_every_public_name_resolves(name):
    assert getattr(gm, name) is not None
    assert name in dir(gm)


def test_the_public_names_are_sorted_and_once():
    assert gm.__all__ == sorted(set(gm.__all__))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = gm.nothing


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_source_keeps_its_promises(path):
    # A loop may ask whether it was given a process at all, not which one.
    allowed = ("type", "MarkovProcess")
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module says what it is"
    inside = path.is_relative_to(PACKAGE / "processes")
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: errors are GenmatchError"
        kind = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        about_process = kind and any(isinstance(part, ast.Name | ast.Attribute) and "process" in ast.unparse(part) for part in ast.walk(node.args[0]))
        assert inside or not about_process or ast.unparse(node.args[1]).endswith(allowed), f"line {node.lineno}: no branch on the kind of process"
    assert len(path.read_text().splitlines()) < 500


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_pickled(path):
    """A file that is loaded must not be able to run code."""
    modules = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    unsafe = {"torch.load", "torch.save", "torch.jit.load", "torch.package", "dist.broadcast_object_list", "dist.all_gather_object", "np.load"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & modules
        assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in unsafe), f"line {node.lineno}: {ast.unparse(node)}"
