r"""The works that the package's docstrings cite, read from its source: `"Title" (Authors, Year), https://...` after "Source:" or "Sources:".

The bibliography is made of them while the page is built, so that none can be missing.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = re.compile(r"\bSources?: (.*)", re.DOTALL)
WORK = re.compile(r'"([^"]+)"\s+\(([^()]+?)(?:,\s+[A-Z][A-Za-z]+)?,?\s+(\d{4})\)(?:(?:,\s+[A-Z]\w+)?,\s+(https?://[^\s,;]+[^\s,;.]))?')


@dataclass
class Work:
    """A work, and the modules that cite it."""

    title: str
    authors: str
    year: int
    url: str = ""
    modules: set[str] = field(default_factory=set)


def docstrings(package: Path):
    """Each docstring of the package's modules, classes and functions, on one line, with its module's name."""
    for file in sorted(package.rglob("*.py")):
        module = ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield module, " ".join(text.split())


def cited(text: str) -> list[tuple[str, str, int, str]]:
    """Title, authors, year and address (or nothing) of each work that a docstring cites."""
    found = SOURCES.search(text)
    return [(title, authors, int(year), url) for title, authors, year, url in WORK.findall(found[1])] if found else []


def collect(package: Path) -> list[Work]:
    """All works that a package cites, by authors and year. A citation without an address is one of the same title with it."""
    works: dict[str, Work] = {}
    for module, text in docstrings(package):
        for title, authors, year, url in cited(text):
            work = works.setdefault(title.lower(), Work(title, authors, year))
            work.url = work.url or url
            work.modules.add(module)
    return sorted(works.values(), key=lambda work: (work.authors, work.year, work.title))
