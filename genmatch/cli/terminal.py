"""Samples in a terminal: text as it is, pictures as half blocks, two pixels a character."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor

    from genmatch.runs import Run

_LINES, _IMAGES, _POINTS = 8, 32, 2000
"""How many are shown: texts, images, and points of a plane."""


def show(run: Run, points: Tensor) -> None:
    """Shows the first samples of a run, if standard output is a terminal with colours."""
    from rich.console import Console

    from genmatch import data as data_sets

    if not sys.stdout.isatty():
        return
    data = data_sets.get(run.settings.data)
    console = Console(highlight=False)
    if data.write is not None:
        for line in data.write(points[:_LINES]):
            click.echo(line)
    elif console.color_system in ("256", "truecolor"):
        shown = points[: _POINTS if points[0].numel() <= 3 else _IMAGES]
        console.print(half_blocks(_drawn(data.draw, shown), min(console.width, 80), max(8, console.height - 4)))


def half_blocks(image: Any, columns: int, rows: int) -> Any:
    """A Pillow image as coloured text of at most that size: each character is two pixels, the upper half block and what is below it.

    Example:
        >>> from PIL import Image
        >>> print(half_blocks(Image.new("RGB", (4, 4), "white"), columns=2, rows=9).plain)
        ▀▀
    """
    from PIL import Image
    from rich.style import Style
    from rich.text import Text

    scale = min(columns / image.width, 2 * rows / image.height)
    width, height = max(1, round(image.width * scale)), 2 * max(1, round(image.height * scale / 2))
    small = image.convert("RGB").resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    pixels = [small.crop((0, y, width, y + 1)).tobytes() for y in range(height)]
    text = Text()
    for y in range(0, height, 2):
        for x in range(width):
            above, below = (f"#{pixels[y + k][3 * x : 3 * x + 3].hex()}" for k in (0, 1))
            text.append("▀", Style(color=above, bgcolor=below))
        if y + 2 < height:
            text.append("\n")
    return text


def _drawn(draw: Any, points: Any) -> Any:
    """A drawing of points as an image, without its margin."""
    from PIL import Image, ImageChops

    from genmatch.animation import draw_png

    image = Image.open(io.BytesIO(draw_png(draw, points, dpi=120))).convert("RGB")
    return image.crop(ImageChops.invert(image).getbbox())
