r"""A chain of tokens: coordinates that are revealed

The same law with each coordinate as one of 48 tokens, and the mask as noise. At rate $\dot\kappa / (1 - \kappa)$ a masked token jumps to a draw from its posterior given
what is known:

$$
Q_t(x_j \to v \mid x) = \frac{\dot\kappa_t}{1 - \kappa_t}\; p(x_1^j = v \mid x) .
$$

With two tokens every state can be drawn: nothing is known (no mark), one coordinate is (a line at the margin), or both (a point).
"""

import torch
from picture import ORANGE, claim, panels, plane, save, size

import genmatch as gm

N, STEPS = size(3000, 300), size(32, 8)

board, view = gm.data.Checkerboard(), gm.data.get("checkerboard").view("tokens")
pairs = torch.cartesian_prod(torch.arange(48), torch.arange(48))
pairs = pairs[board.log_prob(view.decode(pairs)).isfinite()]  # the 1152 dark cells
process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=48, source="mask"))
model = gm.oracle(process, pairs)

times = torch.linspace(0, 1, STEPS + 1)
rng = torch.Generator().manual_seed(0)
run = gm.simulate(process, model, process.path.source(N, rng=rng), times, solver="first-hitting", rng=rng)
share = torch.stack([(x < 48).double().mean() for x in run.states])
light = board.log_prob(view.decode(run.states[-1])).isneginf().double().mean()
claim("share of samples on light squares", light, below=1e-9)
claim("largest difference of the share of known tokens from kappa", (share - times).abs().max(), below=4 * (0.25 / (2 * N)) ** 0.5)

figure, axes = panels(5, width=2.0, height=2.4, title="A masked chain reveals one coordinate, then the other, at times of their own")
axes[0].text(0, 0, "nothing is known", ha="center", va="center", fontsize=9, color=ORANGE)
for axis, k in zip(axes, (0, STEPS // 4, STEPS // 2, 3 * STEPS // 4, STEPS), strict=True):
    x, known = view.decode(run.states[k]), run.states[k] < 48
    plane(axis, x[known.all(1)], title=f"t = {times[k]:g}: {float(share[k]):.0%} known", dots=2)
    for j, place in ((0, axis.vlines), (1, axis.hlines)):
        half = x[known[:, j] & ~known[:, 1 - j], j]
        place(half[:200], -2.6, -2.35, color=ORANGE, linewidth=0.6, alpha=0.6)
save(figure)
