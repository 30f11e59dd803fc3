"""From noise to data as a moving picture: the states of one or several simulations on one clock, as a GIF."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from genmatch.errors import GenmatchError

Draw = Callable[[Any, Tensor], None]
"""Draws points onto a matplotlib axes."""

_INCHES = 1.6
"""Width and height of a picture: small, so that the letters of text, whose size is given, are large in it."""
_BAR, _TITLE = 26, 22
"""Pixels of the clock below the panels, and of the name above each."""
_FRAME, _HOLD = 110, 2000
"""Milliseconds of a frame, and of the first and the last."""
_INK, _SOFT, _ACCENT = "#1c2430", "#dde3ea", "#0072b2"


def require_plotting(what: str = "a picture", packages: Sequence[str] = ("matplotlib",)) -> None:
    """Raises `GenmatchError` unless the packages that draw are installed.

    Args:
        what: what needs them, for the message.

    Raises:
        GenmatchError: if they are not.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise GenmatchError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; run `pip install genmatch[plot]`."
        )


def draw_png(draw: Draw, points: Tensor, dpi: int = 130) -> bytes:
    """A picture of points by themselves, as PNG.

    Args:
        draw: how points are drawn.
        points: what is drawn, (B, ...).
        dpi: pixels an inch, of five inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    draw(figure.subplots(), points)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def draw_frames(draw: Draw, points: Sequence[Tensor], pixels: int = 190) -> list[Any]:
    """A picture of the points at each time, with the axes of the last: Pillow images of one size.

    Args:
        draw: how points are drawn.
        points: those of each time, (B, ...).
        pixels: width and height of a picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(_INCHES, _INCHES), dpi=pixels / _INCHES)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.03, 0.03, 0.94, 0.94))
    draw(axes, points[-1])
    limits = axes.get_xlim(), axes.get_ylim()
    images = []
    for shown in points:
        for artist in [*axes.collections, *axes.images, *axes.lines, *axes.texts]:
            artist.remove()
        # Scatters take the next colour of the cycle otherwise.
        axes.set_prop_cycle(None)
        draw(axes, shown)
        axes.set(xlim=limits[0], ylim=limits[1])
        canvas.draw()
        images.append(Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB"))
    return images


def one_clock(panels: Mapping[str, Sequence[Any]], times: Sequence[float], columns: int = 5) -> list[Any]:
    """The frames of several panels side by side, each under its name, with one clock below.

    Args:
        panels: the frames of each, as many as times.
        times: of the frames, 0 = noise and 1 = data.
        columns: panels a row at most.
    """
    from PIL import Image, ImageDraw

    columns = min(columns, len(panels))
    width, height = next(iter(panels.values()))[0].size
    rows = -(-len(panels) // columns)
    size = (columns * width, rows * (height + _TITLE) + _BAR)
    font = _font()
    frames = []
    for i, t in enumerate(times):
        frame = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(frame)
        for k, (name, images) in enumerate(panels.items()):
            x, y = (k % columns) * width, (k // columns) * (height + _TITLE)
            pen.text((x + width / 2, y + _TITLE / 2), name, fill=_INK, font=font, anchor="mm")
            frame.paste(images[i], (x, y + _TITLE))
        left, right, middle = 74, size[0] - 12, size[1] - _BAR / 2
        pen.text((10, middle), f"t = {t:.2f}", fill=_INK, font=font, anchor="lm")
        pen.line((left, middle, right, middle), fill=_SOFT, width=4)
        pen.line((left, middle, left + t * (right - left), middle), fill=_ACCENT, width=4)
        frames.append(frame)
    return frames


def film_strip(panels: Mapping[str, Sequence[Any]], times: Sequence[float], shown: int = 6) -> Any:
    """The same as a still: a row a panel, with `shown` of the times from left to right.

    Args:
        panels: for each panel by title its frames, one for each time.
        times: the times of the frames.
        shown: how many of them.
    """
    from PIL import Image, ImageDraw

    chosen = [round(i * (len(times) - 1) / (shown - 1)) for i in range(shown)]
    width, height = next(iter(panels.values()))[0].size
    font = _font()
    margin = 12 + max(int(font.getlength(name)) for name in panels)
    strip = Image.new("RGB", (margin + shown * width, _TITLE + len(panels) * height), "white")
    pen = ImageDraw.Draw(strip)
    for k, i in enumerate(chosen):
        pen.text((margin + (k + 0.5) * width, _TITLE / 2), f"t = {times[i]:.2f}", fill=_INK, font=font, anchor="mm")
    for row, (name, images) in enumerate(panels.items()):
        pen.text((margin - 6, _TITLE + (row + 0.5) * height), name, fill=_INK, font=font, anchor="rm")
        for k, i in enumerate(chosen):
            strip.paste(images[i], (margin + k * width, _TITLE + row * height))
    return strip


def to_gif(frames: Sequence[Any]) -> bytes:
    """The frames as an animated GIF that repeats, and rests on noise and on data."""
    durations = [_HOLD // 2, *[_FRAME] * (len(frames) - 2), _HOLD]
    images = [frame.quantize(64) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=durations[-len(images) :], loop=0, optimize=True)
    return buffer.getvalue()


def to_png(image: Any) -> bytes:
    """A Pillow image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _font() -> Any:
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)
