"""The report of a comparison: results.json, PNGs, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import importlib.util
import json
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from genmatch.compare import pictures
from genmatch.errors import GenmatchError
from genmatch.files import write_bytes, write_json

if TYPE_CHECKING:
    from genmatch.compare.runner import Comparison, Family
    from genmatch.data import DataSet

_LINES = 8

PICTURES: dict[str, Callable[[Comparison], bytes]] = {
    "overview": pictures.overview,
    "quality": pictures.quality,
    "budgets": pictures.budgets,
    "neighbours": pictures.neighbours,
}

COLUMNS = {
    "nfe": ("calls", "network calls a sample", "{:.0f}"),
    "frechet": ("Fréchet distance", "of Gaussian fits in feature space, against the test split; lower is better", "{:.3g}"),
    "coverage": ("coverage", "share of test points with a sample nearby; higher is better", "{:.1%}"),
    "confidence": ("confidence", "mean of the classifier's largest probability", "{:.1%}"),
    "as_asked": ("as asked", "share of samples in which the classifier sees the class that was asked for", "{:.1%}"),
    "balance": ("balance", "entropy of the predicted classes, 1 = all equally often", "{:.3f}"),
    "nearest_train": ("to training", "mean distance to the nearest training point; far below that of test points means copies", "{:.3g}"),
    "per_second": ("a second", "tokens drawn a second, all samples at once, on this machine", "{:.0f}"),
    "seconds": ("sampling", "seconds for all samples on this machine", "{:.1f} s"),
}


def require_plotting() -> None:
    """Raises `GenmatchError` unless the packages that draw a report are installed."""
    missing = [package for package in ("matplotlib", "jinja2") if importlib.util.find_spec(package) is None]
    if missing:
        raise GenmatchError(
            f"a report needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; run `pip install genmatch[plot]`."
        )


def write_report(comparison: Comparison, out: Path) -> Path:
    """Writes what is known so far to `out`; returns the path of the page."""
    images = {name: draw(comparison) for name, draw in PICTURES.items()}
    for name, image in images.items():
        write_bytes(out / f"{name}.png", image)
    write_json(out / "results.json", comparison.results())
    page = out / "report.html"
    write_bytes(page, _render(comparison, images).encode())
    return page


def _render(comparison: Comparison, images: dict[str, bytes]) -> str:
    import jinja2

    results = comparison.results()
    ranked = sorted(results["families"], key=lambda family: family["best"]["frechet"])
    figures = {figure.key: (figure.title, figure.meaning, figure.form) for figure in comparison.data.figures}
    columns = {"nfe": COLUMNS["nfe"], "frechet": COLUMNS["frechet"], **figures, **COLUMNS}
    template = resources.files("genmatch.compare").joinpath("report.html").read_text(encoding="utf-8")
    return (
        jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            results=results,
            ranked=ranked,
            data=comparison.data,
            train_size=len(comparison.data.train),
            test_size=len(comparison.data.test),
            columns={key: column for key, column in columns.items() if key in ranked[0]["best"]},
            likelihoods=sorted((f for f in results["families"] if f["likelihood"]), key=lambda f: f["likelihood"]["bits"] or math.inf),
            written=[(family.name, _lines(comparison.data, family)) for family in comparison.families] if comparison.data.write else [],
            floor=comparison.floor,
            waiting=comparison.planned[len(comparison.families) :],
            images={name: base64.b64encode(image).decode() for name, image in images.items()},
            settings=json.dumps(results["plan"], indent=2),
        )
    )


def _lines(data: DataSet, family: Family) -> list[str]:
    """The first samples of the best budget, as text."""
    return data.write(family.points[int(family.best["nfe"])][:_LINES]) if data.write else []
