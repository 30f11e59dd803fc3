r"""A diffusion: the same law, with fresh noise on the way

For any $g_t \ge 0$ the equation

$$
dX = \bigl(u_t + \tfrac12 g_t^2\, \nabla \log p_t\bigr)\,dt + g_t\,dW
$$

has the law $p_t$ of the flow at every time. What changes is what a single start leads to: with $g = 0$ to one data point, with much noise to all of them. Here the network
is exact, the oracle of points on the checkerboard.
"""

import torch
from picture import COLOURS, GREY, claim, panels, plane, save, size

import genmatch as gm

DATA, N, STEPS = size(600, 150), size(1000, 300), size(100, 30)

data = gm.data.get("checkerboard").view("vectors").train[:DATA]
path = gm.paths.Gaussian((2,))
levels = {"g = 0: the flow": 0.0, "g² = 2 (1 - t)": 1.0, "g² = 8 (1 - t)": 2.0}
times = torch.linspace(0, 1, STEPS + 1)

figure, axes = panels(3, width=2.9, height=3.2, title="Noise on the way does not change the law, but what one start leads to")
for axis, colour, (name, level) in zip(axes, COLOURS, levels.items(), strict=False):
    process = gm.Diffusion(path, noise=lambda t, level=level: level * (2 * (1 - t)).sqrt())
    model = gm.oracle(process, data)
    rng = torch.Generator().manual_seed(0)
    run = gm.simulate(process, model, path.source(N, rng=rng), times, rng=rng)
    # The second moment of the path, alpha^2 E|x1|^2 + 2 sigma^2, at a time on the way.
    t, x = float(times[STEPS // 2]), run.states[STEPS // 2]
    wanted = t**2 * (data**2).sum(1).mean() + 2 * (1 - t) ** 2
    claim(f"{name}: relative error of E|X|² at t = {t:g}", ((x**2).sum(1).mean() / wanted - 1).abs(), below=size(0.12, 0.2))
    one = gm.simulate(process, model, torch.tensor([[0.3, -0.2]]).repeat(7, 1), times, rng=torch.Generator().manual_seed(1))
    plane(axis, run.states[-1], title=name, colour=GREY, dots=1.5)
    tracks = torch.stack(one.states)
    axis.plot(tracks[:, :, 0], tracks[:, :, 1], color=colour, linewidth=0.7)
    axis.plot(tracks[-1, :, 0], tracks[-1, :, 1], "o", color=colour, markersize=4)
    axis.plot(0.3, -0.2, "o", color="black", markersize=4)
save(figure)
