r"""A flow: one velocity for each place and time

The path $X_t = t\,x_1 + (1 - t)\,x_0$ is a straight line for each pair of noise and data. A network that regresses its velocity learns the mean of all lines through a
place, and that ODE carries noise to data:

$$
u_t(x) = \mathbb E[x_1 - x_0 \mid X_t = x], \qquad \dot X = u_t(X) .
$$

Trained on the checkerboard. A velocity that depends on the state alone cannot let two trajectories cross.
"""

import torch
from picture import ORANGE, claim, panels, plane, save, size

import genmatch as gm

STEPS, N, WIDTH = size(2000, 50), size(1800, 200), size(128, 64)

board = gm.data.Checkerboard()
points = gm.data.get("checkerboard").view("vectors").train
torch.manual_seed(0)
process = gm.Flow(gm.paths.Gaussian((2,)))
network = gm.nn.MLP(process.space, process.output_shape, width=WIDTH, depth=3)
result = gm.train(process, network, points, steps=STEPS, batch_size=512, lr=4e-3, seed=0)
claim("loss a coordinate, of the best constant 7/3", sum(result.losses[-20:]) / 20, below=7 / 3)

times = torch.linspace(0, 1, 41)
noise = process.path.source(N, rng=torch.Generator().manual_seed(0))
run = gm.simulate(process, result.model, noise, times, solver="midpoint")
light = board.log_prob(run.states[-1]).isneginf().double().mean()
claim("share of samples on light squares, of noise 0.55", light, below=size(0.25, 0.65))

figure, axes = panels(5, width=2.0, height=2.4, title="A flow carries noise to a checkerboard along one velocity field")
paths = torch.stack(run.states)[:, :24]
for axis, k in zip(axes, (0, 16, 24, 32, 40), strict=True):
    plane(axis, run.states[k], title=f"t = {times[k]:g}", dots=1.5)
    axis.plot(paths[: k + 1, :, 0], paths[: k + 1, :, 1], color=ORANGE, linewidth=0.5, alpha=0.8)
    axis.plot(paths[k, :, 0], paths[k, :, 1], ".", color=ORANGE, markersize=3)
save(figure)
