"""The questions that users ask are answered within two clicks of the first page, and no link inside the documentation is dead."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
LINK = re.compile(r"\[[^\[\]]*\]\(([^)\s]+\.md)?(#[^)\s]+)?\)")
MUST = (
    "Which solver for masked text at 16 calls?",
    "How do I write my own rate?",
    "Why is my uniform ELBO higher than published?",
    "How do I resume on 2 GPUs?",
)


def without_code(text):
    return re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, named as GitHub names them, which is what `myst_heading_anchors` does."""
    headings = re.findall(r"^#{1,3} (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).strip().replace(" ", "-") for title in headings}


def links(page, text=None):
    """Pages and anchors that a page, or a part of it, links to inside the documentation."""
    for target, anchor in LINK.findall(without_code(page.read_text()) if text is None else text):
        if not target.startswith("http"):
            yield (page.parent / target).resolve() if target else page, anchor.removeprefix("#")


def questions():
    """Each question with its answer."""
    _, *parts = re.split(r"^## ", (DOCS / "questions.md").read_text(), flags=re.MULTILINE)
    return dict(part.split("\n", 1) for part in parts)


def test_there_are_at_least_twenty_questions():
    assert len(questions()) >= 20
    assert set(MUST) <= set(questions())


@pytest.mark.parametrize("question", questions())
def test_the_answer_is_within_two_clicks_of_the_index(question):
    """The first click leads to a page that the index names, the second to the answer."""
    page = DOCS / "questions.md"
    one_click = {target for target, _ in links(DOCS / "index.md")}
    found = list(links(page, questions()[question]))
    assert page in one_click
    assert found, "an answer links to where more is said"
    for target, anchor in found:
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_no_link_inside_is_dead(page):
    dead = [(target.name, anchor) for target, anchor in links(page) if not target.exists() or (anchor and anchor not in anchors(target))]
    assert not dead, dead


def test_every_page_is_linked_from_the_index_or_from_a_page_that_is():
    one_click = {target for target, _ in links(DOCS / "index.md")}
    two_clicks = one_click.union(*({target for target, _ in links(page)} for page in one_click))
    assert set(PAGES) - two_clicks - {DOCS / "index.md"} <= set(), "pages further than two clicks"


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.md").write_text("# One\n\n[there](b.md#two), [nowhere](b.md#three)\n\n```\n[code](c.md)\n```\n")
    (tmp_path / "b.md").write_text("# B\n\n## Two!\n")
    assert [anchor in anchors(target) for target, anchor in links(tmp_path / "a.md")] == [True, False]


SKELETON = [
    "Equation",
    "Path",
    "Target and output",
    "Generator",
    "Divergence",
    "Solvers that fit",
    "Likelihood",
    "When to choose it",
    "Measured",
    "Example",
    "References",
]


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "processes" and page.stem != "index"], ids=lambda page: page.stem)
def test_every_process_answers_the_same_questions(page):
    assert re.findall(r"^## (.+)$", without_code(page.read_text()), re.MULTILINE) == SKELETON
