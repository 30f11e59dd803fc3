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
    **dict.fromkeys(
        ("genmatch.cli", *(f"genmatch.cli.{file.stem}" for file in sorted((PACKAGE / "cli").glob("[a-z]*.py")))),
        "the command line, of which docs/cli.md shows the help",
    ),
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


def names_of_arguments():
    """The arguments that the glossary explains once for all."""
    section = (ROOT / "docs" / "glossary.md").read_text().split("## Arguments")[1]
    return {name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


SHARED = names_of_arguments()
PARTS = {*re.findall(r"automodule:: (\S+)$", (ROOT / "docs" / "api" / "inside.md").read_text(), re.MULTILINE), *INSIDE}
"""Modules that the layers are made of: what their functions raise is told by what calls them."""


def arguments(function):
    given = function.args
    return [argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs] if argument.arg not in ("self", "cls")]


def explained(text):
    """The names of which a docstring speaks before its examples: in an entry of Args, or in a sentence."""
    return set(re.findall(r"\w+", re.split(r"^Examples?:", text, flags=re.MULTILINE)[0]))


def described():
    """Each public function, method and constructor of the reference: module, name, node, its docstring, and whether it may rest on an interface."""
    for module, file in modules():
        if module not in PARTS:
            for node in public(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef):
                    yield module, node.name, node, ast.get_docstring(node) or "", False
                    continue
                for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
                    if method.name == "__init__":
                        yield module, node.name, method, ast.get_docstring(node) or "", False
                    elif not method.name.startswith("_"):
                        yield module, f"{node.name}.{method.name}", method, ast.get_docstring(method) or "", True


def says_what_is_raised(text):
    return "Raises:" in text or re.search(r"raises `\w*(Error|Unfinished)`", text, re.IGNORECASE) is not None


def interfaces():
    """Of each method's name, the names that any docstring of such a method explains: an overriding method is described by the one it overrides."""
    known = {}
    for _, file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
                    if text := ast.get_docstring(method):
                        known.setdefault(method.name, set()).update(explained(text), {"Raises"} if says_what_is_raised(text) else set())
    return known


def test_every_argument_is_explained():
    """By its own entry, by the interface, by the glossary; a single argument by the sentence that says what is returned."""
    known, missing = interfaces(), []
    for module, name, node, text, is_method in described():
        if is_method and not text and node.name in known:
            continue
        rest = set(arguments(node)) - explained(text) - SHARED - (known.get(node.name, set()) if is_method else set())
        if rest and not (len(arguments(node)) == 1 and text and node.name != "__init__"):
            missing.append((f"{module}.{name}", sorted(rest)))
    assert not missing, missing


def raises(node):
    """Whether a function raises by itself; a check that skips raises nothing to its caller."""
    found = [ast.unparse(part.exc) for part in ast.walk(node) if isinstance(part, ast.Raise) and part.exc]
    return any(not error.startswith("Skip") for error in found)


def test_what_is_raised_is_said():
    known = interfaces()
    missing = [
        f"{module}.{name}"
        for module, name, node, text, is_method in described()
        if raises(node) and not says_what_is_raised(text) and not (is_method and ("Raises" in known.get(node.name, set()) or "Optional" in text))
    ]
    assert not missing, missing


def test_the_rules_find_what_is_missing():
    node = ast.parse("def f(x, strange):\n    raise ValueError()").body[0]
    assert set(arguments(node)) - SHARED == {"strange"}
    assert raises(node)
    assert not raises(ast.parse("def f():\n    raise Skip('no density')").body[0])
    assert {"x", "more", "strange"} <= explained("Does it.\n\nArgs:\n    x: states.\n    **more: rest. `strange` too.")
    assert "hidden" not in explained("Does it.\n\nExample:\n    >>> f(hidden=1)")
    assert says_what_is_raised("Returns it, or raises `GenmatchError` if it is none.")
    assert not says_what_is_raised("Raises the roof.")
