r"""Masked text: a page that develops

The model that comes with the package is a masked chain on 64 characters of Shakespeare, small and trained for minutes. Each character is revealed at a time of its own, and
at time $t$

$$
P(\text{a character is known}) = \kappa_t ,
$$

whatever the model says: the schedule decides *when*, the network *what*.
"""

import torch
from matplotlib.colors import LinearSegmentedColormap
from picture import BLUE, ORANGE, claim, panels, save, size

import genmatch as gm
from genmatch.runs import load_run, packaged

N, STEPS, ROWS = size(64, 16), size(64, 16), size(7, 5)

run = load_run(packaged()["text"])
text, process = gm.data.get("text"), run.process
rng = torch.Generator().manual_seed(4)
times = torch.linspace(0, 1, STEPS + 1)
states = gm.simulate(process, run.model, process.path.source(N, rng=rng), times, rng=rng).states
known = torch.stack([~process.path.is_noise(x) for x in states])  # (times, samples, characters)
kappa = process.path.schedule.kappa(times.double())
claim("largest difference of the share of known characters from kappa", (known.double().mean((1, 2)) - kappa).abs().max(), below=4 * (0.25 / (64 * N)) ** 0.5)
claim("characters that changed after they were revealed", sum(int((a[k] != b[k]).sum()) for a, b, k in zip(states, states[1:], known, strict=False)), below=1)

figure, (axis,) = panels(1, width=8.4, height=2.6, title="A text develops: characters appear at random times, and then stay")
colours = LinearSegmentedColormap.from_list("revealed", [BLUE, ORANGE])
first = times[known[:, 0].int().argmax(0)]  # when each character of the first sample was revealed
for row in range(ROWS):
    k = row * STEPS // (ROWS - 1)
    line = text.write(text.view("tokens").show(states[k][:1]))[0]
    for place, character in enumerate(line):
        shown = colours(float(first[place])) if character != "·" else "lightgrey"
        axis.text(place, -row, character, family="monospace", fontsize=9, color=shown, ha="center", va="center", parse_math=False)
    axis.text(-1.5, -row, f"t = {times[k]:.2f}", fontsize=8, ha="right", va="center")
axis.set(xlim=(-6, 64), ylim=(0.5 - ROWS, 0.5))
axis.set_axis_off()
axis.set_title("colour: when it was revealed, from early (blue) to late (orange)", fontsize=9)
save(figure)
