"""Every work that a docstring cites is in the bibliography, which is made of the docstrings."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "genmatch"
NO_WORK = {"https://github.com/mborsetti/airportsdata", "https://github.com/karpathy/char-rnn"}
"""Addresses of data sets, which the page names by hand."""


@pytest.fixture(scope="module")
def bibliography():
    spec = importlib.util.spec_from_file_location("bibliography", ROOT / "docs" / "_ext" / "bibliography.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bibliography"] = module
    spec.loader.exec_module(module)
    return module


def test_every_address_in_a_docstring_is_that_of_a_work(bibliography):
    known = {work.url for work in bibliography.collect(PACKAGE)} | NO_WORK
    missing = [
        (module, url)
        for module, text in bibliography.docstrings(PACKAGE)
        for url in re.findall(r"https?://[^\s,;)`\"]*[\w/]", text)
        if url not in known and re.search(r"\bSources?: ", text)
    ]
    assert not missing, missing


def test_every_source_names_a_work(bibliography):
    for module, text in bibliography.docstrings(PACKAGE):
        if re.search(r"\bSources?: ", text) and not any(url in text for url in NO_WORK):
            assert bibliography.cited(text), f"{module}: no work is found in {bibliography.SOURCES.search(text)[1][:100]!r}"


def test_a_citation_is_read_in_every_form(bibliography):
    text = 'Sources: "One" (A et al., ICLR 2025), https://arxiv.org/abs/1, eq. 2; "Two" (B & C, 1998), UCI, https://doi.org/3/X, as it is; "Three" (D, 1993).'
    assert bibliography.cited(text) == [
        ("One", "A et al.", 2025, "https://arxiv.org/abs/1"),
        ("Two", "B & C", 1998, "https://doi.org/3/X"),
        ("Three", "D", 1993, ""),
    ]
    assert bibliography.cited('It cites "One" (A, 2025) in passing.') == []


def test_the_bibliography_has_the_works_that_the_recipe_is_made_of(bibliography):
    titles = {work.title for work in bibliography.collect(PACKAGE)}
    assert {"Generator Matching", "Discrete Flow Matching", "Flow Matching for Generative Modeling"} <= titles
