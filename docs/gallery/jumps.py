r"""Jumps on the plane: coordinates that stay, then leap

A real coordinate can follow the Gaussian path without ever drifting. Where the density falls it jumps away, where the density rises it lands:

$$
\partial_t \log p_t(x \mid z) = \frac{|\dot\sigma_t|}{\sigma_t} \bigl(1 + c y - y^2\bigr), \qquad y = \frac{x - \alpha_t z}{\sigma_t},
$$

at rate $[\cdot]_-$ from where this is negative, to a draw from where it is positive. The network predicts a posterior over the levels of the data, as for tokens.
"""

import torch
from picture import ORANGE, claim, panels, plane, save, size

import genmatch as gm

N, STEPS = size(1500, 100), size(80, 20)

board, view = gm.data.Checkerboard(), gm.data.get("checkerboard").view("levels")
cells = torch.cartesian_prod(view.space.levels, view.space.levels).float()
cells = cells[board.log_prob(cells).isfinite()][:: size(1, 5)]
process = gm.JumpProcess(gm.paths.Gaussian((2,)), bins=view.space.levels)
model = gm.oracle(process, cells)

times = torch.linspace(0, 1, STEPS + 1)
rng = torch.Generator().manual_seed(0)
run = gm.simulate(process, model, process.path.source(N, rng=rng), times, rng=rng)
light = board.log_prob(run.states[-1]).isneginf().double().mean()
claim("share of samples on light squares, of noise 0.55", light, below=size(0.03, 0.1))
tracks = torch.stack(run.states)[:, :12]
still = (tracks[1:] == tracks[:-1]).double().mean(0)
claim("share of the steps in which a coordinate moved", 1 - still.mean(), below=0.2)

figure, axes = panels(5, width=2.0, height=2.4, title="Jumps reach the same law: each coordinate stays where it is, and leaps a few times")
for axis, k in zip(axes, (0, STEPS * 2 // 5, STEPS * 3 // 5, STEPS * 4 // 5, STEPS), strict=True):
    plane(axis, run.states[k], title=f"t = {times[k]:g}", dots=1.5)
    axis.plot(tracks[: k + 1, :, 0], tracks[: k + 1, :, 1], color=ORANGE, linewidth=0.5)
    axis.plot(tracks[k, :, 0], tracks[k, :, 1], ".", color=ORANGE, markersize=4)
save(figure)
