"""The pictures of a report, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from genmatch.compare.runner import Comparison, Family

# Okabe & Ito's palette: told apart by readers with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

Draw = Callable[[Any, Tensor], None]


def overview(comparison: Comparison) -> bytes:
    """Real test points beside the best samples of each family."""
    titles = ["real\nheld out", *(f"{f.name}\n{_caption(comparison, f)}" for f in comparison.families)]
    grids = [comparison.data.test[:64], *(f.points[int(f.best["nfe"])][:64] for f in comparison.families)]
    figure, axes = _panels(1, len(grids), 2.3, 2.75)
    for axis, title, points in zip(axes[0], titles, grids, strict=True):
        comparison.data.draw(axis, points)
        axis.set_title(title, fontsize=9)
    return _png(figure)


def quality(comparison: Comparison) -> bytes:
    """Frechet distance in units of the floor against network calls a sample."""
    from matplotlib import ticker

    figure, axes = _panels(1, 1, 6.4, 3.8)
    axis = axes[0][0]
    for i, family in enumerate(comparison.families):
        calls = [row["nfe"] for row in family.rows]
        figures = [row["frechet"] / comparison.floor["frechet"] for row in family.rows]
        axis.plot(calls, figures, label=family.name, color=COLOURS[i % 8], marker=MARKERS[i % 8], markersize=5, linewidth=1.8)
    axis.axhline(1, color="black", linewidth=1, linestyle=":")
    axis.annotate("floor: training images against test images", (0.99, 1), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axis.set(xscale="log", yscale="log", xlabel="network calls a sample", ylabel="Frechet distance / floor")
    axis.set_xticks([row["nfe"] for row in comparison.families[0].rows])
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(ticker.NullFormatter())
    axis.grid(True, which="both", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return _png(figure)


def budgets(comparison: Comparison) -> bytes:
    """What calls buy: a few samples of each family at each budget."""
    families = comparison.families
    calls = [int(row["nfe"]) for row in families[0].rows]
    figure, axes = _panels(len(families), len(calls), 1.45, 1.5)
    for row, family in zip(axes, families, strict=True):
        for axis, nfe in zip(row, calls, strict=True):
            comparison.data.draw(axis, family.points[nfe][:16])
        row[0].text(-0.08, 0.5, family.name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
    for axis, nfe in zip(axes[0], calls, strict=True):
        axis.set_title(f"{nfe} call{'s' if nfe > 1 else ''}", fontsize=9)
    return _png(figure)


def neighbours(comparison: Comparison) -> bytes:
    """Samples above the training points nearest to them: a copy would show."""
    train = comparison.data.train
    figure, axes = _panels(2, len(comparison.families), 2.3, 2.5)
    for column, family in enumerate(comparison.families):
        points = family.points[int(family.best["nfe"])][:16]
        nearest = comparison.data.distance(points, train).argmin(-1)
        comparison.data.draw(axes[0][column], points)
        comparison.data.draw(axes[1][column], train[nearest])
        axes[0][column].set_title(f"{family.name}: samples", fontsize=9)
        axes[1][column].set_title("nearest training points", fontsize=9)
    return _png(figure)


def _caption(comparison: Comparison, family: Family) -> str:
    best = family.best
    return f"{best['frechet'] / comparison.floor['frechet']:.1f} x floor, {int(best['nfe'])} calls"


def _panels(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    # A figure of its own, not pyplot's: no window, no state left behind.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width * columns, height * rows), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    return figure, figure.subplots(rows, columns, squeeze=False)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    return buffer.getvalue()
