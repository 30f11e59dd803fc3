"""Every public name is in the reference, and says what it takes, returns and raises."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import genmatch as gm

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "genmatch"
REFERENCE = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md")))
DOCUMENTED = re.findall(r"automodule:: (\S+)$(?!\n +:no-members:)", REFERENCE, re.MULTILINE)
SINGLE = set(re.findall(r"auto(?:class|function):: (\S+)$", REFERENCE, re.MULTILINE))
INSIDE = {
    "genmatch.__main__": "the command line, of which docs/cli.md shows the help",
    "genmatch.cli": "the command line, of which docs/cli.md shows the help",
    **{f"genmatch.checks.{name}": "checks, which docs/api/checks.md lists" for name in ("contract", "ending", "forward", "learning", "paths", "simulation")},
}
"""Modules that are no part of the reference, with the reason."""


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), file


def public(tree):
    """The public classes and functions that a module defines."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")]


def shown():
    """The home of each name that the reference describes because a package exports it."""
    for name in DOCUMENTED:
        module = importlib.import_module(name)
        for exported in getattr(module, "__all__", ()):
            value = getattr(module, exported)
            yield getattr(value, "__module__", None), getattr(value, "__name__", None)


def test_no_module_is_described_twice():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def test_every_public_name_is_in_the_reference():
    exported = set(shown())
    missing = [
        f"{module}.{node.name}"
        for module, file in modules()
        if module not in (*DOCUMENTED, *INSIDE)
        for node in public(ast.parse(file.read_text()))
        if (module, node.name) not in exported and f"{module}.{node.name}" not in SINGLE
    ]
    assert not missing, missing


def test_every_name_of_the_package_has_a_docstring():
    assert [name for name in gm.__all__ if not (getattr(gm, name).__doc__ or "").strip()] == []


def test_the_exceptions_exist():
    assert set(INSIDE) <= {module for module, _ in modules()}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_is_documented_exists(name):
    assert importlib.import_module(name).__doc__
