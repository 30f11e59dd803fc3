"""The reports of comparisons under one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genmatch.errors import GenmatchError
from genmatch.files import read_json

_DEPTH = 3
_MOST = 200


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        name: the folder it stands in, below that of all runs.
        page: its file.
        results: the numbers behind it; empty if they cannot be read.
    """

    name: str
    page: Path
    results: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """What the list shows of it."""
        plan = self.results.get("plan", {})
        families = [*self._of_one(), *self._of_several()]
        ranked = sorted(families, key=lambda family: family["frechet"] if isinstance(family["frechet"], int | float) else float("inf"))
        changed = self.page.stat().st_mtime
        return {
            "name": self.name,
            "data": plan.get("data", self.results.get("data")),
            "steps": plan.get("steps"),
            "seed": plan.get("seed"),
            "families": ranked,
            "changed": changed,
        }

    def _of_one(self) -> list[dict[str, Any]]:
        """The families of one comparison, each at its best budget."""
        return [
            {"name": str(family.get("name")), "frechet": best.get("frechet"), "nfe": best.get("nfe")}
            for family in self.results.get("families", [])
            if isinstance(best := family.get("best"), dict)
        ]

    def _of_several(self) -> list[dict[str, Any]]:
        """The lines of several comparisons, joined by `genmatch report`: figures with intervals."""
        return [
            {"name": str(line.get("name")), "frechet": row.get("frechet", {}).get("value"), "nfe": line.get("best_nfe")}
            for line in self.results.get("lines", [])
            for row in line.get("rows", [])
            if row.get("nfe", {}).get("value") == line.get("best_nfe")
        ]


def find_reports(folder: Path) -> dict[str, Report]:
    """The reports below a folder by name, the newest first; links are not followed."""
    pages = [page for depth in range(_DEPTH) for page in folder.glob("*/" * depth + "report.html") if page.resolve().is_relative_to(folder.resolve())]
    pages = sorted(pages, key=lambda page: -page.stat().st_mtime)[:_MOST]
    return {str(page.parent.relative_to(folder)): Report(str(page.parent.relative_to(folder)), page, _results(page)) for page in pages}


def _results(page: Path) -> dict[str, Any]:
    try:
        return read_json(page.with_name("results.json"))
    except GenmatchError:
        return {}
