"""The pictures of a report, as bytes of PNG and GIF files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from genmatch import animation
from genmatch.animation import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from genmatch.compare.runner import Family
    from genmatch.compare.study import Estimate, Line, Study

# Okabe & Ito's palette: told apart by readers with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_COLUMNS = 6
"""Panels a row at most."""
_POINTS = 1000
"""Points drawn at most where each is a dot, on a plane or a sphere: a few would not show a law."""


def overview(study: Study) -> bytes:
    """Real test points beside the best samples of each family."""
    titles = ["real\nheld out", *(f"{line.name}\n{_caption(line)}" for line in study.lines)]
    grids = [_first(study.data.test, 64), *(_first(line.first.points[line.best], 64) for line in study.lines)]
    rows = -(-len(grids) // _COLUMNS)
    columns = -(-len(grids) // rows)
    figure, axes = _panels(rows, columns, 2.3, 2.75)
    for axis in axes.flat[len(grids) :]:
        axis.set_axis_off()
    for axis, title, points in zip(axes.flat, titles, grids, strict=False):
        study.data.draw(axis, points)
        axis.set_title(title, fontsize=9)
    return _png(figure)


def quality(study: Study) -> bytes:
    """Frechet distance in units of the floor against network calls a sample, and against the seconds that sampling took."""
    figure, axes = _panels(1, 2, 5.2, 4.0)
    samples = len(study.data.train)
    along = {"nfe": "network calls a sample", "seconds": f"seconds for {samples} samples on this machine"}
    for axis, (key, label) in zip(axes[0], along.items(), strict=True):
        axis.axhline(1, color="black", linewidth=1, linestyle=":")
        axis.annotate("floor: the training split", (0.99, 1), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="Fréchet distance / floor")
        axis.grid(True, which="both", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        places = [[line.figure(key, nfe).value for nfe in line.budgets] for line in study.lines]
        for i, (line, x) in enumerate(zip(study.lines, places, strict=True)):
            _curve(axis, x, [line.over_floor(nfe) for nfe in line.budgets], i, line.name)
        # A single value by itself has no width on a logarithmic axis.
        axis.set_xlim(min(map(min, places)) / 1.2, max(map(max, places)) * 1.2)
    axes[0][0].set_xticks(sorted({nfe for line in study.lines for nfe in line.budgets}))
    for side in (axes[0][0].xaxis, *(axis.yaxis for axis in axes[0])):
        _plain_numbers(side)
    _plain_numbers(axes[0][1].xaxis)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False, fontsize=9)
    return _png(figure)


def _first(points: Tensor, n: int) -> Tensor:
    return points[: _POINTS if points[0].numel() <= 3 else n]


def _curve(axis: Any, x: list[float], found: list[Estimate], i: int, name: str) -> None:
    order = sorted(range(len(x)), key=lambda k: x[k])
    x, found = [x[k] for k in order], [found[k] for k in order]
    values = [one.value for one in found]
    halves = [one.half or 0.0 for one in found]
    # A bar that reaches zero has no end on a logarithmic axis.
    below = [min(half, 0.999 * value) for half, value in zip(halves, values, strict=True)]
    # A ninth line has the colour of the first, and neither its marker nor its dashes.
    style = {"color": COLOURS[i % 8], "marker": MARKERS[(i + i // 8) % 8], "linestyle": "--" if i >= 8 else "-"}
    axis.errorbar(x, values, yerr=(below, halves), label=name, **style, markersize=4.5, linewidth=1.6, elinewidth=1, capsize=2)


def _plain_numbers(side: Any) -> None:
    from matplotlib import ticker

    side.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(ticker.NullFormatter())


def budgets(study: Study) -> bytes:
    """What calls buy: a few samples of each family at each budget."""
    calls = sorted({nfe for line in study.lines for nfe in line.budgets})
    figure, axes = _panels(len(study.lines), len(calls), 1.45, 1.5)
    for row, line in zip(axes, study.lines, strict=True):
        for axis, nfe in zip(row, calls, strict=True):
            if nfe in line.budgets:
                study.data.draw(axis, _first(line.first.points[nfe], 16))
            else:
                axis.set_axis_off()
        row[0].text(-0.08, 0.5, line.name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
    for axis, nfe in zip(axes[0], calls, strict=True):
        axis.set_title(f"{nfe} call{'s' if nfe > 1 else ''}", fontsize=9)
    return _png(figure)


def neighbours(study: Study) -> bytes:
    """Samples above the training points nearest to them: a copy would show."""
    train = study.data.train
    columns = min(len(study.lines), _COLUMNS)
    rows = -(-len(study.lines) // columns)
    figure, axes = _panels(2 * rows, columns, 2.3, 2.5)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, line in enumerate(study.lines):
        above, below = axes[2 * (i // columns)][i % columns], axes[2 * (i // columns) + 1][i % columns]
        points = line.first.points[line.best][:16]
        nearest = study.data.distance(points, train).argmin(-1)
        for axis, shown, title in ((above, points, f"{line.name}: samples"), (below, train[nearest], "nearest training points")):
            axis.set_axis_on()
            study.data.draw(axis, shown)
            axis.set_title(title, fontsize=9)
    return _png(figure)


def generation(study: Study) -> tuple[bytes, bytes]:
    """Each family on its way from noise to data, all on one clock: a GIF, and a PNG of six moments for print."""
    panels = {line.name: _frames(line.first, study.data.draw) for line in study.lines}
    times = study.lines[0].first.generation["times"].tolist()
    return animation.to_gif(animation.one_clock(panels, times)), animation.to_png(animation.film_strip(panels, times))


_DRAWN: WeakKeyDictionary[Family, list[Any]] = WeakKeyDictionary()


def _frames(family: Family, draw: Draw) -> list[Any]:
    # A report is written after each family, and drawing the frames is most of its time.
    if family not in _DRAWN:
        _DRAWN[family] = animation.draw_frames(draw, list(family.generation["points"]))
    return _DRAWN[family]


def _caption(line: Line) -> str:
    return f"{line.over_floor().value:.1f} x floor, {line.best} calls"


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
