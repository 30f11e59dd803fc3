"""What the scripts of the gallery share: how large they run, how they draw, and what they claim.

Each runs alone, `python docs/gallery/flow.py [picture.png] [--quick]`, and draws beside itself by default.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genmatch.compare.pictures import COLOURS

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GREY, BLACK = COLOURS
HERE = Path(__file__).parent

_claims = []


def size(full, quick):
    """`full`, or `quick` if the script was called with `--quick`."""
    return quick if "--quick" in sys.argv else full


def panels(columns, rows=1, *, width=2.6, height=2.8, title=None, **shared):
    """A figure and its axes in a flat list, without the frame that says nothing."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_fontsize(9)
        axis.yaxis.label.set_fontsize(9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, axes


def plane(axis, points, *, side=2.6, colour=BLUE, dots=2.0, title=""):
    """Points of the plane, (n, 2), in a square without ticks."""
    axis.scatter(points[:, 0], points[:, 1], s=dots, color=colour, alpha=0.6, linewidths=0)
    axis.set(xlim=(-side, side), ylim=(-side, side), xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)
    axis.set_title(title)


def claim(what, value, *, below=None, above=None):
    """Prints a figure and the bound that it must keep; ends the script if it does not."""
    word, bound, kept = ("below", below, float(value) < below) if above is None else ("above", above, float(value) > above)
    line = f"{what}: {float(value):.3g}, {word} {bound:g}"
    print(line)
    if not kept:
        raise SystemExit(f"the claim is broken: {line}")
    _claims.append(line)


def save(figure):
    """Writes the picture as PNG with 256 colours, with what was claimed and what it was drawn from in its metadata."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    script = Path(sys.argv[0])
    path = Path(words[0]) if words else HERE / "pictures" / f"{script.stem}.png"
    for axis in figure.axes:
        axis.title.set_fontsize(9)
    figure.set_dpi(130)
    image = Image.fromarray(_pixels(figure)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    about = PngInfo()
    about.add_text("Claims", "\n".join(_claims))
    about.add_text("Source", size("", "quick ") + digest(script))
    _claims.clear()
    image.save(path, optimize=True, pnginfo=about)


def digest(script):
    """SHA-256 of a script, but for what its docstring says, and of this file: a picture of another version is out of date."""
    code = script.read_text(encoding="utf-8").split('"""', 2)[2]
    return hashlib.sha256((code + Path(__file__).read_text(encoding="utf-8")).encode()).hexdigest()


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
