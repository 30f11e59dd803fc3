"""A text being unmasked, as a small animation: `python docs/examples/unmasking.py docs/_static/unmasking.gif`.

The masked model of characters that comes with the package writes; each picture is the state at a time of the grid, on which masked
characters are grey boxes, and those that are new are red. It writes from left to right only by chance: any character may come next.
"""

import sys
import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont

import genmatch as gm
from genmatch.data import get
from genmatch.runs import load_run, packaged

STEPS, ROWS, WIDTH = 32, 4, 64
CELL, MARGIN = (10, 22), 12


def states(seed=7):
    """The states at each time of the grid, (steps + 1, rows, L)."""
    run = load_run(packaged()["text"])
    process = run.process
    x0 = process.path.source(ROWS)
    rng = torch.Generator().manual_seed(seed)
    walk = gm.simulate(process, run.model, x0, gm.time_grid(STEPS), rng=rng)
    return torch.stack(walk.states), walk.times, process.space.mask_id


def picture(x, before, t, mask, pieces):
    """One frame."""
    image = Image.new("P", (2 * MARGIN + WIDTH * CELL[0], 2 * MARGIN + (ROWS + 1) * CELL[1]), 0)
    image.putpalette([255, 255, 255, 225, 228, 232, 30, 34, 40, 192, 40, 40, 90, 96, 104])
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    for i, row in enumerate(x.tolist()):
        for j, token in enumerate(row):
            corner = (MARGIN + j * CELL[0], MARGIN + i * CELL[1])
            if token == mask:
                draw.rectangle([corner[0] + 1, corner[1] + 3, corner[0] + CELL[0] - 2, corner[1] + CELL[1] - 6], fill=1)
            else:
                draw.text((corner[0] + 1, corner[1] + 2), pieces[token], fill=3 if int(before[i, j]) == mask else 2, font=font)
    draw.text((MARGIN, MARGIN + ROWS * CELL[1] + 4), f"t = {float(t):.2f}", fill=4, font=font)
    return image


def main(path):
    """Writes the animation."""
    walk, times, mask = states()
    pieces = [line.replace("⏎", " ") for line in get("text").write(torch.arange(mask).unsqueeze(-1))]
    frames = [picture(x, walk[max(i - 1, 0)], times[i], mask, pieces) for i, x in enumerate(walk)]
    frames[0].save(path, save_all=True, append_images=[*frames[1:], *[frames[-1]] * 8], duration=160, loop=0, optimize=True)
    print("\n".join(textwrap.shorten(line, WIDTH) for line in get("text").write(walk[-1])))


if __name__ == "__main__":
    main(sys.argv[1])
