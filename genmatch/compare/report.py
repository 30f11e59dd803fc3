"""The report of a comparison, or of several joined: pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genmatch.animation import require_plotting
from genmatch.compare import pictures
from genmatch.compare.study import Estimate, Line, Study
from genmatch.files import make_folder, write_bytes
from genmatch.settings import Plan

if TYPE_CHECKING:
    from genmatch.data import DataSet

_LINES = 8
_ENOUGH = 1.25
"""A budget is enough, if its distance is at most that many times the best."""
_COPIES = 0.5
"""Samples that are so much closer to the training points than test points are, are suspected of being copies."""

PICTURES: dict[str, Callable[[Study], bytes]] = {
    "overview": pictures.overview,
    "quality": pictures.quality,
    "budgets": pictures.budgets,
    "neighbours": pictures.neighbours,
}


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: its heading.
        meaning: one line on how to read it.
        form: a format, such as "{:.1%}".
        better: 1 where more is better, -1 where less is, 0 where neither.
    """

    title: str
    meaning: str
    form: str
    better: int = 0


COLUMNS = {
    "nfe": Column("calls", "network calls a sample", "{:.0f}"),
    "frechet": Column("Fréchet distance", "of Gaussian fits in feature space, against the test split; lower is better", "{:.3g}", -1),
    "coverage": Column("coverage", "share of test points with a sample nearby; higher is better", "{:.1%}", 1),
    "confidence": Column("confidence", "mean of the classifier's largest probability", "{:.1%}"),
    "as_asked": Column("as asked", "share of samples in which the classifier sees the class that was asked for", "{:.1%}", 1),
    "balance": Column("balance", "entropy of the predicted classes, 1 = all equally often", "{:.3f}"),
    "nearest_train": Column("to training", "mean distance to the nearest training point; far below that of test points means copies", "{:.3g}"),
    "per_second": Column("a second", "tokens drawn a second, all samples at once, on this machine", "{:.0f}", 1),
    "seconds": Column("sampling, s", "seconds for all samples on this machine", "{:.1f}", -1),
}

require_report = partial(require_plotting, "a report", ("matplotlib", "jinja2"))
"""Raises `GenmatchError` unless the packages that draw a report are installed."""


def write_report(study: Study, out: Path) -> Path:
    """Writes report.html and its pictures to `out`; returns the path of the page.

    Args:
        study: what is reported.
        out: a folder.
    """
    require_report()
    make_folder(out, "a report")
    images = {f"{name}.png": draw(study) for name, draw in PICTURES.items()}
    images["generation.gif"], images["generation.png"] = pictures.generation(study)
    for name, image in images.items():
        write_bytes(out / name, image)
    page = out / "report.html"
    write_bytes(page, _render("report.html", study, images=images).encode())
    return page


def table_html(study: Study) -> str:
    """The table of the report alone, with its style, for a notebook."""
    return _render("notebook.html", study)


def sentence(line: Line, study: Study) -> str:
    """What one should know of a family, after its name.

    Args:
        line: the family's results.
        study: those of all.
    """
    form = "{:.2f}"
    seeds = f" (mean of {len(line.seeds)} seeds)" if len(line.seeds) > 1 else ""
    best = line.over_floor().value
    enough = next(nfe for nfe in line.budgets if line.over_floor(nfe).value <= _ENOUGH * best)
    fewer = f"; {_calls(enough)} already {'comes' if enough == 1 else 'come'} to {line.over_floor(enough).text(form)}" if enough < line.best else ""
    ratio = line.figure("nearest_train").value / study.test_nearest if study.test_nearest > 0 else math.inf
    copies = "far closer than new data, so look for copies below" if ratio < _COPIES else "no sign of copies"
    return (
        f"{line.over_floor().text(form)} times the floor with {_calls(line.best)} a sample{seeds}{fewer}. "
        f"It covers {line.figure('coverage').value:.0%} of the test points, and its samples lie {ratio:.2f} times as far from the training points as "
        f"test points do: {copies}."
    )


def command(plan: Plan, out: str) -> str:
    """The command that makes a comparison again.

    Args:
        plan: of the comparison.
        out: where it writes.

    Example:
        >>> command(Plan(data="chain", processes=("mask",), nfe=(2, 4)), "runs/chain")
        'genmatch compare --data chain --process mask --nfe 2 --nfe 4 --out runs/chain'
    """
    words = ["genmatch", "compare", "--data", plan.data]
    for field in fields(Plan):
        value = getattr(plan, field.name)
        if field.name == "data" or value == field.default:
            continue
        option = "--process" if field.name == "processes" else f"--{field.name.replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            words += [word for one in (value if isinstance(value, tuple) else (value,)) for word in (option, str(one))]
    return shlex.join([*words, "--out", out])


def _calls(nfe: int) -> str:
    return f"{nfe} network call{'s' if nfe > 1 else ''}"


def columns_of(study: Study) -> dict[str, Column]:
    """The columns of the table that this data set and this comparison fill, by key."""
    own = {figure.key: Column(figure.title, figure.meaning, figure.form) for figure in study.data.figures}
    columns = {"nfe": COLUMNS["nfe"], "frechet": COLUMNS["frechet"], **own, **COLUMNS}
    row = study.lines[0].rows(study.lines[0].best)[0]
    return {key: column for key, column in columns.items() if key in row}


def _render(template: str, study: Study, images: dict[str, bytes] | None = None) -> str:
    import jinja2

    columns = columns_of(study)
    folder = resources.files("genmatch.compare")
    loader = jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(
        study=study,
        data=study.data,
        columns=columns,
        table=[_table_row(line, study, columns) for line in study.ranked],
        sentences={line.name: sentence(line, study) for line in study.ranked},
        likelihoods=sorted(((line.name, found) for line in study.lines if (found := line.likelihood)), key=_bits),
        written=[(line.name, _lines(study.data, line)) for line in study.lines] if study.data.write else [],
        commands=[command(one.plan, place) for one, place in zip(study.comparisons, study.places, strict=True)],
        plans=json.dumps([asdict(one.plan) for one in study.comparisons], indent=2),
        images={name: base64.b64encode(image).decode() for name, image in (images or {}).items()},
        parameters={line.name: sum(p.numel() for p in line.first.run.model.parameters()) for line in study.lines},
    )


@dataclass(frozen=True)
class Cell:
    """A figure in the table, and whether it is the best and differs from every other."""

    value: str
    half: str
    best: bool


def _table_row(line: Line, study: Study, columns: dict[str, Column]) -> dict[str, Any]:
    def cell(key: str, found: Estimate, form: str, of: Callable[[Line], Estimate], better: int) -> Cell:
        value, *half = found.parts(form)
        return Cell(value, f"± {half[0]}" if half else "", line.name in study.winners(key, of, better))

    cells = [cell("frechet", line.over_floor(), "{:.2f}", lambda other: other.over_floor(), -1)]
    for key, column in columns.items():
        if key == "nfe":
            cells.append(Cell(str(line.best), "", False))
        elif key in line.rows(line.best)[0]:
            cells.append(cell(key, line.figure(key), column.form, lambda other, key=key: other.figure(key), column.better))  # type: ignore[misc]
        else:
            cells.append(Cell("", "", False))
    training = cell("nfe", line.training, "{:.0f}", lambda other: other.training, -1)
    return {"name": line.name, "cells": [*cells, training]}


def _bits(entry: tuple[str, dict[str, Any]]) -> float:
    return entry[1]["bits"].value if entry[1]["bits"] else math.inf


def _lines(data: DataSet, line: Line) -> list[str]:
    """The first samples of the best budget, as text."""
    return data.write(line.first.points[line.best][:_LINES]) if data.write else []
